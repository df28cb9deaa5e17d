"""Prefetched items are the same ones in order, bounded in number, and no thread remains when one side stops."""

import threading
import time

import pytest

from pipeline.infra.prefetch import prefetched


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_items_come_in_order_and_all_of_them(depth):
    assert list(prefetched(range(50), depth)) == list(range(50))
    assert list(prefetched([], depth)) == []
    assert list(prefetched([None, 0, ""], depth)) == [None, 0, ""]


def test_no_more_than_depth_items_wait_in_the_queue():
    produced = []

    def items():
        for i in range(20):
            produced.append(i)
            yield i

    stream = prefetched(items(), 3)
    assert next(stream) == 0
    time.sleep(0.3)
    assert len(produced) <= 1 + 3 + 1  # taken, in the queue, and one that waits for room
    assert list(stream) == list(range(1, 20))


def test_an_error_is_raised_in_place_of_its_item():
    def broken():
        yield 1
        yield 2
        raise ValueError("third")

    taken = []
    with pytest.raises(ValueError, match="third"):
        for item in prefetched(broken(), 10):
            taken.append(item)
    assert taken == [1, 2]


def test_closing_the_stream_ends_the_producer():
    before = threading.active_count()
    endless = iter(int, 1)
    stream = prefetched(endless, 2)
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before

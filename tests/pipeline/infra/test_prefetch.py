"""Items made by another thread: the same ones, bounded, and nobody is left behind when one side stops."""

import threading
import time

import pytest

from pipeline.infra.prefetch import ahead


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_items_come_in_order_and_all_of_them(depth):
    assert list(ahead(range(50), depth)) == list(range(50))
    assert list(ahead([], depth)) == []
    assert list(ahead([None, 0, ""], depth)) == [None, 0, ""]


def test_no_more_than_so_many_items_are_made_ahead():
    made = []

    def slow_to_be_taken():
        for i in range(20):
            made.append(i)
            yield i

    stream = ahead(slow_to_be_taken(), 3)
    assert next(stream) == 0
    time.sleep(0.3)
    assert len(made) <= 1 + 3 + 1  # taken, waiting, and one that finds no room
    assert list(stream) == list(range(1, 20))


def test_an_error_comes_where_its_item_would_have_come():
    def broken():
        yield 1
        yield 2
        raise ValueError("third")

    taken = []
    with pytest.raises(ValueError, match="third"):
        for item in ahead(broken(), 10):
            taken.append(item)
    assert taken == [1, 2]


def test_who_stops_taking_ends_the_maker():
    before = threading.active_count()
    endless = iter(int, 1)
    stream = ahead(endless, 2)
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before

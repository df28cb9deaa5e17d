"""Work in advance, in other threads: reading and hashing overlap with writing, reading and decoding with training."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import islice
from queue import Full, Queue
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")

# Seconds between two checks of the producer, which waits for room in the queue, whether the consumer has stopped.
_CHECK_SECONDS = 0.2


@dataclass(frozen=True)
class _End:
    """The last entry of the queue: the producer is done, or has failed with ``error``."""

    error: BaseException | None = None


def prefetched(items: Iterable[T], depth: int) -> Iterator[T]:
    """Yields the same items in the same order, produced by a second thread.

    An error of the producer is raised in place of the item that it was producing. When the consumer stops early (by
    ``close`` or an exception), the producer ends after the item that it is producing.

    Args:
        items: iterated in the second thread only.
        depth: largest number of items waiting in the queue, which bounds the memory.
    """
    queue: Queue[Any] = Queue(depth)
    stopped = threading.Event()

    def put(item: Any) -> bool:
        """False when the consumer has stopped; a plain put would then wait forever."""
        while not stopped.is_set():
            try:
                queue.put(item, timeout=_CHECK_SECONDS)
                return True
            except Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_End())
        except BaseException as error:  # raised again in the consumer's thread
            put(_End(error))

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        producer.join()


def in_order(pool: Executor, function: Callable[[S], T], items: Iterable[S], ahead: int) -> Iterator[T]:
    """``function`` of every item, in the order of the items, computed by a pool up to ``ahead`` items in advance.

    An error is raised in place of the result. When the consumer stops early, what has not begun is cancelled.
    """
    waiting: deque[Future[T]] = deque()
    remaining = iter(items)
    try:
        while True:
            waiting.extend(pool.submit(function, item) for item in islice(remaining, max(1, ahead) - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()

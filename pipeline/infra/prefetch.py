"""Prefetching by a second thread, so that reading and hashing overlap with writing."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import Full, Queue
from typing import Any, TypeVar

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

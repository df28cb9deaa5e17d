"""Work on a sequence by two threads: one makes the items, one takes them. Reading and hashing overlap with writing."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import Full, Queue
from typing import Any, TypeVar

T = TypeVar("T")

# How often a thread that waits for its partner looks whether the partner has gone.
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class _End:
    """No item follows: the maker is done, or has failed."""

    error: BaseException | None = None


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items in the same order, made by a thread of their own.

    An error of the maker is raised where its item would have come. Whoever stops taking items (``close``, an
    exception) ends the maker after the item that it is at.

    Args:
        items: taken from in the other thread only.
        depth: so many items are made ahead at most, so memory stays bounded.
    """
    queue: Queue[Any] = Queue(depth)
    left = threading.Event()

    def hand_over(item: Any) -> bool:
        while not left.is_set():
            try:
                queue.put(item, timeout=_LOOK_SECONDS)
                return True
            except Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not hand_over(item):
                    return
            hand_over(_End())
        except BaseException as error:  # raised again by who takes the items
            hand_over(_End(error))

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        left.set()
        maker.join()

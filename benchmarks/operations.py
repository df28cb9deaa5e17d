"""What the host asks a device to do in a training step, counted without one.

A GPU runs operations one after the other while the host prepares the next. Where one of them needs a value on the host,
or a result whose size depends on values, the host waits until everything before it has run. Both can be counted on a
CPU: the same Python code issues the same operations there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "_unique", "bincount")
"""Operations whose result, or its size, the host must know."""
_INDEXING = ("index", "index_put", "_index_put_impl")


class Operations(TorchDispatchMode):
    """Counts the operations that are issued while it is active, forward and backward.

    Attributes:
        every: all that torch dispatches, by name.
        issued: those of them for which a device has something to run: no views, no allocations.
        waits: those of them for which the host waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.every: Counter[str] = Counter()
        self.issued: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Counts one operation and runs it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name, packet = str(func).removeprefix("aten."), func.overloadpacket.__name__
        self.every[name] += 1
        runs = func.is_view or "empty" in packet or packet == "promote_types"
        if not runs:
            self.issued[name] += 1
        if _waits(packet, args, kwargs):
            self.waits[name] += 1
        return result


def _waits(packet: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    if packet.rstrip("_") in _INDEXING:
        # A mask's True places must be counted first; places given as numbers need not.
        indices = args[1] if len(args) > 1 else kwargs["indices"]
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
    return any(packet.startswith(name) for name in WAITS)


def count(work: Callable[[], object]) -> Operations:
    """The operations of some work."""
    with Operations() as operations:
        work()
    return operations

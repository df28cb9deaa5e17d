"""What scoring keeps of the images, so that a run of some hundred of them is in memory at a time, and never all.

Every run of images gives an object of its own, which a protocol defines: a dataclass or a dict of arrays and
``Ratio``s. ``merged`` makes one of them. What grows with the images is a few numbers for each candidate and each image
(a protocol says which); all else are sums over cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from das.metrics.bootstrap import Clusters, Ratio

T = TypeVar("T")

NO_ACTIVITY = "no activity"
"""The group of images that name no activity."""


@dataclass(frozen=True)
class Cells:
    """The images that are added up to one row of sums: those of one block, one sequence and one activity; C of them.

    Attributes:
        of: (F,) cell of every image.
        clusters: of the cells: the blocks that intervals draw again.
        sequence: (C,) names.
        activity: (C,) names, ``NO_ACTIVITY`` where the source has none.
    """

    of: np.ndarray
    clusters: Clusters
    sequence: np.ndarray
    activity: np.ndarray

    @classmethod
    def cut(cls, clusters: Clusters, sequence: np.ndarray, activity: np.ndarray) -> Cells:
        """The cells of F images, given their clusters, sequences and activities ("" for none), (F,) each."""
        activity = np.where(activity == "", NO_ACTIVITY, activity)
        codes = [clusters.of, *(np.unique(names, return_inverse=True)[1] for names in (sequence, activity))]
        _, first, of = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True)
        return cls(of.reshape(-1), clusters.where(first), sequence[first], activity[first])

    def __len__(self) -> int:
        return len(self.sequence)

    def groups(self) -> dict[str, np.ndarray]:
        """Group names (C,) by kind: activities (unless all are sequences), and sequences."""
        if (self.activity != self.sequence).any() and (self.activity != NO_ACTIVITY).any():
            return {"activities": self.activity, "sequences": self.sequence}
        return {"sequences": self.sequence}


def merged(parts: Sequence[T], cell: np.ndarray, cells: int) -> T:
    """One of several parts, which are of runs of images in order.

    ``Ratio``s, of which a part has a row for each of its cells, are summed by cell. Arrays are put one after another.
    Of dicts the keys are kept that all have, of lists of one length every place, and what is None in one part is None.

    Args:
        parts: at least one.
        cell: the cell of every row of the parts' ``Ratio``s, one part after another.
        cells: C, how many there are.
    """
    first: Any = parts[0]
    given: list[Any] = [*parts]
    found: Any
    if any(part is None for part in given):
        found = None
    elif isinstance(first, np.ndarray):
        found = np.concatenate(given)
    elif isinstance(first, Ratio):
        above, below = (
            np.concatenate([getattr(part, side) for part in given]) for side in ("numerator", "denominator")
        )
        found = Ratio(above, below).summed(cell, cells)
    elif isinstance(first, list):
        found = [merged(list(of), cell, cells) for of in zip(*given, strict=True)]
    elif isinstance(first, dict):
        keys = [key for key in first if all(key in part for part in given)]
        found = {key: merged([part[key] for part in given], cell, cells) for key in keys}
    else:
        assert is_dataclass(first) and not isinstance(first, type), type(first)
        names = [f.name for f in fields(first)]
        found = replace(first, **{n: merged([getattr(part, n) for part in given], cell, cells) for n in names})
    result: T = found
    return result

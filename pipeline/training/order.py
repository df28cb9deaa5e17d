"""The order of an epoch: which stored row fills which place of which step, as a function of seed and epoch alone.

A step takes one row for each of its G slots (G: images of an optimiser step over all workers). Slots are divided among
the workers, so the rows of a step do not depend on the number of workers, as long as G stays the same.

Where several data sets are trained together, every position (step, slot) belongs to one of them: the sets are spread as
evenly as whole numbers allow, so each step has its share of each set to within about one image, and over an epoch the
shares are exact. In every epoch the row groups of a set are put in a new random order, and the rows within each row
group too. The rows of a set, in this order, are dealt to the slots in long runs: a slot reads its row groups one after
the other, the slots of a step read from different places, and a worker holds one row group per slot (and set).

An epoch has as many steps as there are whole steps of rows; the rows that are left over are others in every epoch.
Position and cursor are numbers, so a training continues in the middle of an epoch without reading what came before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.data.data_sets import DataSet

# Positions that are looked at together when those of the slots are counted: bounds the memory of large epochs.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Run:
    """Consecutive rows of a slot that come from one row group.

    Attributes:
        slot: that takes the rows. data_set: index of their data set. shard: URI of the Parquet file. group: row group.
        copy: which of the repetitions of the row group in this epoch this is, from 0.
        rows: (n,) positions within the row group, in the order in which they are taken.
        step: of the first row.
    """

    slot: int
    data_set: int
    shard: str
    group: int
    copy: int
    rows: np.ndarray
    step: int


class EpochOrder:
    """The order of one epoch.

    Args:
        data: the data sets that are trained together.
        images_per_step: G, images of an optimiser step over all workers.
        seed: of the training.
        epoch: number of the epoch, from 0.

    Raises:
        ValueError: the data have fewer rows than one step needs.
    """

    def __init__(self, data: Sequence[DataSet], images_per_step: int, seed: int, epoch: int) -> None:
        self.data, self.images_per_step, self.seed, self.epoch = data, images_per_step, seed, epoch
        rows = [part.rows for part in data]
        self.steps = sum(rows) // images_per_step
        if self.steps == 0:
            raise ValueError(f"data has {sum(rows)} training images, wanted at least one step of {images_per_step}")
        self._used = shares(rows, self.steps * images_per_step)

    def runs(self, slots: range, first_step: int = 0) -> Iterator[Run]:
        """The runs that fill some slots from a step on, in the order in which their first rows are needed.

        A run that began before ``first_step`` is given as a whole; its step is smaller then.
        """
        runs = [run for slot in slots for k in range(len(self.data)) for run in self._runs(slot, k, first_step)]
        yield from sorted(runs, key=lambda run: (run.step, run.slot, run.data_set))

    def data_sets_of(self, slot: int) -> np.ndarray:
        """(steps,) index of the data set from which a slot takes its row, by step."""
        return self._labels(np.arange(self.steps) * self.images_per_step + slot)

    # ---- which data set a position belongs to ----

    def _labels(self, positions: np.ndarray) -> np.ndarray:
        """Data set of each position ``step * G + slot``."""
        labels = np.full(len(positions), len(self.data) - 1)
        if len(self.data) == 1:
            return labels
        undecided, place, left = np.arange(len(positions)), positions, self.steps * self.images_per_step
        for k, used in enumerate(self._used[:-1]):
            # Of `left` places, those at which the rounded line through 0 and `used` rises belong to set k; the others
            # are numbered again and divided among the remaining sets.
            before = place * used // left
            taken = (place + 1) * used // left > before
            labels[undecided[taken]] = k
            undecided, place = undecided[~taken], (place - before)[~taken]
            left -= used
        return labels

    @cached_property
    def _by_slot(self) -> np.ndarray:
        """(G + 1, sets) rows of each set that the slots before a slot take in the epoch."""
        G, total = self.images_per_step, self.steps * self.images_per_step
        counts = np.zeros((G + 1, len(self.data)), np.int64)
        if len(self.data) == 1:
            counts[:, 0] = np.arange(G + 1) * self.steps
            return counts
        for first in range(0, total, _CHUNK):
            positions = np.arange(first, min(first + _CHUNK, total))
            found = np.bincount(positions % G * len(self.data) + self._labels(positions), minlength=G * len(self.data))
            counts[1:] += found.reshape(G, len(self.data))
        return counts.cumsum(axis=0)

    # ---- which rows ----

    @cached_property
    def _groups(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per data set, the row groups of the epoch in order, as numbers, and the rows up to the end of each."""
        found = []
        for k, part in enumerate(self.data):
            sizes = np.concatenate([np.asarray(groups, np.int64) for groups in part.row_groups])
            order = np.random.default_rng([self.seed, self.epoch, k]).permutation(len(sizes) * part.repeat)
            found.append((order, np.cumsum(sizes[order % len(sizes)])))
        return found

    @cached_property
    def _places(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per data set, the shard of every row group, and its number within the shard."""
        places = []
        for part in self.data:
            counts = [len(groups) for groups in part.row_groups]
            places.append((np.repeat(np.arange(len(counts)), counts), np.concatenate([np.arange(n) for n in counts])))
        return places

    def _runs(self, slot: int, k: int, first_step: int) -> Iterator[Run]:
        """The runs of one slot that come from data set k, from the one that is open at ``first_step`` on."""
        begin, end = self._by_slot[slot : slot + 2, k]
        steps = np.flatnonzero(self.data_sets_of(slot) == k)  # the step of every row that the slot takes from this set
        assert len(steps) == end - begin
        at = int(np.searchsorted(steps, first_step))
        if at == len(steps):
            return
        order, ends = self._groups[k]
        shard_of, group_of = self._places[k]
        part = self.data[k]
        number = int(np.searchsorted(ends, begin + at, side="right"))
        while number < len(order) and (starts := int(ends[number - 1]) if number else 0) < end:
            copy, place = divmod(int(order[number]), len(shard_of))
            size = int(ends[number]) - starts
            rows = np.random.default_rng([self.seed, self.epoch, k, int(order[number])]).permutation(size)
            first, last = max(starts, begin), min(starts + size, end)
            yield Run(
                slot=slot,
                data_set=k,
                shard=part.shards[shard_of[place]],
                group=int(group_of[place]),
                copy=copy,
                rows=rows[first - starts : last - starts],
                step=int(steps[first - begin]),
            )
            number += 1


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """``total`` divided in proportion to ``sizes`` (whole numbers, sum at least ``total``), by largest remainder."""
    every = sum(sizes)
    exact = [divmod(size * total, every) for size in sizes]
    parts = [whole for whole, _ in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -exact[i][1])
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts

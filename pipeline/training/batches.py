"""From prepared Parquet to batches: one worker's share of every step, in the order of order.py.

A few threads read row groups ahead, others decode, augment and collate. With ``decode_on="cluster"`` Ray Data reads and
decodes in tasks on any node (cluster_decoding.py). The batches are the same, to the last bit.

A row that cannot be used (a damaged image, or no usable person after augmentation) is counted, and its place is taken
by the next usable row of the same row group that the slot reads. So a step has always as many images, and which ones
depends neither on what was read before nor on the number of workers.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np

from das.assign import with_targets
from das.config import DASConfig
from das.recipe import RecipeConfig
from das.sample import Batch, Sample, collate
from pipeline.data.data_sets import DataSet
from pipeline.data.record import Record
from pipeline.data.sample_columns import Made
from pipeline.data.stored_rows import read_ahead, read_rows
from pipeline.infra.prefetch import in_order
from pipeline.training.config import IngestConfig
from pipeline.training.order import EpochOrder, Run
from pipeline.training.row_transform import UNREADABLE, RowTransform


@dataclass
class OpenRun:
    """A run whose rows have been read.

    Attributes:
        run: which rows they are.
        make: makes the sample of the i-th row.
        unusable: rows that were found to be unusable, with what was made of them.
    """

    run: Run
    make: Callable[[int], Made]
    unusable: dict[int, Made] = field(default_factory=dict)

    def row(self, i: int) -> Made:
        """What is made of the i-th row."""
        made = self.unusable.get(i) or self.make(i)
        if isinstance(made[0], str):
            self.unusable[i] = made
        return made

    def substitute(self, i: int) -> list[Sample]:
        """The next usable row after the i-th, from the end on to the first; empty if there is none."""
        others = (self.row((i + k) % len(self.run.rows))[0] for k in range(1, len(self.run.rows)))
        return list(islice((made for made in others if isinstance(made, Sample)), 1))


OpenRuns = Callable[[Iterable[Run], RowTransform], Iterator[OpenRun]]
"""Reads runs, in order."""


def open_runs(runs: Iterable[Run], transform: RowTransform) -> Iterator[OpenRun]:
    """Reads runs from their shards; samples are made when they are asked for.

    Raises:
        ValueError: a shard cannot be read; names it.
    """
    for run, records in read_ahead(lambda run: (run, read_rows(run.shard, run.group, run.rows)), runs):
        yield OpenRun(run, partial(_make, records, transform, run.copy))


def _make(records: Sequence[Record], transform: RowTransform, copy: int, i: int) -> Made:
    return transform(records[i], copy)


class TrainingBatches:
    """One worker's batches.

    Args:
        data: the data sets that are trained together.
        config: sizes, and how far ahead batches are made.
        model: whose targets the batches get.
        recipe: augmentation.
        seed: of order and augmentation.
        images_per_step: images of an optimiser step, over all workers.
        rank, world: of this worker; which slots of a step are its own.
        threads: that decode and augment.
        pin: put batches into page-locked memory, from which they are copied to a GPU while it computes.
        opened: how runs are read.

    Attributes:
        left_out: people and images that were left out of the batches so far, by reason.
    """

    def __init__(
        self,
        data: Sequence[DataSet],
        config: IngestConfig,
        model: DASConfig,
        recipe: RecipeConfig,
        seed: int,
        images_per_step: int,
        rank: int = 0,
        world: int = 1,
        threads: int = 1,
        pin: bool = False,
        opened: OpenRuns = open_runs,
    ) -> None:
        assert world <= images_per_step, "every worker has a slot"
        self.data, self.config, self.model, self.recipe = data, config, model, recipe
        self.seed, self.images_per_step, self.threads, self.pin, self.opened = (
            seed,
            images_per_step,
            threads,
            pin,
            opened,
        )
        self.slots = range(images_per_step * rank // world, images_per_step * (rank + 1) // world)
        self.left_out: Counter[str] = Counter()
        self._damaged: list[str] = []

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return sum(part.rows for part in self.data) // self.images_per_step

    def __call__(self, epoch: int, first_step: int = 0) -> Iterator[list[Batch]]:
        """The parts of every step of an epoch from a step on: batches of at most ``batch_size`` images.

        Raises:
            ValueError: a shard cannot be read, more images than ``max_unreadable`` are damaged, or not one row is
                usable.
        """
        slots, size = self.slots, self.config.batch_size
        parts = [slots[i : i + size] for i in range(0, len(slots), size)]
        made = fill_gaps(self._batches(epoch, first_step, slots, parts))
        while step := list(islice(made, len(parts))):
            yield step

    def first_images(self, images: int) -> Iterator[Batch]:
        """Batches of the first images of epoch 0, the same on every worker; nothing is counted."""
        slots = range(min(images, self.images_per_step))
        parts = [slots[i : i + self.config.batch_size] for i in range(0, len(slots), self.config.batch_size)]
        counted = self.left_out.copy()
        found = 0
        for batch in self._batches(0, 0, slots, parts):
            if batch is not None and found < images:
                found += len(batch.keys)
                yield batch
            if found >= images:
                break
        self.left_out = counted

    def _batches(self, epoch: int, first_step: int, slots: range, parts: Sequence[range]) -> Iterator[Batch | None]:
        """The batches of some slots, part by part; None where not one row of a part's row groups is usable."""
        order = EpochOrder(self.data, self.images_per_step, self.seed, epoch)
        transform = RowTransform(self.model.skeleton, self.recipe, self.seed, epoch)
        runs = self.opened(order.runs(slots, first_step), transform)
        rows = _places(order, slots, parts, first_step, runs)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            for batch, left_out, damaged in in_order(pool, self._collate, rows, self.config.prefetch):
                self.left_out += left_out
                self._note_damaged(damaged)
                yield batch

    def _collate(self, rows: Sequence[tuple[OpenRun, int]]) -> tuple[Batch | None, Counter[str], list[str]]:
        """A batch of rows, what was left out, and what is wrong with damaged images. Runs in a thread."""
        samples: list[Sample] = []
        left_out: Counter[str] = Counter()
        damaged: list[str] = []
        for run, place in rows:
            made, counts = run.row(place)
            left_out += counts
            if isinstance(made, str):
                damaged += [made] * counts[UNREADABLE]
                samples += run.substitute(place)
            else:
                samples.append(made)
        if not samples:
            return None, left_out, damaged
        batch = collate(samples + [samples[i % len(samples)] for i in range(len(rows) - len(samples))])
        batch = with_targets(batch, self.model)
        return batch.pinned() if self.pin else batch, left_out, damaged

    def _note_damaged(self, damaged: Sequence[str]) -> None:
        """Names damaged images in the worker's log, and refuses to go on after too many of them."""
        for line in damaged:
            print(f"left out: {line}", file=sys.stderr)
        self._damaged += damaged
        if len(self._damaged) > self.config.max_unreadable:
            some = "; ".join(self._damaged[:3])
            raise ValueError(
                f"{len(self._damaged)} damaged images among the training rows, wanted at most "
                f"{self.config.max_unreadable} (ingest.max_unreadable): {some}"
            )


def _places(
    order: EpochOrder, slots: range, parts: Sequence[range], first_step: int, runs: Iterator[OpenRun]
) -> Iterator[list[tuple[OpenRun, int]]]:
    """For every part of every step, its rows as places in open runs; opens a run when a step first needs it."""
    labels = {slot: order.data_sets_of(slot).astype(np.uint8) for slot in slots}
    waiting: dict[tuple[int, int], deque[OpenRun]] = {}
    taken: dict[tuple[int, int], int] = {}  # rows taken from the first of the waiting runs
    for step in range(first_step, order.steps):
        for part in parts:
            rows = []
            for slot in part:
                source = (slot, int(labels[slot][step]))
                queue = waiting.setdefault(source, deque())
                if queue and taken[source] == len(queue[0].run.rows):
                    queue.popleft()
                    taken[source] = 0
                while not queue:
                    opened = next(runs)
                    mine = (opened.run.slot, opened.run.data_set)
                    waiting.setdefault(mine, deque()).append(opened)
                    # Of a run that began before the first step, some rows have been taken then.
                    before = labels[mine[0]][opened.run.step : first_step]
                    taken.setdefault(mine, int(np.count_nonzero(before == mine[1])))
                rows.append((queue[0], taken[source]))
                taken[source] += 1
            yield rows


def fill_gaps(batches: Iterable[Batch | None]) -> Iterator[Batch]:
    """As many batches as come in: each None is replaced by the batch before it, or at the beginning by the next one.

    The number must not change, because all workers must take the same number of steps: gradients are exchanged in every
    step, and the others would wait forever for a worker that skips one.

    Raises:
        ValueError: if there are only None.
    """
    last: Batch | None = None
    missing = 0
    for batch in batches:
        if batch is None and last is None:
            missing += 1
            continue
        last = batch or last
        assert last is not None
        yield from [last] * (1 + missing)
        missing = 0
    if missing:
        raise ValueError(f"not one sample in {missing} batches of training rows is usable")

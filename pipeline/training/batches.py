"""From prepared Parquet to batches: Ray Data reads and shards rows, each becomes a transformed Sample, then a Batch.

Images are decoded as late as possible. By default that happens in the loading threads of the training worker; with
`decode_on="cluster"` Ray tasks on any node do it and ship the small, augmented images instead of the JPEGs.
"""

from __future__ import annotations

import pickle
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray.data.collate_fn import ArrowBatchCollateFn

from das.recipe import RecipeConfig
from das.sample import Batch, Sample, collate
from das.skeleton import Skeleton
from das.transforms import convert_joints, train_transform
from pipeline.data.ray_rows import read_split
from pipeline.data.record import to_sample
from pipeline.data.schema import from_row
from pipeline.training.config import IngestConfig

# Draws of the augmentation before a row is replaced by another one of its batch.
_DRAWS = 10


@dataclass
class RowTransform:
    """One stored row to one augmented training sample; the same draw for the same seed, epoch, key and turn.

    A row that comes several times in an epoch, in data that is repeated, looks different each time.

    Attributes:
        skeleton: joints that the model predicts.
        recipe: augmentation and its rules of what is left out.
        seed, epoch: of the draws.
        rank: of the worker where rows are repeated, for their turns are spread over all of them; 0 otherwise, and N
            workers then make the samples of one.
        left_out: what did not become part of a sample so far, by reason; nothing is dropped in silence.
    """

    skeleton: Skeleton
    recipe: RecipeConfig
    seed: int = 0
    epoch: int = 0
    rank: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    _turns: Counter[int] = field(default_factory=Counter)

    def begin(self, epoch: int) -> None:
        """Starts an epoch: every row's first turn comes next."""
        self.epoch, self._turns = epoch, Counter()

    def __call__(self, row: Mapping[str, Any]) -> Sample | None:
        """The sample, or None (counted) when the image cannot be used; people left out are counted too."""
        key = str(row["key"])
        try:
            native, people = to_sample(from_row(row))
        except ValueError as error:
            self.left_out["unreadable rows"] += 1
            print(f"left out: {error}", file=sys.stderr)
            return None
        self.left_out.update({f"people {reason}": n for reason, n in people.items()})
        if people["invalid"] and not self.recipe.keep_images_with_invalid_people:
            self.left_out["images with an invalid person"] += 1
            return None
        sample = convert_joints(native, self.skeleton, self.recipe)
        rng = np.random.default_rng([self.seed, self.epoch, *self._turn(zlib.crc32(key.encode()))])
        reason = ""
        for _ in range(_DRAWS):
            drawn = train_transform(sample, self.recipe, rng)
            if isinstance(drawn, Sample):
                return drawn
            reason = drawn.reason
        self.left_out[f"images {reason}"] += 1
        return None

    def _turn(self, identity: int) -> tuple[int, ...]:
        turn = self._turns[identity]
        self._turns[identity] += 1
        return (identity, turn, self.rank) if turn or self.rank else (identity,)


def _batch(samples: Sequence[Sample | None]) -> Batch | None:
    """Collates; unusable places are filled with the batch's other samples, and None tells that there are none."""
    usable = [s for s in samples if s is not None]
    return collate([s if s is not None else usable[i % len(usable)] for i, s in enumerate(samples)]) if usable else None


def fill_gaps(batches: Iterable[Batch | None]) -> Iterator[Batch]:
    """As many batches as come in: each None is replaced by a neighbour, the next one at the beginning.

    Every worker must take every step of an epoch, or the others wait for it for ever.

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


class CollateRows(ArrowBatchCollateFn):
    """Decodes, augments and packs stored rows in the loading threads of a training worker."""

    def __init__(self, transform: RowTransform) -> None:
        self.transform = transform

    def __call__(self, batch: Any) -> Batch | None:
        """A pyarrow Table of rows to a Batch, or None if none of them is usable."""
        return _batch([self.transform(row) for row in batch.to_pylist()])


class TransformRows:
    """For `map_batches`: the same work in Ray tasks; samples travel pickled between our own processes.

    Tasks do not know the epoch, so every draw is fresh and a run cannot be repeated bit for bit.
    """

    def __init__(self, transform: RowTransform) -> None:
        self.transform = transform

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Columns of rows to the columns key and sample."""
        self.transform.seed = int(np.random.SeedSequence().generate_state(1)[0])
        made = []
        for i in range(len(batch["key"])):
            self.transform.left_out = Counter()
            sample = self.transform({name: column[i] for name, column in batch.items()})
            made.append(pickle.dumps((sample, self.transform.left_out)))
        return {"key": batch["key"], "sample": np.array(made, dtype=object)}


class CollateSamples(ArrowBatchCollateFn):
    """Packs samples that `TransformRows` made elsewhere, and adds what it left out to ``left_out``."""

    def __init__(self, left_out: Counter[str]) -> None:
        self.left_out = left_out

    def __call__(self, batch: Any) -> Batch | None:
        """A pyarrow Table with the columns key and sample to a Batch, or None if no sample is usable."""
        samples = []
        for row in batch.to_pylist():
            sample, left_out = pickle.loads(row["sample"])
            samples.append(sample)
            self.left_out.update(left_out)
        return _batch(samples)


class TrainingBatches:
    """One worker's batches, epoch by epoch.

    Attributes:
        transform: shared by all epochs; its `left_out` counts across them.
    """

    def __init__(
        self, shard: Any, config: IngestConfig, skeleton: Skeleton, recipe: RecipeConfig, seed: int, rank: int = 0
    ) -> None:
        self.shard, self.config = shard, config
        self.transform = RowTransform(skeleton, recipe, seed, rank=rank)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Batches of one pass over this worker's rows, all of the same size.

        Raises:
            ValueError: if not one of its rows is usable.
        """
        self.transform.begin(epoch)
        on_cluster = self.config.decode_on == "cluster"
        # Ray wants at least a batch in the buffer; 0 rows mean none.
        buffer = max(self.config.shuffle_rows, self.config.batch_size) if self.config.shuffle_rows else None
        yield from fill_gaps(
            self.shard.iter_torch_batches(
                batch_size=self.config.batch_size,
                prefetch_batches=self.config.prefetch,
                collate_fn=CollateSamples(self.transform.left_out) if on_cluster else CollateRows(self.transform),
                local_shuffle_buffer_size=buffer,
                local_shuffle_seed=self.transform.seed + epoch,
                drop_last=True,
            )
        )


def training_rows(
    folders: Sequence[str],
    repeat: Sequence[int],
    config: IngestConfig,
    skeleton: Skeleton,
    recipe: RecipeConfig,
    seed: int,
) -> Any:
    """The Ray Dataset that training reads: stored rows, or samples made by tasks in the cluster."""
    rows = read_split(folders, "train", repeat, seed)
    if config.decode_on == "cluster":
        transform = TransformRows(RowTransform(skeleton, recipe, seed))
        rows = rows.map_batches(transform, batch_size=config.batch_size, batch_format="numpy")
    return rows

"""From prepared Parquet to batches: Ray Data reads and shards rows, each becomes an augmented Sample, then a Batch.

By default the loading threads of a training worker decode and augment the images. With `decode_on="cluster"` Ray tasks
on any node do that, and the augmented images travel to the worker instead of the JPEGs.
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
from pipeline.data.samples import to_sample
from pipeline.data.schema import from_row
from pipeline.training.config import IngestConfig

# Tries of the augmentation, some of which leave no usable person, before a row is replaced by another of its batch.
_DRAWS = 10


@dataclass
class RowTransform:
    """One stored row to one augmented training sample.

    The augmentation depends on seed, epoch, key, and on how many times the row has come before in this epoch: in data
    that is repeated, the copies of a row differ.

    Attributes:
        skeleton: joints that the model predicts.
        recipe: augmentation, and which people and images are left out.
        seed: of the augmentation.
        epoch: that is being read.
        rank: of the worker if rows are repeated: each worker counts only its own copies of a row, and the rank makes
            them differ between workers. 0 otherwise, so that N workers make the samples of one.
        left_out: people and images that were left out so far, by reason.
    """

    skeleton: Skeleton
    recipe: RecipeConfig
    seed: int = 0
    epoch: int = 0
    rank: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    _repetitions: Counter[int] = field(default_factory=Counter)

    def begin(self, epoch: int) -> None:
        """Starts an epoch; the repetitions of all rows are counted from 0 again."""
        self.epoch, self._repetitions = epoch, Counter()

    def __call__(self, row: Mapping[str, Any]) -> Sample | None:
        """The sample, or None if the image cannot be used; people and images left out are counted by reason."""
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
        rng = np.random.default_rng([self.seed, self.epoch, *self._seeds(zlib.crc32(key.encode()))])
        reason = ""
        for _ in range(_DRAWS):
            drawn = train_transform(sample, self.recipe, rng)
            if isinstance(drawn, Sample):
                return drawn
            reason = drawn.reason
        self.left_out[f"images {reason}"] += 1
        return None

    def _seeds(self, row: int) -> tuple[int, ...]:
        """Seeds of a row's next draw; ``row`` is the checksum of its key."""
        repetition = self._repetitions[row]
        self._repetitions[row] += 1
        # The first draw on rank 0 is seeded by the key alone, so it is the same with and without repetition.
        return (row, repetition, self.rank) if repetition or self.rank else (row,)


def _batch(samples: Sequence[Sample | None]) -> Batch | None:
    """Collates samples; each None is replaced by a usable sample of the batch. None if there is no usable one."""
    usable = [s for s in samples if s is not None]
    return collate([s if s is not None else usable[i % len(usable)] for i, s in enumerate(samples)]) if usable else None


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


class CollateRows(ArrowBatchCollateFn):
    """Decodes, augments and collates stored rows in the loading threads of a training worker."""

    def __init__(self, transform: RowTransform) -> None:
        self.transform = transform

    def __call__(self, batch: Any) -> Batch | None:
        """A pyarrow Table of rows to a Batch, or None if none of them is usable."""
        return _batch([self.transform(row) for row in batch.to_pylist()])


class TransformRows:
    """Decodes and augments stored rows in Ray tasks, for `map_batches`; the samples are pickled.

    A task has no access to the epoch, so every call takes a random seed: such a run cannot be repeated exactly.
    """

    def __init__(self, transform: RowTransform) -> None:
        self.transform = transform

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Columns of rows to the columns key and sample (pickled: the Sample or None, and what was left out)."""
        self.transform.seed = int(np.random.SeedSequence().generate_state(1)[0])
        made = []
        for i in range(len(batch["key"])):
            self.transform.left_out = Counter()
            sample = self.transform({name: column[i] for name, column in batch.items()})
            made.append(pickle.dumps((sample, self.transform.left_out)))
        return {"key": batch["key"], "sample": np.array(made, dtype=object)}


class CollateSamples(ArrowBatchCollateFn):
    """Collates samples that `TransformRows` made, and adds what it left out to ``left_out``."""

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
        transform: of all epochs; its `left_out` adds up over them.
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
        # Ray refuses a buffer that is smaller than a batch, and None means no shuffling.
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
    """The Ray Dataset that training reads: stored rows, or with `decode_on="cluster"` samples that Ray tasks make.

    Args:
        folders: prepared data.
        repeat: how often each folder's rows appear in an epoch; empty means once.
        config: where images are decoded, and rows a task.
        skeleton: joints that the model predicts.
        recipe: augmentation.
        seed: of the order of the files.
    """
    rows = read_split(folders, "train", repeat, seed)
    if config.decode_on == "cluster":
        transform = TransformRows(RowTransform(skeleton, recipe, seed))
        rows = rows.map_batches(transform, batch_size=config.batch_size, batch_format="numpy")
    return rows

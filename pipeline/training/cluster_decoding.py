"""Rows that are read, decoded and augmented in Ray tasks on any node, for workers that have too few CPUs.

Ray Data carries out the plan of order.py: every row group that a worker needs is one read task, and its output comes
back in the order of the plan. What travels to the worker is the augmented image at the network's size, uncompressed:
1.8 MB for 832 x 512 pixels, where the stored JPEG has about 0.3 MB. So it pays only where decoding limits the training
and the network has room. Encoding again would cost the worker the decoding that this mode takes from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from pipeline.data.ray_rows import quiet_context
from pipeline.data.sample_columns import from_columns, samples_table
from pipeline.data.stored_rows import read_rows
from pipeline.training.batches import OpenRun
from pipeline.training.order import Run
from pipeline.training.row_transform import RowTransform


def open_runs_on_cluster(runs: Iterable[Run], transform: RowTransform) -> Iterator[OpenRun]:
    """As ``open_runs``, with samples that are made in Ray tasks.

    Raises:
        ValueError: a shard cannot be read; names it.
    """
    planned = list(runs)
    quiet_context().execution_options.preserve_order = True
    samples = ray.data.read_datasource(_Samples(planned, transform), override_num_blocks=len(planned))
    rows = (row for batch in _batches(samples) for row in batch.to_pylist())
    for run in planned:
        made = [from_columns(next(rows), transform.skeleton) for _ in run.rows]
        yield OpenRun(run, made.__getitem__)


def _batches(samples: Any) -> Iterator[Any]:
    try:
        yield from samples.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=4)
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, ValueError):
            raise
        raise ValueError(str(error.cause).splitlines()[0]) from error


class _Samples(Datasource):
    """One read task for every run."""

    def __init__(self, runs: Sequence[Run], transform: RowTransform) -> None:
        super().__init__()
        self.runs, self.transform = runs, transform

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known."""
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """The tasks, in order; ``parallelism`` does not change them."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(lambda run=run, make=self.transform: [_made(run, make)], unknown) for run in self.runs]


def _made(run: Run, transform: RowTransform) -> Any:
    """The samples of a run as a table. Runs in a Ray task."""
    return samples_table(transform(record, run.copy) for record in read_rows(run.shard, run.group, run.rows))

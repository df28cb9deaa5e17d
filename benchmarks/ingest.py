"""Images per second of a training's batches, against plain threads and against torch's DataLoader.

    python benchmarks/ingest.py                        # small and HD images, 5 rounds, about 4 minutes
    python benchmarks/ingest.py --rounds 2 --images 64 # quicker

Three ways make the same batches of the same prepared rows, with the same functions for a row and a batch:

- limit: two threads that take batches from a list, without any order or plan;
- loader: torch's DataLoader with two worker processes, each reading row groups of its own;
- ours: TrainingBatches with two threads, in the order of the training.

Rounds of the three alternate within one run, and the ratios are those of the medians. Small images are 320x180 for a
network input of 256x144, HD images 1920x1080 for 832x512. Printed too: the first batch of an epoch, and the largest
memory of the processes that read. Ray's object store is not used, so nothing is spilled.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from das.assign import with_targets
from das.camera import project
from das.config import release_panoptic
from das.recipe import RecipeConfig, ours, small_recipe
from das.sample import Batch, Sample, collate
from das.skeleton import PANOPTIC15
from das.transforms import tight_boxes
from pipeline.data.data_sets import DataSet
from pipeline.data.record import Record, key_of
from pipeline.data.shards import write_records
from pipeline.data.stored_rows import read_rows
from pipeline.training.batches import TrainingBatches
from pipeline.training.config import IngestConfig
from pipeline.training.row_transform import RowTransform

BATCH = 8
THREADS = 2
GROUP = 16  # rows of a row group
MODEL = release_panoptic()


# ---- rows ----


def picture(width: int, height: int, seed: int) -> bytes:
    """A JPEG of smooth shapes and a little noise; about 300 KB in HD, the size of Panoptic's images."""
    rng = np.random.default_rng(seed)
    shapes = cv2.resize(rng.integers(0, 255, (27, 48, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.clip(shapes + rng.normal(0, 5, (height, width, 1)), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def row(image: bytes, width: int, height: int, frame: int) -> Record:
    """Three people of Panoptic's joint set 3 to 5 m before the camera."""
    rng = np.random.default_rng(frame)
    K = np.array([[0.73 * width, 0, width / 2], [0, 0.73 * width, height / 2], [0, 0, 1]])
    centers = np.stack([rng.uniform(-900, 900, 3), rng.uniform(-300, 300, 3), rng.uniform(3000, 5000, 3)], axis=1)
    joints = (centers[:, None] + rng.normal(0, 250, (3, 15, 3))).astype(np.float32)
    uv = project(joints.astype(np.float64), K, np.zeros(5)).astype(np.float32)
    return Record(
        key=key_of("synthetic", "bench", "00", frame), source="synthetic", sequence="bench", camera="00", frame=frame,
        split="train", activity="", skeleton=PANOPTIC15.name, image=image,
        image_sha256=hashlib.sha256(image).hexdigest(), height=height, width=width, K=K, distortion=np.zeros(5),
        R=None, t_mm=None, person_id=np.arange(3), joints_uv=uv, joints_cam=joints, joints_cam_univ=None,
        confidence=None, state=np.full((3, 15), 2, np.uint8),
        bbox=tight_boxes(uv.astype(np.float64), np.ones((3, 15), bool)).astype(np.float32),
        ignore=np.zeros(3, bool), valid=np.ones(3, bool),
    )  # fmt: skip


def write_rows(folder: Path, width: int, height: int, images: int) -> DataSet:
    """Shards of at most 256 rows."""
    pictures = [picture(width, height, seed) for seed in range(16)]
    shards, groups = [], []
    for first in range(0, images, 256):
        last = min(first + 256, images)
        shard = folder / f"{width}-{first}.parquet"
        rows = (row(pictures[i % 16], width, height, i) for i in range(first, last))
        write_records(shard, rows, rows_per_group=GROUP, validated=True)
        shards.append(str(shard))
        groups.append([min(GROUP, last - i) for i in range(first, last, GROUP)])
    return DataSet(shards, groups)


# ---- the three ways ----


def read_group(data: DataSet, shard: int, group: int) -> list[Record]:
    """The rows of one row group."""
    return read_rows(data.shards[shard], group, range(data.row_groups[shard][group]))


def make(records: list[Record], transform: RowTransform) -> Batch:
    """A batch of rows."""
    usable = [made for record in records if isinstance(made := transform(record)[0], Sample)]
    return with_targets(collate(usable), MODEL)


def places(data: DataSet) -> list[tuple[int, int]]:
    """(shard, row group) of all row groups."""
    return [(s, g) for s, groups in enumerate(data.row_groups) for g in range(len(groups))]


def limit(data: DataSet, transform: RowTransform) -> Iterator[Batch]:
    """Two threads, each making all batches of a row group."""

    def batches(place: tuple[int, int]) -> list[Batch]:
        records = read_group(data, *place)
        return [make(records[i : i + BATCH], transform) for i in range(0, len(records), BATCH)]

    with ThreadPoolExecutor(THREADS) as pool:
        for made in pool.map(batches, places(data)):
            yield from made


class Rows(IterableDataset[Batch]):
    """The batches of every n-th row group, for worker n of a DataLoader."""

    def __init__(self, data: DataSet, transform: RowTransform) -> None:
        self.data, self.transform = data, transform

    def __iter__(self) -> Iterator[Batch]:
        """Batches, in stored order."""
        cv2.setNumThreads(0)
        worker = get_worker_info()
        assert worker is not None
        for place in places(self.data)[worker.id :: worker.num_workers]:
            records = read_group(self.data, *place)
            for i in range(0, len(records), BATCH):
                yield make(records[i : i + BATCH], self.transform)


def loader(data: DataSet, transform: RowTransform) -> Iterator[Batch]:
    """Torch's DataLoader with two processes."""
    yield from DataLoader(Rows(data, transform), batch_size=None, num_workers=THREADS, prefetch_factor=4)


def ours_way(data: DataSet, transform: RowTransform) -> Iterator[Batch]:
    """The batches of a training of one worker."""
    config = IngestConfig(batch_size=BATCH)
    batches = TrainingBatches([data], config, MODEL, transform.recipe, 0, BATCH, threads=THREADS)
    for parts in batches(0):
        yield from parts


WAYS: dict[str, Callable[[DataSet, RowTransform], Iterator[Batch]]] = {
    "limit": limit,
    "loader": loader,
    "ours": ours_way,
}


# ---- measuring ----


def timed(way: Callable[[DataSet, RowTransform], Iterator[Batch]], *arguments: Any) -> tuple[float, float, float]:
    """Seconds to the first batch, images per second from then on, and memory of this process and its children, MB."""
    began = time.perf_counter()
    first, images, memory = 0.0, 0, 0.0
    for batch in way(*arguments):
        if not first:
            first = time.perf_counter() - began
            process = psutil.Process()
            memory = sum(p.memory_info().rss for p in (process, *process.children(recursive=True))) / 1e6
        else:
            images += len(batch.keys)
    return first, images / (time.perf_counter() - began - first), memory


def compare(name: str, data: DataSet, recipe: RecipeConfig, rounds: int) -> None:
    """Prints a line per way: images per second, ratios, first batch and memory."""
    transform = RowTransform(PANOPTIC15, recipe)
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, run in WAYS.items():
            found[way].append(timed(run, data, transform))
    rate = {way: statistics.median(r for _, r, _ in rows) for way, rows in found.items()}
    for way, rows in found.items():
        first, memory = (statistics.median(r[i] for r in rows) for i in (0, 2))
        print(
            f"{name:6} {way:7} {rate[way]:7.1f} images/s  {rate[way] / rate['limit']:5.2f} of the limit  "
            f"{rate[way] / rate['loader']:5.2f} of the loader  first batch {first:5.2f} s  {memory:6.0f} MB"
        )


def main() -> None:
    """Writes the rows to a temporary folder and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=512, help="HD images; of small ones there are four times as many")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        small = write_rows(Path(folder), 320, 180, 4 * options.images)
        compare("small", small, small_recipe(256, 144), options.rounds)
        large = write_rows(Path(folder), 1920, 1080, options.images)
        compare("HD", large, ours(), options.rounds)


if __name__ == "__main__":
    main()

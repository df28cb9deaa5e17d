"""A training on 10 million images with 64 workers, simulated: everything is real but the images.

    python benchmarks/scale.py                      # 14,400 shards; about a minute and 200 MB of disk
    python benchmarks/scale.py --shards 144

It writes the manifest and the digest that `das prepare` would write for this many rows, and prints

- driver: seconds and peak memory from the command to the job that workers get, and the job's size;
- checkpoint: size of what it holds of the training rows;
- worker: seconds and peak memory until it knows its rows of an epoch, row groups that it reads then, and how many of
  them it has open;
- shuffle: in 1,000 neighbouring images of an epoch with 4 workers, the clips (sequence and camera) that are met, beside
  the number for images drawn one by one; and the share of the smaller of two data sets over 250 steps.

The rows lie in the shards as `das prepare` puts them: runs of neighbouring frames, shuffled over all clips, and rows
shuffled within each shard. There are no Ray tasks in an epoch: workers read for themselves.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from ingest import picture, row

from pipeline.data.data_sets import DataSet
from pipeline.data.digest import write_digest
from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.manifest import Manifest, SplitInfo
from pipeline.data.prepare.plan import RUN
from pipeline.data.schema import VERSION
from pipeline.training.config import IngestConfig, TrainConfig
from pipeline.training.job import TrainJob, training_job
from pipeline.training.order import EpochOrder

GROUPS, ROWS = 50, 14  # row groups of a shard of HD images, and rows of each
CLIPS = 520  # sequences times cameras of CMU Panoptic's training data
WORKERS, BATCH = 64, 8


def prepare(folder: Path, shards: int) -> None:
    """Writes manifest and digest of a data set of this many shards."""
    statistics = JointStatistics([row(picture(64, 36, i), 1920, 1080, i) for i in range(9)]).to_json()
    splits = {}
    for split, count in (("train", shards), ("val", 50)):
        rows = count * GROUPS * ROWS
        for found in statistics.values():
            found |= {"images": rows, "images_3d": rows}
        names = tuple(f"{split}/shard-{i:05d}-{i:012x}.parquet" for i in range(count))
        digest = "train-digest.parquet" if split == "train" else ""
        groups = tuple((ROWS,) * GROUPS for _ in range(count))
        splits[split] = SplitInfo(
            rows, rows, 0, 0, 0, {}, {}, names, row_groups=groups, statistics=json.loads(json.dumps(statistics)),
            digest=digest,
        )  # fmt: skip
    rng = np.random.default_rng(0)
    write_digest(folder / "train-digest.parquet", [rng.integers(0, 1 << 56, (shards * GROUPS * ROWS, 2))])
    manifest = Manifest(VERSION, 4, "0", "synthetic", "terms", ("panoptic15",), "p@0", "f" * 64, "0" * 64, splits)
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest)))


def job_of(folder: Path) -> TrainJob:
    """The job of a training of 64 workers."""
    return training_job(TrainConfig(data=(str(folder),), workers=WORKERS, ingest=IngestConfig(batch_size=BATCH)))


def driver(folder: Path) -> str:
    """What the driver does before Ray starts."""
    return f"{len(pickle.dumps(job_of(folder))) / 1e6:.1f} MB pickled to every worker"


def worker(folder: Path) -> str:
    """What a worker does before it reads its first row group."""
    job: TrainJob = pickle.loads((folder / "job.pickle").read_bytes())
    order = EpochOrder(job.train, job.config.images_per_step, 0, epoch=3)
    own = range(BATCH)
    runs = list(order.runs(own))
    rows = sum(len(run.rows) for run in runs)
    return f"{len(runs)} reads of row groups for {rows} rows an epoch, {len(own)} row groups open"


def measured(what: Callable[[Path], str], folder: Path) -> None:
    """Runs one of the two above in a process of its own and prints what it took."""
    subprocess.run([sys.executable, __file__, "--inside", what.__name__, "--folder", str(folder)], check=True)


def inside(what: Callable[[Path], str], folder: Path) -> None:
    """The body of that process; importing is over."""
    began = time.perf_counter()
    said = what(folder)
    seconds = time.perf_counter() - began
    # Not getrusage: its maximum begins with that of the parent's process.
    (peak,) = (int(line.split()[1]) / 1e3 for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(f"{what.__name__:10} {seconds:5.1f} s, {peak:.0f} MB at most; {said}")


# ---- shuffle ----


def clips_of(data: DataSet, seed: int) -> np.ndarray:
    """(shards, rows) the clip of every row, as `das prepare` shuffles runs of training rows."""
    rng = np.random.default_rng(seed)
    per_shard = GROUPS * ROWS
    runs = rng.integers(0, CLIPS, (len(data.shards), -(-per_shard // RUN)))
    return rng.permuted(np.repeat(runs, RUN, axis=1)[:, :per_shard], axis=1)


def shuffle(shards: int) -> None:
    """Prints what a training of four workers meets."""
    large = DataSet([f"{i}" for i in range(shards)], [(ROWS,) * GROUPS] * shards)
    small = DataSet([f"s{i}" for i in range(max(1, shards // 10))], [(ROWS,) * GROUPS] * max(1, shards // 10), 3)
    order = EpochOrder([large, small], 4 * BATCH, seed=0, epoch=0)
    steps, clips = 250, clips_of(large, seed=1)
    met, shares = [], np.zeros((steps, 2), np.int64)
    for slot in range(4 * BATCH):
        labels = order.data_sets_of(slot)[:steps]
        np.add.at(shares, (np.arange(steps), labels), 1)
        rows = [
            clips[int(run.shard), run.group * ROWS + int(r)]
            for run in order.runs(range(slot, slot + 1))
            if run.data_set == 0 and run.step < steps
            for r in run.rows
        ]
        met.append(rows[: int((labels == 0).sum())])
    every = np.concatenate([np.array(rows[i : i + 1]) for i in range(steps) for rows in met])
    found = [len(set(every[i : i + 1000].tolist())) for i in range(0, len(every) - 1000, 500)]
    drawn = CLIPS * (1 - (1 - 1 / CLIPS) ** 1000)
    part = shares[:, 1] / shares.sum(axis=1)
    window = np.convolve(shares[:, 1], np.ones(25), "valid") / np.convolve(shares.sum(axis=1), np.ones(25), "valid")
    print(
        f"shuffle    {np.mean(found):.0f} clips in 1,000 images (drawn one by one: {drawn:.0f}); share of the smaller "
        f"set {part.min():.3f} to {part.max():.3f} in single steps, {window.min():.4f} to {window.max():.4f} over 25"
    )


def main() -> None:
    """Writes the data and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=14_400)
    parser.add_argument("--inside", choices=("driver", "worker"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return inside({"driver": driver, "worker": worker}[options.inside], options.folder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.shards)
        rows, size = options.shards * GROUPS * ROWS, (folder / "train-digest.parquet").stat().st_size / 1e6
        print(
            f"{rows} rows in {options.shards} shards, manifest {(folder / 'manifest.json').stat().st_size / 1e6:.1f} MB"
        )
        measured(driver, folder)
        (folder / "job.pickle").write_bytes(pickle.dumps(job_of(folder)))
        measured(worker, folder)
        print(f"checkpoint {size:.1f} MB beside the weights ({8 * size * 1e6 / rows:.0f} bits an image)")
    return shuffle(min(options.shards, 2000))


if __name__ == "__main__":
    main()

"""Start-up of a training on 10 million rows, by a simulated manifest: memory does not grow with the rows."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from das.skeleton import COCO19
from pipeline.data.digest import write_digest
from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.manifest import Manifest, SplitInfo
from pipeline.data.schema import VERSION
from pipeline.infra.columns import write_texts
from tests.pipeline.data.records import record

PROJECT = Path(__file__).resolve().parents[3]
SHARDS, GROUPS, ROWS = 14_400, 70, 10  # 10.08 million training rows
VAL = 50_000

START = """
import sys, time
from pipeline.training.config import IngestConfig, TrainConfig
from pipeline.training.job import training_job
began = time.monotonic()
job = training_job(TrainConfig(data=(sys.argv[1],), workers=64, ingest=IngestConfig(batch_size=16)))
seconds = time.monotonic() - began
# Not getrusage: its maximum begins with that of the parent's process.
(peak,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(job.train[0].rows, sum(len(part.rows) for part in job.val_rows), peak // 1024, round(seconds, 1))
"""


def split_info(images: int, shards: int, split: str, digest: str = "") -> SplitInfo:
    """A split of equal shards."""
    rows = tuple((ROWS,) * (images // shards // ROWS) for _ in range(shards))
    statistics = JointStatistics([record(COCO19, people=4, seed=seed) for seed in range(9)]).to_json()
    statistics["coco19"] |= {"images": images, "images_3d": images}
    names = tuple(f"{split}/shard-{i:05d}-{i:012x}.parquet" for i in range(shards))
    return SplitInfo(images, images, 0, 0, 0, {}, {}, names, row_groups=rows, statistics=statistics, digest=digest)


def test_a_training_on_10_million_rows_starts_in_less_than_500_mb(tmp_path):
    splits = {
        "train": split_info(SHARDS * GROUPS * ROWS, SHARDS, "train", "train-digest.parquet"),
        "val": split_info(VAL, 50, "val"),
    }
    manifest = Manifest(VERSION, 4, "0", "panoptic", "terms", ("coco19",), "p@0", "f" * 64, "0" * 64, splits)
    (tmp_path / "manifest.json").write_text(json.dumps(asdict(manifest)))
    write_digest(tmp_path / "train-digest.parquet", [])
    rows = (("val", f"panoptic/160224_mafia2/00_16/{i:08d}", "0" * 64) for i in range(VAL))
    write_texts(tmp_path / "index.parquet", ("split", "key", "image_sha256"), rows)
    done = subprocess.run(
        [sys.executable, "-c", START, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    train_rows, val_rows, peak_mb, _ = done.stdout.split()
    assert (int(train_rows), int(val_rows)) == (SHARDS * GROUPS * ROWS, 511) and done.stderr == ""
    assert int(peak_mb) < 500, done.stdout

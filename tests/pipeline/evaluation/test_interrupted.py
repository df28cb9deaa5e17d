"""An evaluation of 5,000 images, some of them damaged, whose driver is killed twice, and its workers as well."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from das.recipe import InputSize
from pipeline.data.record import Record, key_of
from pipeline.data.shards import write_records
from pipeline.evaluation.predictions_file import PredictionSet
from pipeline.infra.columns import read_columns
from pipeline.infra.files import STAGED, write_json
from tests.jobs.own_cluster import PATIENCE, PROJECT, wait_for
from tests.pipeline.data.original_layouts import jpeg
from tests.pipeline.evaluation.evaluation_cases import manifest_of, read, scene, write_checkpoint

SHARDS, ROWS = 20, 250
SCALE = 0.3  # of the pictures that ``scene`` makes: 96 x 54 pixels
BAD = {(0, 0): "cut", (0, 249): "cut", (3, 17): "changed", (7, 100): "cut", (7, 101): "cut", (19, 249): "size"}
"""Kind of damage by shard and row."""
REASONS = {"cut": "cut short", "changed": "SHA-256", "size": "97x54"}
MARK = "DAS_TEST_OF"
"""Variable by which processes of this test's cluster are known."""


def small(record: Record, seed: int) -> Record:
    image = jpeg(54, 96, seed)
    return replace(
        record,
        image=image,
        image_sha256=hash_of(image),
        height=54,
        width=96,
        K=record.K * [[SCALE], [SCALE], [1]],
        joints_uv=record.joints_uv * SCALE,
        bbox=record.bbox * SCALE,
    )


def hash_of(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def damaged(record: Record, kind: str) -> Record:
    if kind == "size":
        return replace(record, width=97)
    image = record.image[:-40] if kind == "cut" else record.image[:300] + b"\0" + record.image[301:]
    return replace(record, image=image, image_sha256=hash_of(image) if kind == "cut" else record.image_sha256)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A prepared folder; a few pictures stand in it again and again, under keys of their own."""
    folder = tmp_path_factory.mktemp("many") / "prepared"
    few = [small(record, seed) for seed, record in enumerate(scene(frames=8))]
    shards, all_records = [], []
    for shard in range(SHARDS):
        records = []
        for row in range(ROWS):
            frame, like = shard * ROWS + row, few[row % len(few)]
            key = key_of(like.source, like.sequence, like.camera, frame)
            record = replace(like, key=key, frame=frame)
            records.append(damaged(record, BAD[shard, row]) if (shard, row) in BAD else record)
        shards.append(f"test/shard-{shard:05d}.parquet")
        write_records(folder / shards[-1], records, rows_per_group=32, validated=True)
        all_records += records
    write_json(folder / "manifest.json", asdict(manifest_of(all_records, "test", shards)))
    return folder


class Evaluation:
    """One evaluation on a cluster of this test's, by drivers that may be killed."""

    def __init__(self, folder: Path, prepared: Path, cluster: Cluster) -> None:
        self.folder, self.log, self.cluster = folder, folder / "log", cluster
        self.out = folder / "runs" / "evaluations" / "many"
        write_checkpoint(folder / "model", test_size=InputSize(96, 54))
        self.command = [sys.executable, str(PROJECT / "jobs" / "evaluate.py"), "--model", str(folder / "model")]
        self.command += ["--data", str(prepared), "--name", "many", "--cluster.storage", str(folder / "runs")]
        self.command += ["--cluster.shared-storage", "--cpus-per-worker", "2"]
        self.command += ["--runtime-images", "0", "--overlays", "2", "--worst", "0", "--batch-size", "32"]

    def let_grow(self) -> None:
        """From now on drivers find an autoscaler's file, as `ray up` writes it, with two more nodes of two CPUs."""
        kinds = {"head": {}, "more": {"resources": {"CPU": 2}}}
        config = {"max_workers": 2, "head_node_type": "head", "available_node_types": kinds}
        (self.folder / "ray_bootstrap_config.yaml").write_text(json.dumps(config))  # JSON is YAML

    def drive(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            environment = {k: v for k, v in os.environ.items() if k not in ("DAS_STORAGE", "MLFLOW_TRACKING_URI")}
            environment |= {"RAY_ADDRESS": self.cluster.address, "HOME": str(self.folder)}
            return subprocess.Popen(self.command, cwd=self.folder, env=environment, stdout=log, stderr=log)

    def finished(self) -> dict[str, tuple[int, int]]:
        """(inode, time of change) of the finished parts, by name."""
        files = [path for path in self.out.glob("parts-*/*") if not path.name.startswith(STAGED)]
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}

    def kill(self, driver: subprocess.Popen[bytes]) -> dict[str, tuple[int, int]]:
        """Kills a driver; returns what it has finished."""
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert not (self.out / "report.json").exists()
        return self.finished()

    def until(self, driver: subprocess.Popen[bytes], parts: int) -> None:
        """Waits until this many parts are finished."""

        def there() -> bool:
            assert driver.poll() is None, self.log.read_text()
            return len(self.finished()) >= parts

        wait_for(there, f"{parts} parts")

    def workers(self) -> list[int]:
        """Ids of the processes of this test's cluster that predict."""
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                mine = f"{MARK}={os.getpid()}\0" in (file.parent / "environ").read_text()
                if mine and b"PartPredictor" in file.read_bytes():
                    found.append(int(file.parent.name))
        return found

    def kill_workers(self, count: int) -> None:
        """Kills all processes that predict, as soon as there are so many."""
        wait_for(lambda: len(self.workers()) == count, f"{count} workers")
        for process in self.workers():
            os.kill(process, signal.SIGKILL)


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv(MARK, str(os.getpid()))
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "object_store_memory": 100 << 20})
    yield found
    found.shutdown()


def test_killed_processes_and_bad_images_leave_one_row_or_one_quarantine_entry_for_every_key(
    prepared, cluster, tmp_path
):
    evaluation = Evaluation(tmp_path, prepared, cluster)
    driver = evaluation.drive()
    evaluation.until(driver, 6)
    evaluation.kill_workers(1)  # on a single node the driver begins again, on two Ray replaces them
    evaluation.until(driver, 12)
    before = evaluation.kill(driver)
    evaluation.let_grow()
    driver = evaluation.drive()
    evaluation.until(driver, 18)
    assert len(evaluation.workers()) == 1
    cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
    wait_for(lambda: len(evaluation.workers()) == 2, "a worker on the new node")
    evaluation.until(driver, len(evaluation.finished()) + 4)
    now = evaluation.kill(driver)
    assert before.items() <= now.items(), "finished parts are not predicted again"
    driver = evaluation.drive()
    evaluation.until(driver, len(now) + 6)
    evaluation.kill_workers(2)
    assert driver.wait(PATIENCE) == 1, evaluation.log.read_text()

    predictions = PredictionSet.load(evaluation.out / "predictions.parquet")
    keys = [key for shard in sorted((prepared / "test").iterdir()) for key in read_columns(shard, ["key"])["key"]]
    bad = {keys[shard * ROWS + row]: kind for (shard, row), kind in BAD.items()}
    assert len({*keys}) == SHARDS * ROWS == 5000
    assert predictions.keys == tuple(key for key in keys if key not in bad), "in the order of the data"
    assert predictions.quarantine.keys() == bad.keys()
    for key, kind in bad.items():
        assert REASONS[kind] in predictions.quarantine[key]

    said = evaluation.log.read_text()
    assert re.search(rf"incomplete: {len(bad)} images could not be predicted .* {re.escape(keys[0])}: ", said), said
    assert "Traceback" not in said, said
    assert read(evaluation.out / "report.json")["quarantine"] == dict(predictions.quarantine)
    assert not (evaluation.out / "scores.json").exists(), "promotion compares models on the same images"
    assert not [*evaluation.out.glob("parts-*")]

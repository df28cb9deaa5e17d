"""A folder in which printed commands are run as they are printed, and the servers and the cluster that they reach."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.documented import program
from tests.documented.commands import PROJECT, Block
from tests.jobs.own_cluster import PATIENCE, Cluster, wait_for
from tests.servers import MlflowServer, S3Server, s3_server

_PROJECT_FILES = ("das", "pipeline", "jobs", "docs", "benchmarks", "Makefile", "cluster.yaml", "requirements.lock",
                  "pyproject.toml", ".gitignore", ".rayignore", "kuberay.yaml")  # fmt: skip
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Services:
    """What the pages call the cluster, the object storage and the MLflow server."""

    cluster: Cluster
    s3: S3Server
    mlflow: MlflowServer


@contextmanager
def services(folder: Path) -> Iterator[Services]:
    """All three, running; jobs on the cluster have what they need without options, as cluster.yaml sets it."""
    mlflow = MlflowServer(folder)
    try:
        with s3_server(folder) as s3:
            mlflow.start()
            cluster = Cluster(
                {
                    **s3.environment,
                    "DAS_PRESET": "small",
                    "DAS_PREPARED": "s3://bucket/prepared",
                    "DAS_STORAGE": "s3://bucket/das",
                    "MLFLOW_TRACKING_URI": mlflow.uri,
                    "HOME": str(folder),
                }
            )
            try:
                wait_for(cluster.ready, "the start of a Ray cluster")
                yield Services(cluster, s3, mlflow)
            finally:
                cluster.stop()
    finally:
        mlflow.stop()


class Site:
    """A copy of the project's folder for the commands of one file, with nothing but what it says it needs.

    Attributes:
        folder: where the commands are run. data: what is printed as /data. bucket: what is printed as s3://bucket.
    """

    def __init__(self, folder: Path, running: Services, bucket: str, flags: Mapping[str, Sequence[str]]) -> None:
        self.folder, self.data, self.bucket = folder / "project", folder / "data", f"s3://{bucket}"
        self._settings, self._log = folder / "settings.json", folder / "log.jsonl"
        self._programs, self._flags, self._running = folder / "programs", flags, running
        running.s3.make_bucket(bucket)
        for name in _PROJECT_FILES:
            path, copy = PROJECT / name, self.folder / name
            if path.is_dir():
                shutil.copytree(path, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, copy)
        self._programs.mkdir()
        for name in ("das", "python", "ray", "make"):
            self._stand_in(self._programs / name, name)
        (self._programs / "tar").symlink_to(shutil.which("tar") or "tar")

    def add_program(self, name: str) -> None:
        """A program that is called by a path of this folder; what it does must be said by ``instead``."""
        self._stand_in(self.folder / name, name)

    def run(self, block: Block, instead: Mapping[str, Sequence[str]]) -> list[dict]:
        """Runs a block, word for word, in bash; returns what its programs were called with. Fails with its output.

        Args:
            block: of the file that this folder is for.
            instead: arguments that are run in the place of a command.
        """
        gcs, dashboard = f"127.0.0.1:{self._running.cluster.gcs}", self._running.cluster.dashboard
        places = [
            ("/data/", f"{self.data}/"),
            ("/mnt/disk", str(self.data)),
            ("s3://bucket", self.bucket),
            ("s3://EDIT-BUCKET", self.bucket),
            ("http://HEAD:5000", self._running.mlflow.uri),
            ("http://127.0.0.1:8265", f"http://127.0.0.1:{dashboard}"),
            # README's training, whose name and storage are printed there.
            ("RUN_ID", {"file": f"{self.bucket}/runs/panoptic-release/finished.json", "key": "run_id"}),
            ("runs/evaluations/...", "runs/evaluations/panoptic-release"),
        ]
        settings = {
            "log": str(self._log),
            "path": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
            "programs": {
                "das": [str(_BIN / "das")],
                "python": [sys.executable],
                "ray": [str(_BIN / "ray")],
            },
            "environments": {"ray": {"RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}},
            "places": places,
            "flags": sorted(self._flags.items(), key=lambda row: -len(row[0])),  # the longest that fits
            "instead": {words: [*arguments] for words, arguments in instead.items()},
        }
        self._settings.write_text(json.dumps(settings))
        self._log.write_text("")
        unset = ("RAY_ADDRESS", "DAS_STORAGE", "MLFLOW_TRACKING_URI")
        environment = {name: value for name, value in os.environ.items() if name not in unset} | {
            **self._running.s3.environment,
            "DOCUMENTED": str(self._settings),
            "PATH": str(self._programs),  # any other program is not found
            "HOME": str(self.folder.parent),
            "RAY_ADDRESS": gcs,
            "OMP_NUM_THREADS": "1",
        }
        bash = shutil.which("bash")
        assert bash, "no bash here"
        done = subprocess.run(
            [bash, "-euo", "pipefail", "-c", block.text],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=4 * PATIENCE,
        )
        calls = [json.loads(line) for line in self._log.read_text().splitlines()]
        assert done.returncode == 0, (
            f"{block.file}:{block.line} ended with status {done.returncode}\n{block.text}\n"
            f"last run: {calls[-1] if calls else None}\n{done.stdout[-6000:]}"
        )
        return calls

    def _stand_in(self, path: Path, name: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program.__file__}" "{name}" "$@"\n')
        path.chmod(0o755)

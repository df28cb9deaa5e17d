"""The user's own command on a cluster that was started in another folder, and what `das doctor cluster` says of it.

On a cluster started in the project's folder it is in test_jobs.py.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import ray
import yaml

from pipeline.data.cluster_doctor import ClusterDoctorConfig, doctor_cluster
from pipeline.data.manifest import load_manifest
from pipeline.infra.cluster import ClusterConfig, connect
from pipeline.infra.name_claim import claimed_name
from tests.jobs.own_cluster import PROJECT, Cluster, wait_for

pytestmark = pytest.mark.slow

TINY = "--model.backbone-width 8 --ingest.width 96 --ingest.height 54 --ingest.batch-size 4 --optim.epochs 1".split()
COPIED = ("das", "pipeline", "jobs", "pyproject.toml", ".gitignore", ".rayignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, prepared):
    """A folder with the project in project/, its das.yaml and 101 MB of data and of runs, and an empty elsewhere/."""
    folder = tmp_path_factory.mktemp("place")
    for name in COPIED:
        source, copy = PROJECT / name, folder / "project" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    settings = {"preset": "small", "prepared": [str(prepared)], "storage": str(folder / "results")}
    (folder / "project/das.yaml").write_text(yaml.safe_dump(settings))
    for name in ("data", "runs"):
        (folder / "project" / name).mkdir()
        (folder / "project" / name / "large.bin").write_bytes(os.urandom(101 << 20))  # it cannot be compressed
    (folder / "elsewhere").mkdir()
    return folder


@pytest.fixture(scope="module")
def cluster(folder):
    cluster = Cluster(folder=folder / "elsewhere")
    try:
        wait_for(cluster.ready, "the start of a Ray cluster")
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def joined(cluster):
    """Options with which this process has joined the cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", f"127.0.0.1:{cluster.gcs}")
        config = ClusterConfig(address=f"127.0.0.1:{cluster.gcs}", storage="/tmp")
        connect(config)
        yield config.address
        ray.shutdown()


def test_the_upload_takes_its_das_yaml_and_leaves_data_and_runs_behind(cluster, folder):
    words = ["python", "jobs/train_panoptic.py", "--name", "shipped", *TINY]
    trained = cluster.submit("--working-dir", ".", "--", *words, folder=folder / "project")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert f"training finished: {folder}/results/shipped/best" in trained.stdout
    # The same by its path, from any folder: das.yaml is found beside the job.
    again = cluster.submit("--", f"{folder}/project/jobs/train_panoptic.py", "--name", "shipped", *TINY, folder=folder)
    assert "training finished before, nothing to do" in again.stdout, again.stdout + again.stderr


def test_the_bare_command_is_not_found_where_the_cluster_was_started_in_another_folder(cluster, folder):
    failed = cluster.submit("jobs/train_panoptic.py", folder=folder / "project")
    assert failed.returncode == 1 and "not found" in failed.stdout + failed.stderr


def test_doctor_in_a_job_tells_the_size_of_the_upload_and_the_versions_of_every_node(cluster, folder):
    words = ["python", "jobs/doctor.py", "cluster"]
    done = cluster.submit("--working-dir", ".", "--", *words, folder=folder / "project")
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("ok    upload: ", "ok    versions: python 3.", "ok    1 node: storage ", "ok    data "):
        assert line in done.stdout, done.stdout


HOLD = """
import sys, time, ray
from pipeline.infra import claims
from pipeline.infra.name_claim import claimed_name
ray.init(address=sys.argv[1], log_to_driver=False)

@ray.remote(num_cpus=3)
class Holder:
    def ready(self):
        return True

holder = Holder.remote()
ray.get(holder.ready.remote())
claims._machine = lambda: "another boot, another container"
with claimed_name(sys.argv[2], "training"):
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(cluster, joined, tmp_path):
    """Another job, which holds 3 of the 4 CPUs and the claim on a name, as if on another machine."""
    code = [sys.executable, "-c", HOLD, joined, str(tmp_path / "run")]
    environment = {**cluster.environment, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(code, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()


def said(capsys, address, folder, **options):
    """Exit status and lines of `das doctor cluster`."""
    where = ClusterConfig(**({"address": address, "storage": str(folder / "results")} | options.pop("cluster", {})))
    status = doctor_cluster(ClusterDoctorConfig(cluster=where, **options))
    return status, capsys.readouterr().out.splitlines()


def test_of_a_busy_cluster_doctor_tells_what_is_awaited_and_which_job_holds_it(capsys, joined, tmp_path, holder):
    status, lines = said(capsys, joined, tmp_path, workers=2)
    assert status == 1
    (line,) = [line for line in lines if line.startswith("note")]
    assert line.startswith("note  waiting for 1 CPU (2 asked, 1 of 4 free), held by job ")
    assert re.search(rf", process {holder.pid} on [\d.]+\): 3$", line), line


def test_a_claim_of_the_same_cluster_ends_with_its_job(tmp_path, holder):
    with pytest.raises(ValueError, match=f"process {holder.pid} on .*, Ray job 0"):
        with claimed_name(str(tmp_path / "run"), "training"):
            raise AssertionError("the claim must be refused")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    began = time.monotonic()
    with claimed_name(str(tmp_path / "run"), "training", patience=600):
        assert time.monotonic() - began < 60


def test_doctor_refuses_a_cluster_that_is_too_small_a_storage_that_cannot_be_written_and_lost_tracking(
    capsys, joined, tmp_path
):
    for options, wanted in (
        ({"workers": 9}, "fault needs 9 workers x 1 CPU, the cluster has 4 CPU"),
        ({"gpu": True}, "fault needs 1 worker x 1 CPU + 1 GPU, the cluster has 4 CPU + 0 GPU"),
        ({"cluster": {"storage": "/sys/das"}}, "fault storage /sys/das cannot be written: "),
        (
            {"cluster": {"tracking_uri": "http://127.0.0.1:9"}},
            "fault MLflow does not answer at http://127.0.0.1:9",
        ),
        ({"data": (str(tmp_path / "none"),)}, f"fault {tmp_path}/none does not exist"),
    ):
        status, lines = said(capsys, joined, tmp_path, **options)
        assert status == 2 and any(line.startswith(wanted) for line in lines), lines


def test_doctor_finds_nothing_wrong_with_an_idle_cluster(capsys, joined, tmp_path, prepared):
    status, lines = said(capsys, joined, tmp_path, data=(str(prepared),))
    assert status == 0 and all(line.startswith("ok ") for line in lines), lines
    assert "ok    CPU: 1 asked, 4 of 4 free" in lines and f"ok    data {prepared} can be read" in lines
    assert not (tmp_path / "results").exists(), "what was made for the check is removed"


def test_doctor_asks_for_room_in_the_object_store_and_a_cpu_only_where_ray_tasks_read_for_the_workers(
    capsys, joined, tmp_path, prepared
):
    store = "object store: 210 MB"
    status, lines = said(capsys, joined, tmp_path, data=(str(prepared),))
    assert status == 0 and f"ok    {store}" in lines and "ok    CPU: 1 asked, 4 of 4 free" in lines, lines
    status, lines = said(capsys, joined, tmp_path, data=(str(prepared),), workers=3, decode_on="cluster")
    rows = max(max(groups) for groups in load_manifest(str(prepared)).splits["train"].row_groups)
    (line,) = (line for line in lines if line.startswith(f"note  {store}"))
    assert line.endswith(f"less than the {3 * 5 * 1.8 * rows:.0f} MB that decode_on = cluster fills: disks are used")
    assert status == 1 and "ok    CPU: 4 asked, 4 of 4 free" in lines, lines


def test_doctor_of_a_local_ray(tmp_path, prepared):
    words = [sys.executable, str(PROJECT / "jobs/doctor.py"), "cluster", "--data", str(prepared), "--workers", "3"]
    words += ["--cluster.num-cpus", "2", "--cluster.object-store-mb", "100"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DAS_", "RAY_ADDRESS", "MLFLOW_"))}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "fault needs 3 workers x 1 CPU, the cluster has 2 CPU" in done.stdout
    assert f"ok    storage {tmp_path}/runs can be written" in done.stdout and not list(tmp_path.iterdir())

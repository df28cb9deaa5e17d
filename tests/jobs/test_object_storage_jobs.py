"""All that is read and written lies in a bucket of a local S3 server process, from `das prepare` to a prediction.

The driver of the training is killed within an epoch on the way. Only MLflow's database is a local file, because an
object storage holds no database.
"""

import json
import subprocess

import pytest

from pipeline.data.manifest import load_manifest
from pipeline.infra.files import copy_folder, exists, join, read_json
from pipeline.infra.mlflow_client import MlflowStore
from tests.jobs.own_cluster import PATIENCE, Cluster, wait_for
from tests.jobs.test_jobs import TINY, flags
from tests.servers import s3_server

pytestmark = pytest.mark.slow

ORIGINALS, DATA, STORAGE = "s3://bucket/originals", "s3://bucket/prepared", "s3://bucket/runs"
FOLDER, SCORES = f"{STORAGE}/killed", f"{STORAGE}/evaluations/scores"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray cluster whose processes, like this one, reach the bucket by the variables of AWS."""
    folder = tmp_path_factory.mktemp("s3")
    with s3_server(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        cluster = Cluster({"DAS_STORAGE": STORAGE, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"})
        try:
            wait_for(cluster.ready, "the start of a Ray cluster")
            yield cluster
        finally:
            cluster.stop()


def newest_report() -> dict[str, float]:
    """The metrics of the newest committed checkpoint of the training; step 0 before there is one."""
    snapshot = join(FOLDER, "checkpoint_manager_snapshot.json")
    results = read_json(snapshot)["checkpoint_results"] if exists(snapshot) else []
    return max((r["metrics"] for r in results), key=lambda m: m["step"], default={"step": 0, "epoch_step": 0})


def test_prepare_train_kill_resume_evaluate_promote_and_predict_with_all_files_in_a_bucket(cluster, prepared, tmp_path):
    log = tmp_path / "log"

    def finish(process: subprocess.Popen[bytes]) -> None:
        try:
            assert process.wait(PATIENCE) == 0, log.read_text()
        finally:
            process.kill()

    raw = prepared.parent / "raw"
    copy_folder(raw, ORIGINALS)
    convert = ["--source", "synthetic", "--root", ORIGINALS, "--out", DATA, "--shard-mb", "0.05"]
    finish(cluster.drive(log, "prepare.py", *convert))
    assert load_manifest(DATA) == load_manifest(prepared)

    options = flags(TINY | {"optim.epochs": 8, "checkpoint-steps": 2})
    training = ["small", "--data", DATA, "--name", "killed", *options]
    driver = cluster.drive(log, "train_panoptic.py", *training)
    try:
        wait_for(lambda: newest_report()["epoch_step"] > 0 or driver.poll() is not None, "a checkpoint in an epoch")
    finally:
        driver.kill()
    driver.wait()
    assert not exists(join(FOLDER, "finished.json")), log.read_text()
    stood_at = newest_report()["step"]
    finish(cluster.drive(log, "train_panoptic.py", *training))
    assert 0 < stood_at < newest_report()["step"] == 64

    model = join(FOLDER, "best")
    measure = ["--model", model, "--data", DATA, "--name", "scores", "--workers", "1", "--runtime-images", "0"]
    finish(cluster.drive(log, "evaluate.py", *measure))
    scores = read_json(join(SCORES, "scores.json"))

    # After seconds of training hardly anybody is found: what a champion must reach is not asked here.
    (tmp_path / "gate.json").write_text(json.dumps({"min_f1": 0, "max_error": 9}))
    candidate = ["--model", model, "--scores", SCORES, "--name", "das-panoptic", "--gate", str(tmp_path / "gate.json")]
    finish(cluster.drive(log, "promote.py", *candidate))
    store = MlflowStore(cluster.environment["MLFLOW_TRACKING_URI"])
    version = store.client().get_model_version_by_alias("das-panoptic", "champion")
    finished = read_json(join(FOLDER, "finished.json"))
    assert version.run_id == finished["run_id"]
    assert version.tags["das.model_fingerprint"] == scores["model_fingerprint"]
    run = store.client().get_run(version.run_id)
    assert run.info.status == "FINISHED" and run.data.metrics["step"] == 64

    photo = next((raw / "studio_test_pizza1").rglob("*.jpg"))
    predict = [str(photo), "--model", "models:/das-panoptic@champion", "--out", str(tmp_path / "people")]
    finish(cluster.drive(log, "predict.py", *predict))
    assert (tmp_path / "people" / f"{photo.stem}.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate.json", "log", "people"]

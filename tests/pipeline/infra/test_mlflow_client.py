"""Addresses of MLflow stores, and clients for them."""

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.infra.mlflow_client import MlflowStore, absolute_tracking_uri
from tests.servers import MlflowServer

PROJECT = Path(__file__).resolve().parents[3]


def test_tracking_uris_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_tracking_uri(None, "/runs") == "sqlite:////runs/mlflow.db"
    assert absolute_tracking_uri("sqlite:///here.db", "/runs") == f"sqlite:///{tmp_path}/here.db"
    assert absolute_tracking_uri("http://head:5000/", "s3://bucket") == "http://head:5000"


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "sqlite://", "sqlite:///", "http://", "ftp://x"])
def test_an_unusable_tracking_uri_is_refused(uri):
    with pytest.raises(ValueError, match="tracking_uri = "):
        absolute_tracking_uri(uri, "/runs")


def test_object_storage_needs_a_server():
    with pytest.raises(ValueError, match="wanted an MLflow server"):
        absolute_tracking_uri(None, "s3://bucket/runs")


def test_readers_do_not_create_a_database(tmp_path):
    with pytest.raises(ValueError, match="there is no database"):
        MlflowStore(f"sqlite:///{tmp_path}/none/mlflow.db").client(must_exist=True)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_plain_text_that_can_be_sent_to_workers():
    store = MlflowStore("http://head:5000")
    assert pickle.loads(pickle.dumps(store)) == store and dataclasses.asdict(store) == {"uri": "http://head:5000"}


def test_only_sqlite_stores_have_a_database_file(tmp_path):
    assert MlflowStore(f"sqlite:///{tmp_path}/mlflow.db").database == tmp_path / "mlflow.db"
    assert MlflowStore("http://head:5000").database is None
    assert MlflowStore("postgresql://user@host/runs").database is None


def test_a_lost_server_is_one_line_and_other_errors_pass(tmp_path):
    store = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(ConnectionError, match="MLflow does not answer at sqlite.*: first$"):
        with store.connected(must_exist=False):
            raise TimeoutError("first\nsecond")
    with pytest.raises(KeyError), store.connected(must_exist=False):
        raise KeyError


def test_a_lost_server_is_named_without_its_password():
    store = MlflowStore("http://user:hunter2@host:5000")
    with pytest.raises(
        ConnectionError, match=r"MLflow does not answer at http://\*\*\*@host:5000: at http://\*\*\*@b$"
    ):
        with store.connected():
            raise TimeoutError("at http://a:hunter2@b")
    with pytest.raises(ValueError, match=r"tracking_uri = 'ftp://\*\*\*@host', wanted"):
        absolute_tracking_uri("ftp://user:hunter2@host", "/runs")
    with pytest.raises(ValueError, match=r"storage = 's3://\*\*\*@bucket' cannot"):
        absolute_tracking_uri(None, "s3://KEY:SECRET@bucket")


def test_a_database_without_its_driver_is_a_value_error_without_the_password(monkeypatch):
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(ValueError, match="needs the package MySQLdb") as caught:
        with MlflowStore("mysql://user:SECRET@127.0.0.1:9/db").connected() as client:
            client.search_experiments()
    assert "SECRET" not in str(caught.value) and "mysql://***@127.0.0.1:9/db" in str(caught.value)


FIRST_USER = """
import sys, time
from pathlib import Path
import mlflow
from pipeline.infra.mlflow_client import MlflowStore
folder, name = Path(sys.argv[1]), sys.argv[2]
(folder / name).touch()
while len([*folder.iterdir()]) < 3:
    time.sleep(0.01)
with MlflowStore(f"sqlite:///{folder}/new/mlflow.db").connected(must_exist=False) as client:
    print(client.create_experiment(name))
"""


@pytest.mark.slow
def test_three_first_users_of_a_new_database_all_get_it(tmp_path):
    command = [sys.executable, "-c", FIRST_USER, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    users = [subprocess.Popen([*command, name], cwd=PROJECT, **pipes) for name in "abc"]
    ended = [user.communicate(timeout=300) for user in users]
    assert [user.returncode for user in users] == [0, 0, 0], ended
    assert sorted(int(out) for out, _ in ended) == [1, 2, 3]
    database = MlflowStore(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert {e.name for e in database.client(must_exist=True).search_experiments()} == {"Default", "a", "b", "c"}


def test_a_database_in_a_folder_that_cannot_be_written_needs_no_lock(tmp_path, monkeypatch):
    store = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.client()
    (tmp_path / "mlflow.db.lock").unlink()
    monkeypatch.setattr("pipeline.infra.mlflow_client.os.access", lambda path, mode: False)  # root may write anywhere
    assert store.client(must_exist=True).search_experiments()[0].name == "Default"
    assert not (tmp_path / "mlflow.db.lock").exists()


def test_a_server_with_a_password_refuses_in_one_line_and_takes_user_and_password_from_the_environment(
    tmp_path, monkeypatch
):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    server = MlflowServer(tmp_path, password="a-long-password")
    server.start()
    try:
        store = MlflowStore(server.uri)
        with pytest.raises(ValueError, match=f"^MLflow at {server.uri} refuses: .*authenticated") as refused:
            store.check("das", "now")
        assert len(str(refused.value).splitlines()) == 1
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-long-password")
        experiment = store.client().create_experiment("das")
        store.check("das", "now")
        assert store.client().get_experiment(experiment).tags["das.checked"] == "now"
    finally:
        server.stop()

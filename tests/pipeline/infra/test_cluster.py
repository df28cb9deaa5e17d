"""Connecting to Ray, addresses for workers, the count of trials that fit, and cluster.yaml against Ray's schema."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config

from pipeline.infra import cluster
from pipeline.infra.cluster import (
    PROJECT,
    ClusterConfig,
    absolute_storage,
    connect,
    worker_environment,
)
from pipeline.infra.resources import autoscaler_nodes, preflight
from pipeline.training.presets import panoptic_presets

NOWHERE = Path("/no/bootstrap.yaml")


def nodes(*resources):
    """A stand-in for ray.nodes() with these nodes; the first is the head, one more is dead."""
    heads = [{"node:__internal_head__": 1.0}, *[{}] * (len(resources) - 1)]
    alive = [{"Alive": True, "Resources": {**r, **h}} for r, h in zip(resources, heads, strict=True)]
    return lambda: [*alive, {"Alive": False, "Resources": {"CPU": 999.0, "GPU": 999.0}}]


# ---- preflight ----


@pytest.mark.parametrize(
    ("cluster_nodes", "job", "fits"),
    [
        ([{"CPU": 8.0}], {"workers": 1, "resources_per_worker": {"CPU": 8}}, 1),
        ([{"CPU": 8.0}], {"workers": 2, "resources_per_worker": {"CPU": 2}, "trials": 4}, 2),
        ([{"CPU": 8.0}], {"workers": 2, "resources_per_worker": {"CPU": 2}, "trials": 4, "spare_cpus": 1}, 1),
        ([{"CPU": 8.0}], {"workers": 1, "resources_per_worker": {"CPU": 1}, "trials": 3}, 3),
        ([{"CPU": 0.9}], {"workers": 1, "resources_per_worker": {"CPU": 0.3}, "trials": 9}, 3),
        ([{"CPU": 2.0}, {"CPU": 8.0, "GPU": 4.0}], {"workers": 4, "resources_per_worker": {"CPU": 2, "GPU": 1}}, 1),
    ],
)
def test_trials_that_fit_are_counted(monkeypatch, cluster_nodes, job, fits):
    monkeypatch.setattr(ray, "nodes", nodes(*cluster_nodes))
    assert preflight(**job, bootstrap=NOWHERE) == fits


@pytest.mark.parametrize(
    ("cluster_nodes", "job", "message"),
    [
        (
            [{"CPU": 8.0, "GPU": 2.0}],
            {"workers": 4, "resources_per_worker": {"GPU": 1}},
            "needs 4 workers x 1 GPU, the cluster has 2 GPU",
        ),
        (
            [{"CPU": 8.0}],
            {"workers": 2, "resources_per_worker": {"CPU": 1, "GPU": 1}},
            "needs 2 workers x 1 CPU + 1 GPU, the cluster has 8 CPU + 0 GPU",
        ),
        (
            [{"CPU": 4.0}, {"CPU": 4.0}],
            {"workers": 2, "resources_per_worker": {"CPU": 3}, "spare_cpus": 3},
            "needs 2 workers x 3 CPU + 3 CPU for data, the cluster has 8 CPU",
        ),
        (
            [{"CPU": 4.0}, {"CPU": 4.0}],
            {"workers": 1, "resources_per_worker": {"CPU": 6}},
            "needs 1 worker x 6 CPU, the cluster has 8 CPU, whose nodes have room for 0 of them",
        ),
    ],
)
def test_a_job_that_does_not_fit_is_refused_in_one_line(monkeypatch, cluster_nodes, job, message):
    monkeypatch.setattr(ray, "nodes", nodes(*cluster_nodes))
    with pytest.raises(ValueError) as caught:
        preflight(**job, bootstrap=NOWHERE)
    assert str(caught.value) == message


def test_no_workers_or_no_resources_are_refused(monkeypatch):
    monkeypatch.setattr(ray, "nodes", nodes({"CPU": 8.0}))
    for job in ({"workers": 0, "resources_per_worker": {"CPU": 1}}, {"workers": 1, "resources_per_worker": {}}):
        with pytest.raises(ValueError, match="wanted at least 1 worker"):
            preflight(**job)


def test_workers_that_the_autoscaler_may_add_count_once(monkeypatch):
    bootstrap = PROJECT / "cluster.yaml"  # `ray up` writes such a file on the head
    gpu_node = {"CPU": 16.0, "GPU": 1.0}
    for alive in ([{"CPU": 16.0}], [{"CPU": 16.0}, gpu_node, gpu_node]):
        monkeypatch.setattr(ray, "nodes", nodes(*alive))
        assert preflight(4, {"CPU": 8, "GPU": 1}, bootstrap=bootstrap) == 1
        with pytest.raises(ValueError, match="needs 5 workers x 1 GPU, the cluster has 4 GPU"):
            preflight(5, {"GPU": 1}, bootstrap=bootstrap)


# ---- addresses ----


def test_storage_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_storage("runs") == str(tmp_path / "runs")
    assert absolute_storage("file:///data/runs") == "/data/runs"
    assert absolute_storage("s3://bucket/das/") == "s3://bucket/das"
    assert list(tmp_path.iterdir()) == []


def connected_to(monkeypatch, *resources):
    """Replaces ray's functions by those of a connection to a cluster of these nodes."""
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", nodes(*resources))
    for name in ("DAS_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def test_a_local_folder_is_refused_on_several_nodes(monkeypatch, tmp_path):
    connected_to(monkeypatch, {"CPU": 1.0}, {"CPU": 1.0})
    here = {"storage": str(tmp_path)}
    with pytest.raises(
        ValueError, match="is a folder of one machine, but the cluster has 2 nodes: wanted object storage"
    ):
        connect(ClusterConfig(**here))
    with pytest.raises(
        ValueError, match="is a file of one machine, but the cluster has 2 nodes: wanted an MLflow server"
    ):
        connect(ClusterConfig(storage="s3://bucket/runs", tracking_uri="sqlite:///x.db"))
    assert connect(ClusterConfig(**here, shared_storage=True)).nodes == 2
    assert connect(ClusterConfig(storage="s3://bucket/runs", tracking_uri="http://head:5000")).nodes == 2


def test_a_job_with_out_needs_only_that_folder_on_all_nodes(monkeypatch, tmp_path):
    connected_to(monkeypatch, {"CPU": 1.0}, {"CPU": 1.0})
    here = ClusterConfig(storage=str(tmp_path / "runs"))
    with pytest.raises(ValueError, match="^out = '/data/out' is a folder of one machine, but the cluster has 2 nodes"):
        connect(here, "/data/out")
    assert connect(here, "s3://bucket/out").nodes == 2
    assert connect(ClusterConfig(shared_storage=True), "/data/out").nodes == 2


def test_a_local_folder_is_refused_where_nodes_will_be_added(monkeypatch, tmp_path):
    connected_to(monkeypatch, {"CPU": 1.0})
    assert connect(ClusterConfig(storage=str(tmp_path))).nodes == 1
    monkeypatch.setattr(cluster, "autoscaler_nodes", lambda: autoscaler_nodes(PROJECT / "cluster.yaml"))
    with pytest.raises(ValueError, match="an autoscaler that adds nodes"):
        connect(ClusterConfig(storage=str(tmp_path)))


def test_defaults_come_from_the_environment(monkeypatch, tmp_path):
    connected_to(monkeypatch, {"CPU": 1.0})
    monkeypatch.setenv("DAS_STORAGE", "s3://bucket/das")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://head:5000")
    found = connect()
    assert (found.storage, found.tracking_uri) == ("s3://bucket/das", "http://head:5000")
    assert connect(ClusterConfig(storage=str(tmp_path))).storage == str(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_cpus": 0}, "num_cpus = 0, wanted at least 1"),
        ({"object_store_mb": 10}, "object_store_mb = 10, wanted at least 80"),
        ({"address": "ray://head:10001"}, "wanted auto, local or HOST:PORT"),
        ({"address": ""}, "wanted auto, local or HOST:PORT"),
    ],
)
def test_a_wrong_field_is_refused_when_the_configuration_is_made(change, message):
    with pytest.raises(ValueError, match=message):
        ClusterConfig(**change)


def test_wrong_addresses_are_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(ValueError, match="RAY_ADDRESS = 'http://127.0.0.1:8265', wanted HOST:PORT"):
        connect()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ValueError, match="num_cpus and num_gpus are for a local Ray"):
        connect(ClusterConfig(num_cpus=2))


def test_workers_import_the_project_unless_the_job_ships_it():
    alone = worker_environment({"PYTHONPATH": "/other"})
    assert alone["PYTHONPATH"].split(os.pathsep) == [str(PROJECT), "/other"]
    shipped = {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"working_dir": "gcs://x.zip"}})}
    assert "PYTHONPATH" not in worker_environment(shipped)
    theirs = {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"env_vars": {"PYTHONPATH": "/mine"}}})}
    assert "PYTHONPATH" not in worker_environment(theirs)
    assert worker_environment({"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"metadata": {}})}) == worker_environment({})


# ---- a real Ray ----


@pytest.mark.slow
def test_a_local_ray_has_a_token_prints_nothing_and_its_workers_import_the_project(tmp_path):
    code = """
import os, ray
from pipeline.infra.cluster import ClusterConfig, connect
found = connect(ClusterConfig(num_cpus=1, object_store_mb=100, storage="runs"))
assert connect(ClusterConfig(storage="runs")).nodes == 1 and found.embedded

@ray.remote
def environment():
    import das.config, pipeline.infra.cluster
    return os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"]), os.environ["MLFLOW_DISABLE_TELEMETRY"]

@ray.remote
def address():
    return os.environ["RAY_ADDRESS"]

print(found.storage, found.tracking_uri, ray.get(environment.remote()), ray.cluster_resources()["CPU"])
# Without it, helpers of Ray in workers would look for any Ray of this machine.
print(ray.get(address.remote()) == ray.get_runtime_context().gcs_address, "RAY_GCS_SERVER_PORT" in os.environ)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "DAS_", "MLFLOW_"))}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "runs"
    assert done.stdout == f"{runs} sqlite:///{runs}/mlflow.db ('token', 32, 'true') 1.0\nTrue False\n"
    assert done.stderr == ""
    # No token that later clusters would use, and no empty folder of runs.
    assert not (tmp_path / ".ray").exists() and not runs.exists()


# ---- cluster.yaml ----


@pytest.fixture
def launch():
    return yaml.safe_load((PROJECT / "cluster.yaml").read_text())


def test_ray_up_accepts_cluster_yaml(launch):
    validate_config(fillout_defaults(launch))
    prepared = prepare_config(launch)
    assert prepared["available_node_types"]["gpu_worker"]["max_workers"] == 4
    assert [count for _, count in autoscaler_nodes(PROJECT / "cluster.yaml")] == [4]


@pytest.mark.parametrize(
    "misspell",
    [
        lambda c: c.update(max_worker=c.pop("max_workers")),
        lambda c: c.update(setup_command=c.pop("setup_commands")),
        lambda c: c["available_node_types"]["gpu_worker"].update(min_worker=0),
        lambda c: c["available_node_types"]["gpu_worker"].pop("node_config"),
        lambda c: c["docker"].update(run_option=[]),
        lambda c: c["available_node_types"]["gpu_worker"]["resources"].update(GPU="one"),
    ],
)
def test_a_misspelt_field_of_cluster_yaml_is_refused(launch, misspell):
    misspell(launch)
    with pytest.raises(jsonschema.ValidationError):
        validate_config(fillout_defaults(launch))


def test_an_unknown_head_type_is_refused(launch):
    launch["head_node_type"] = "heads"
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(fillout_defaults(launch))


def test_cluster_yaml_uses_the_locked_version_of_ray_with_a_token(launch):
    lock = (PROJECT / "requirements.lock").read_text()
    version = re.search(r"^ray==(.+)$", lock, flags=re.MULTILINE)[1]
    for image in (launch["docker"]["head_image"], launch["docker"]["worker_image"]):
        assert image.startswith(f"rayproject/ray:{version}-py311")
    assert "--env RAY_AUTH_MODE=token" in launch["docker"]["run_options"]
    assert "/home/ray/.ray/auth_token" in launch["file_mounts"]
    assert any("requirements.lock" in command for command in launch["setup_commands"])


def test_every_placeholder_of_cluster_yaml_is_explained_at_its_top():
    text = (PROJECT / "cluster.yaml").read_text()
    top, body = text.split("\ncluster_name:")
    placeholders = set(re.findall(r"EDIT-[A-Z]+", body))
    assert placeholders == {"EDIT-BUCKET", "EDIT-PROFILE", "EDIT-AMI"}
    for name in placeholders:
        (line,) = re.findall(rf"^#   {name}  .*(?:\n#    .*)*", top, flags=re.MULTILINE)
        assert body.count(name) == (2 if "(twice)" in line else 1), name


def test_cluster_yaml_sets_what_a_job_without_options_needs_and_starts_ray_where_such_jobs_run(launch):
    options = dict(option.removeprefix("--env ").split("=", 1) for option in launch["docker"]["run_options"][1:])
    assert options["DAS_PRESET"] in panoptic_presets()
    assert options["DAS_PREPARED"].startswith("s3://") and options["DAS_STORAGE"].startswith("s3://")
    for commands in (launch["head_start_ray_commands"], launch["worker_start_ray_commands"]):
        assert "cd /home/ray/das-pose;" in commands[-1] and "ray start" in commands[-1]
    assert launch["file_mounts"]["/home/ray/das-pose"] == "."


def test_cluster_yaml_gives_mlflow_a_password_and_every_node_the_same(launch):
    server, head = launch["head_start_ray_commands"][1:]
    assert "--app-name basic-auth" in server and "MLFLOW_AUTH_ADMIN_PASSWORD=$(cat ~/.ray/mlflow_password)" in server
    assert "MLFLOW_FLASK_SERVER_SECRET_KEY=" in server
    for start in (head, launch["worker_start_ray_commands"][-1]):
        assert "export MLFLOW_TRACKING_PASSWORD=$(cat ~/.ray/mlflow_password)" in start
    assert "--env MLFLOW_TRACKING_USERNAME=admin" in launch["docker"]["run_options"]
    assert "/home/ray/.ray/mlflow_password" in launch["file_mounts"]

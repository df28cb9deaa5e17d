"""Connection to Ray: a local Ray started for one job ("embedded"), or a running cluster.

``connect`` is the only function that starts or joins Ray. It also makes two addresses absolute: the storage of runs
and checkpoints, and the MLflow store. Workers run in a folder of Ray's, where a relative path would be another place.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from das.fields import at_least
from pipeline.infra.job_defaults import PROJECT, given_value, how_to_give
from pipeline.infra.mlflow_client import MlflowStore, absolute_tracking_uri
from pipeline.infra.redaction import redacted
from pipeline.infra.resources import Nodes, autoscaler_nodes

_GCS_PORT = "RAY_GCS_SERVER_PORT"  # port of a head that ray.init starts
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by ``ray job submit`` around its entry point


@dataclass(frozen=True)
class StoreConfig:
    """Where results, runs and registered models are; what needs no Ray needs nothing more."""

    storage: str | None = None
    """Folder or object storage (s3://bucket/path) of runs and checkpoints; default $DAS_STORAGE, else that of das.yaml
    (pipeline/infra/job_defaults.py), else ./runs."""
    tracking_uri: str | None = None
    """MLflow store; default $MLFLOW_TRACKING_URI, else that of das.yaml, else sqlite in the storage folder."""

    def locations(self) -> tuple[str, str]:
        """Absolute storage and tracking URI, with defaults from the environment and das.yaml; starts nothing.

        Raises:
            ValueError: a tracking URI that MLflow does not accept, or none while the storage cannot hold a database; a
                place in a folder that Ray has shipped; a wrong das.yaml.
        """
        storage = absolute_storage(self.storage or given_value("storage") or "runs")
        refuse_shipped("storage", storage, how_to_give("storage"))
        tracking_uri = absolute_tracking_uri(self.tracking_uri or given_value("tracking_uri"), storage)
        if (database := MlflowStore(tracking_uri).database) is not None:
            refuse_shipped("tracking_uri", str(database), how_to_give("tracking_uri"))
        return storage, tracking_uri


@dataclass(frozen=True)
class ClusterConfig(StoreConfig):
    """Where a job runs and where its results go. The defaults start a local Ray on this machine."""

    address: str | None = None
    """None: join the cluster of RAY_ADDRESS or of the surrounding Ray job, else start a local Ray. auto: join the
    Ray that runs on this machine. local: always start a local Ray. HOST:PORT: join that cluster."""
    num_cpus: int | None = None
    """CPUs of a local Ray; by default all of this machine."""
    num_gpus: int | None = None
    """GPUs of a local Ray; by default all of this machine."""
    object_store_mb: int = 1024
    """Shared memory of a local Ray, MB. Ray's own default is 30 % of all memory."""
    dashboard: bool = False
    """Start Ray's dashboard with a local Ray. Sweeps need it: Ray frees the resources of a stopped trial
    through it."""
    worker_logs: bool = False
    """Print the output of workers. Otherwise it is in Ray's log files only; errors reach the driver in any case."""
    shared_storage: bool = False
    """The storage folder (of `prepare`: --out) is mounted at the same path on all nodes. A cluster of several nodes
    takes a folder only with this option."""

    def __post_init__(self) -> None:
        at_least(self, num_cpus=1, num_gpus=0, object_store_mb=80)
        if self.address == "" or "://" in (self.address or ""):
            raise ValueError(
                f"address = {self.address!r}, wanted auto, local or HOST:PORT (Ray Client is not used: submit a job)"
            )


@dataclass(frozen=True)
class Cluster:
    """The cluster that a driver is connected to, and the absolute addresses for its workers."""

    storage: str
    """Absolute path, or the URI of object storage."""
    tracking_uri: str
    """MLflow store, valid in any folder and, on several nodes, on any node; "" for a job without MLflow."""
    embedded: bool
    """Ray was started by ``connect`` and stops with the driver."""
    nodes: int
    """Number of nodes that are alive now."""


def connect(config: ClusterConfig | None = None, out: str | None = None) -> Cluster:
    """Starts or joins Ray and returns the absolute addresses; a second call reuses the connection.

    Args:
        config: where to run.
        out: absolute output folder or URI of a job that writes nothing else and uses no MLflow; it takes the place
            of the storage.

    Raises:
        ValueError: an address, storage or tracking URI that cannot work, each in one line.
        ConnectionError: no Ray at the address.
    """
    import ray  # in functions: what only reads ClusterConfig does not spend seconds on importing Ray

    config = config or ClusterConfig()
    # Before Ray, which takes seconds to start: a wrong address fails at once.
    storage, tracking_uri = config.locations() if out is None else (out, "")
    if out is not None:
        refuse_shipped("out", out)
    embedded = not ray.is_initialized() and _start_or_join(config)
    alive = [node for node in ray.nodes() if node["Alive"]]
    if not config.shared_storage:
        name = "storage" if out is None else "out"
        _refuse_local_on_many(name, storage, tracking_uri, len(alive), [] if embedded else autoscaler_nodes())
    return Cluster(storage, tracking_uri, embedded, len(alive))


def joins(config: ClusterConfig) -> bool:
    """Whether ``connect`` would join a running cluster, rather than start a local Ray."""
    return _address(config) != "local"


def _address(config: ClusterConfig) -> str:
    # Ray sets RAY_ADDRESS for the driver of a submitted job.
    return config.address or ("auto" if os.environ.get("RAY_ADDRESS") else "local")


def _start_or_join(config: ClusterConfig) -> bool:
    """Calls ray.init; returns whether that started a local Ray."""
    import ray

    environment, address = os.environ.get("RAY_ADDRESS", ""), _address(config)
    if address == "auto" and "://" in environment:
        raise ValueError(
            f"RAY_ADDRESS = {environment!r}, wanted HOST:PORT or nothing "
            "(only `ray job submit` takes the address of a dashboard)"
        )
    embedded = address == "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {}
    known = environment if address == "auto" else address
    if embedded:
        known = _fixed_address()
        # Ray's default niceness of 15 favours other programs of the machine; here the workers are the job.
        os.environ.setdefault("RAY_worker_niceness", "0")
        if "RAY_AUTH_MODE" not in os.environ:
            # Ray listens on every network interface, so a local Ray requires a token by default. Ray would write
            # it to the home folder, where every later cluster would find it; this one ends with the process.
            os.environ.setdefault("RAY_AUTH_TOKEN", uuid.uuid4().hex)
        options = {
            "num_cpus": config.num_cpus,
            "num_gpus": config.num_gpus,
            "object_store_memory": config.object_store_mb << 20,
            "include_dashboard": config.dashboard,
        }
    elif config.num_cpus is not None or config.num_gpus is not None:
        raise ValueError("num_cpus and num_gpus are for a local Ray, but this job joins a cluster")
    ray.init(
        address=address,
        runtime_env={"env_vars": worker_environment(os.environ, known)},
        log_to_driver=config.worker_logs,
        logging_level=logging.ERROR,  # without the banner and the message about tokens
        **options,
    )
    os.environ.pop(_GCS_PORT, None)
    logging.getLogger("ray").setLevel(logging.WARNING)
    return embedded


def _fixed_address() -> str:
    """HOST:PORT for a Ray that this process is about to start, so that its workers can be given the address."""
    import ray

    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    os.environ[_GCS_PORT] = str(port)
    return f"{ray.util.get_node_ip_address()}:{port}"


def worker_environment(environment: Mapping[str, str], address: str = "") -> dict[str, str]:
    """Variables for worker processes: the address of Ray, the path to import the project from, no usage reports.

    Without the address, helpers of Ray inside worker processes look for any Ray of this machine. Of two they may find
    the other one, and the watchdog that frees the resources of a stopped training then frees nothing.

    Inside a submitted job, whose working folder Ray copies to all nodes, the project is imported from that folder.
    Variables that the job sets itself are left out, because Ray refuses to set one twice.

    Args:
        environment: variables of the driver.
        address: HOST:PORT of Ray; "" leaves it out.
    """
    job = submitted_with(environment).get("runtime_env") or {}
    wanted = {"MLFLOW_DISABLE_TELEMETRY": "true", **({"RAY_ADDRESS": address} if address else {})}
    if "working_dir" not in job:
        folders = [str(PROJECT), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        wanted["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(folders))
    return {name: value for name, value in wanted.items() if name not in job.get("env_vars", {})}


def submitted_with(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What Ray tells a submitted job about itself, "runtime_env" and "metadata"; empty for any other process."""
    found: dict[str, Any] = json.loads(environment.get(_JOB_CONFIG) or "{}")
    return found


def shipped_folder() -> Path | None:
    """The folder that Ray has copied here for this submission (`--working-dir`); None outside of one."""
    return Path.cwd() if "working_dir" in (submitted_with().get("runtime_env") or {}) else None


def refuse_shipped(name: str, place: str, more: str = "") -> None:
    """Checks that a place of results outlives the submission.

    Args:
        name: of the field.
        place: absolute path or URI.
        more: end of the message.

    Raises:
        ValueError: it is inside of the shipped folder, which the next submission will not see.
    """
    folder = shipped_folder()
    if folder is not None and "://" not in place and Path(place).is_relative_to(folder):
        raise ValueError(
            f"{name} = {str(Path(place).relative_to(folder))!r} is inside of the folder that Ray has copied for this "
            "submission alone, so the next one would start over: wanted an absolute path or a URI such as "
            f"s3://bucket/path{', ' if more else ''}{more}"
        )


def absolute_storage(storage: str) -> str:
    """A local path made absolute (file:// removed, ~ expanded); a URI of object storage without its last slash."""
    if storage.startswith("file://"):
        storage = storage.removeprefix("file://")
    return storage.rstrip("/") if "://" in storage else str(Path(storage).expanduser().resolve())


def _refuse_local_on_many(name: str, storage: str, tracking_uri: str, alive: int, growth: Nodes) -> None:
    """Raises ValueError when workers on other nodes could not reach a folder of the driver."""
    if alive < 2 and not any(count for _, count in growth):
        return
    size = f"{alive} nodes" if alive > 1 else "an autoscaler that adds nodes"
    if "://" not in storage:
        raise ValueError(
            f"{name} = {redacted(storage)!r} is a folder of one machine, but the cluster has {size}: "
            "wanted object storage such as s3://bucket/path, or shared_storage if the folder is mounted on all"
        )
    if tracking_uri and MlflowStore(tracking_uri).database is not None:
        raise ValueError(
            f"tracking_uri = {tracking_uri!r} is a file of one machine, but the cluster has {size}: "
            "wanted an MLflow server such as http://HEAD:5000"
        )

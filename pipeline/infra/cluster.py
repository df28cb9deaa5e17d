"""Where a job runs: one local Ray started for it, or a cluster that is already there.

``connect`` is the only place that starts or joins Ray. It also makes the two addresses that every worker
needs absolute (a worker's current folder is Ray's, so a relative path means something else there): the
storage of runs and checkpoints, and the MLflow store. ``preflight`` compares what a job asks for with what
the cluster has, because Ray itself waits without a word for resources that never come.
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

import ray
import yaml

from das.fields import at_least
from pipeline.infra.mlflow_client import MlflowStore, absolute_tracking_uri

PROJECT = Path(__file__).resolve().parents[2]

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Written by ``ray up`` on a head node: the node types that the autoscaler may add."""

Nodes = list[tuple[dict[str, float], int]]
"""(Resources of one node, how many such nodes)."""

_GCS_PORT = "RAY_GCS_SERVER_PORT"  # read by ray.init when it starts a head
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by ``ray job submit`` around its entry point


@dataclass(frozen=True)
class ClusterConfig:
    """Where to run, and where results go. The defaults are one embedded Ray on this machine."""

    address: str | None = None
    """None: join the cluster of RAY_ADDRESS or of the surrounding Ray job, else start one here. auto: join
    one that runs on this machine. local: always start one here. HOST:PORT: join that one."""
    num_cpus: int | None = None
    """CPUs of an embedded Ray; by default all of this machine's."""
    num_gpus: int | None = None
    """GPUs of an embedded Ray; by default all of this machine's."""
    object_store_mb: int = 1024
    """Shared memory of an embedded Ray (MB). Ray alone would take 30 % of all memory."""
    dashboard: bool = False
    """Start Ray's dashboard with an embedded Ray. Sweeps need it: Ray frees a stopped trial's resources
    through it."""
    worker_logs: bool = False
    """Print what workers print. Off, it stays in Ray's log files; errors reach the driver in any case."""
    storage: str | None = None
    """Folder or object storage (s3://bucket/path) of runs and checkpoints; default $DAS_STORAGE, else
    ./runs."""
    shared_storage: bool = False
    """The storage folder (of `prepare`: --out) is mounted at the same path on all nodes; only then may a
    cluster of several use it."""
    tracking_uri: str | None = None
    """MLflow store; default $MLFLOW_TRACKING_URI, else sqlite in the storage folder."""

    def __post_init__(self) -> None:
        at_least(self, num_cpus=1, num_gpus=0, object_store_mb=80)
        if self.address == "" or "://" in (self.address or ""):
            raise ValueError(
                f"address = {self.address!r}, wanted auto, local or HOST:PORT (Ray Client is not used: submit a job)"
            )

    def locations(self) -> tuple[str, str]:
        """Absolute storage and tracking URI, with the environment's defaults; starts nothing.

        Raises:
            ValueError: a tracking URI that MLflow would not take, or none where the storage holds no database.
        """
        storage = absolute_storage(self.storage or os.environ.get("DAS_STORAGE") or "runs")
        return storage, absolute_tracking_uri(self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"), storage)


@dataclass(frozen=True)
class Cluster:
    """The cluster a driver is connected to, and the absolute addresses that its workers are given."""

    storage: str
    """Absolute path, or the URI of object storage."""
    tracking_uri: str
    """MLflow store, valid from any folder and, on several nodes, from any node; "" for a job without one."""
    embedded: bool
    """Started by ``connect``, and gone when the driver ends."""
    nodes: int
    """Nodes that are alive now."""


def connect(config: ClusterConfig | None = None, out: str | None = None) -> Cluster:
    """Starts or joins Ray and returns the absolute addresses; a second call reuses the connection.

    Args:
        config: where to run.
        out: absolute place of a job that writes there alone, without runs and MLflow: it is the storage then.

    Raises:
        ValueError: an address, storage or tracking URI that cannot work, each in one line.
        ConnectionError: nothing answers at the address.
    """
    config = config or ClusterConfig()
    # Faults in them are told before Ray's seconds of start-up.
    storage, tracking_uri = config.locations() if out is None else (out, "")
    embedded = not ray.is_initialized() and _start_or_join(config)
    alive = [node for node in ray.nodes() if node["Alive"]]
    if not config.shared_storage:
        name = "storage" if out is None else "out"
        _refuse_local_on_many(name, storage, tracking_uri, len(alive), [] if embedded else autoscaler_nodes())
    return Cluster(storage, tracking_uri, embedded, len(alive))


def _start_or_join(config: ClusterConfig) -> bool:
    """Calls ray.init; True when that started a new local Ray."""
    # RAY_ADDRESS is also set by Ray around a submitted job's driver.
    environment = os.environ.get("RAY_ADDRESS", "")
    address = config.address or ("auto" if environment else "local")
    if address == "auto" and "://" in environment:
        raise ValueError(
            f"RAY_ADDRESS = {environment!r}, wanted HOST:PORT or nothing (`ray job submit` takes a dashboard's)"
        )
    embedded = address == "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {}
    known = environment if address == "auto" else address
    if embedded:
        known = _fixed_address()
        # Ray lowers its workers' priority in favour of the machine's other users; here they are the job.
        os.environ.setdefault("RAY_worker_niceness", "0")
        if "RAY_AUTH_MODE" not in os.environ:
            # Ray's ports listen on every interface, so a new local Ray demands a token by default, which it
            # would keep in the home folder and thereby switch on for every later cluster. One made here
            # lives as long as this process.
            os.environ.setdefault("RAY_AUTH_TOKEN", uuid.uuid4().hex)
        options = {
            "num_cpus": config.num_cpus,
            "num_gpus": config.num_gpus,
            "object_store_memory": config.object_store_mb << 20,
            "include_dashboard": config.dashboard,
        }
    elif config.num_cpus is not None or config.num_gpus is not None:
        raise ValueError("num_cpus and num_gpus belong to an embedded Ray, but this job joins a cluster")
    ray.init(
        address=address,
        runtime_env={"env_vars": worker_environment(os.environ, known)},
        log_to_driver=config.worker_logs,
        logging_level=logging.ERROR,  # the banner and the remark about token mode are no news to the user
        **options,
    )
    os.environ.pop(_GCS_PORT, None)
    logging.getLogger("ray").setLevel(logging.WARNING)
    return embedded


def _fixed_address() -> str:
    """HOST:PORT that a Ray started by this process will have: what its workers are told of it."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    os.environ[_GCS_PORT] = str(port)
    return f"{ray.util.get_node_ip_address()}:{port}"


def worker_environment(environment: Mapping[str, str], address: str = "") -> dict[str, str]:
    """Variables for worker processes: where Ray is, where to import the project from, and no usage reports.

    Ray's own helpers in worker processes look for the Ray of this machine, and where there are two they may ask
    the other one: the watchdog that frees the resources of a stopped training then frees nothing.

    Inside a submitted job whose working folder Ray has shipped to all nodes, the project is imported from
    there. Variables that the job already sets are left alone; Ray refuses to set one twice.
    """
    job = json.loads(environment.get(_JOB_CONFIG) or "{}").get("runtime_env") or {}
    wanted = {"MLFLOW_DISABLE_TELEMETRY": "true", **({"RAY_ADDRESS": address} if address else {})}
    if "working_dir" not in job:
        folders = [str(PROJECT), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        wanted["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(folders))
    return {name: value for name, value in wanted.items() if name not in job.get("env_vars", {})}


def absolute_storage(storage: str) -> str:
    """Local paths made absolute (file:// dropped, ~ expanded); URIs of object storage as they are."""
    if storage.startswith("file://"):
        storage = storage.removeprefix("file://")
    return storage.rstrip("/") if "://" in storage else str(Path(storage).expanduser().resolve())


def _refuse_local_on_many(name: str, storage: str, tracking_uri: str, alive: int, growth: Nodes) -> None:
    """ValueError where workers on other nodes could not reach the driver's folders."""
    if alive < 2 and not any(count for _, count in growth):
        return
    size = f"{alive} nodes" if alive > 1 else "an autoscaler that adds nodes"
    if "://" not in storage:
        raise ValueError(
            f"{name} = {storage!r} is a folder of one machine, but the cluster has {size}: "
            "wanted object storage such as s3://bucket/path, or shared_storage if the folder is mounted on all"
        )
    if tracking_uri and MlflowStore(tracking_uri).database is not None:
        raise ValueError(
            f"tracking_uri = {tracking_uri!r} is a file of one machine, but the cluster has {size}: "
            "wanted an MLflow server such as http://HEAD:5000"
        )


def preflight(
    workers: int,
    resources_per_worker: Mapping[str, float],
    trials: int = 1,
    spare_cpus: float = 0.0,
    bootstrap: Path = BOOTSTRAP,
) -> int:
    """How many of the trials can run at once, 1 to ``trials``; nodes that an autoscaler may still add count.

    Args:
        workers: training workers of one trial, each within one node.
        resources_per_worker: for example {"CPU": 2, "GPU": 1}.
        trials: how many trials are wanted; a plain training is one.
        spare_cpus: CPUs that one trial needs beside its workers, for reading and decoding. Without them the
            workers wait for data that waits for CPUs.
        bootstrap: the autoscaler's description of its node types.

    Raises:
        ValueError: not even one trial fits; says what is asked for and what the cluster has.
    """
    asked = {name: amount for name, amount in resources_per_worker.items() if amount > 0}
    if workers < 1 or trials < 1 or not asked:
        raise ValueError(
            f"workers = {workers}, trials = {trials}, resources_per_worker = {dict(resources_per_worker)}, "
            "wanted at least 1 worker, 1 trial and one resource above 0"
        )
    nodes = [(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]
    grown = autoscaler_nodes(bootstrap)
    if grown:
        # Live workers may have come from the autoscaler already: beside its full size only the head counts.
        largest = [(node, count) for node, count in nodes if "node:__internal_head__" in node] + grown
        nodes = max(largest, nodes, key=lambda candidate: _trials_that_fit(candidate, workers, asked, spare_cpus))
    fit = _trials_that_fit(nodes, workers, asked, spare_cpus)
    if fit == 0:
        raise ValueError(_refusal(nodes, workers, asked, spare_cpus))
    return min(fit, trials)


def _places(nodes: Nodes, asked: Mapping[str, float]) -> int:
    """Workers that the nodes can hold; no worker spans two."""
    slack = 1e-6  # resources are decimal fractions: 0.3 / 0.1 is 3
    return sum(count * min(int(node.get(r, 0) / need + slack) for r, need in asked.items()) for node, count in nodes)


def _trials_that_fit(nodes: Nodes, workers: int, asked: Mapping[str, float], spare_cpus: float) -> int:
    cpus = sum(node.get("CPU", 0) * count for node, count in nodes)
    cpus_per_trial = workers * asked.get("CPU", 0) + spare_cpus
    by_cpus = int(cpus / cpus_per_trial + 1e-6) if cpus_per_trial else _places(nodes, asked)
    return min(_places(nodes, asked) // workers, by_cpus)


def _refusal(nodes: Nodes, workers: int, asked: Mapping[str, float], spare_cpus: float) -> str:
    """One line: what one trial asks for, and what there is of just these resources."""
    names = list(asked) + (["CPU"] if spare_cpus and "CPU" not in asked else [])
    totals = {name: sum(node.get(name, 0) * count for node, count in nodes) for name in names}
    plural = "s" if workers > 1 else ""
    wanted = f"{workers} worker{plural} x {_amounts(asked)}" + (f" + {spare_cpus:g} CPU for data" if spare_cpus else "")
    line = f"asks for {wanted}, the cluster has {_amounts(totals)}"
    enough = all(totals[name] >= need * workers for name, need in asked.items())
    places = _places(nodes, asked)
    return f"{line}, whose nodes have room for {places} of them" if enough and places < workers else line


def _amounts(resources: Mapping[str, float]) -> str:
    return " + ".join(f"{amount:g} {name}" for name, amount in resources.items())


def autoscaler_nodes(bootstrap: Path = BOOTSTRAP) -> Nodes:
    """Every worker type that ``ray up`` lets the autoscaler add, with its largest number; empty elsewhere."""
    path = bootstrap.expanduser()
    if not path.is_file():
        return []
    config = yaml.safe_load(path.read_text())
    most = config["max_workers"]
    return [
        (kind.get("resources", {}), min(kind.get("max_workers", most), most))
        for name, kind in config["available_node_types"].items()
        if name != config["head_node_type"]
    ]

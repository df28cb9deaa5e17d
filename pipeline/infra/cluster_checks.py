"""Checks of a cluster before a job reads anything, and on their own as `das doctor cluster`.

A fault stops the job: too few resources, a storage that a node cannot write, an MLflow server that does not answer, a
node that lacks the project or cannot read the data. A remark does not: resources that other jobs hold, nodes that an
autoscaler must start first, an object store too small for tasks that read for workers, versions that differ. On a
running cluster a task that reserves nothing looks from every node; a local Ray is this machine alone, which is looked
at without starting Ray.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.infra.cluster import ClusterConfig, connect, joins, shipped_folder
from pipeline.infra.code_version import code_version
from pipeline.infra.files import STAGED, delete, folders_restored, join, read_bytes, write_bytes
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.infra.ray_jobs import held
from pipeline.infra.redaction import redacted
from pipeline.infra.resources import Needs, node_groups, preflight

PATIENCE = 60.0
"""Seconds within which every node must have looked."""
UPLOAD_LIMIT = 100 << 20
"""Bytes of a shipped folder that Ray's job server takes, compressed."""


@dataclass(frozen=True)
class Places:
    """What every node must reach; it is sent to all of them.

    Attributes:
        storage: absolute folder or URI that is written to.
        tracking_uri: MLflow store; "" for a job without MLflow.
        experiment: its experiment, which gets a tag if it exists.
        readable: called on every node; returns what is wrong with the data, each in a sentence.
        name: of the storage in messages.
    """

    storage: str
    tracking_uri: str = ""
    experiment: str = "das"
    readable: Callable[[], list[str]] | None = None
    name: str = "storage"


@dataclass
class Findings:
    """Sentences about a cluster: what is good, what does not stop a job, and what does."""

    good: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One a sentence, the worst last."""
        marked = (("ok", self.good), ("note", self.remarks), ("fault", self.faults))
        return [f"{mark:<6}{redacted(text)}" for mark, texts in marked for text in texts]

    def status(self) -> int:
        """Exit status: 0 all good, 1 with remarks, 2 with a fault."""
        return 2 if self.faults else 1 if self.remarks else 0


def check_start(config: ClusterConfig, needs: Needs, places: Places) -> None:
    """Looks at the cluster before a job reads anything; prints remarks.

    Raises:
        ValueError: a fault, in one line.
        ConnectionError: no Ray at the address.
    """
    found = Findings()
    if joins(config):
        check_cluster(config, needs, places, found)
    else:
        look(places, found)
    for remark in found.remarks:
        print(f"cluster: {redacted(remark)}")
    if found.faults:
        raise ValueError("; ".join(found.faults))


def check_cluster(config: ClusterConfig, needs: Needs, places: Places, found: Findings, store_mb: float = 0.0) -> None:
    """Connects, and looks at resources, nodes, places and upload.

    Args:
        config: where the job would run.
        needs: what it reserves.
        places: what every node must reach.
        found: gets the sentences.
        store_mb: wanted size of all object stores together, MB; 0 where nothing of the job's lies there.
    """
    connected = connect(config, places.storage if not places.tracking_uri else None)
    _check_resources(needs, found)
    _check_object_store(store_mb, found)
    if connected.embedded:
        look(places, found)
    else:
        _check_nodes(places, found)
    _check_upload(found)


def look(places: Places, found: Findings) -> None:
    """Looks at the places from this process."""
    faults = _faults_of(places)
    found.faults += faults
    if not faults:
        found.good.append(f"{places.name} {places.storage} can be written")
        if places.tracking_uri:
            found.good.append(f"MLflow at {places.tracking_uri} answers")


# ---- resources ----


def _check_resources(needs: Needs, found: Findings) -> None:
    import ray

    total, free, asked = ray.cluster_resources(), ray.available_resources(), needs.total()
    groups = node_groups()
    for name, (resources, most) in groups.items():
        each = " + ".join(f"{amount:g} {resource}" for resource, amount in resources.items()) or "unknown resources"
        found.good.append(f"group {name}: the autoscaler may start up to {most} nodes of {each}")
    try:
        preflight(needs.workers, needs.per_worker, spare_cpus=needs.spare_cpus)
    except ValueError as error:
        found.faults.append(str(error))
        return
    for name, amount in asked.items():
        have, idle = total.get(name, 0.0), free.get(name, 0.0)
        if amount <= idle + 1e-6:
            found.good.append(f"{name}: {amount:g} asked, {idle:g} of {have:g} free")
        elif amount > have + 1e-6:
            text = f"{name}: {amount:g} asked, the cluster has {have:g} now: the autoscaler must start nodes first"
            found.remarks.append(text)
        else:
            holders = sorted(held(name).items(), key=lambda item: -item[1])
            by = ", ".join(f"{job}: {count:g}" for job, count in holders) or "jobs that Ray's state API does not tell"
            text = f"waiting for {amount - idle:g} {name} ({amount:g} asked, {idle:g} of {have:g} free), held by {by}"
            found.remarks.append(text)


def _check_object_store(wanted_mb: float, found: Findings) -> None:
    import ray

    have = ray.cluster_resources().get("object_store_memory", 0.0) / 1e6
    text = f"object store: {have:.0f} MB"
    if have < wanted_mb:
        found.remarks.append(f"{text}, less than the {wanted_mb:.0f} MB that decode_on = cluster fills: disks are used")
    else:
        found.good.append(text)


# ---- nodes ----


def _check_nodes(places: Places, found: Findings) -> None:
    """One task on every node, which looks at the places and tells its versions."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_look_from_node)
    tasks = {}
    for node in ray.nodes():
        if node["Alive"]:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            tasks[task.options(scheduling_strategy=strategy).remote(places)] = node["NodeManagerAddress"]
    done, waiting = ray.wait([*tasks], num_returns=len(tasks), timeout=PATIENCE)
    own = versions()
    faults: dict[str, list[str]] = {}  # with the nodes that have it
    if waiting:
        faults[f"no answer within {PATIENCE:g} s"] = [tasks[one] for one in waiting]
    for one in done:
        try:
            theirs, seen = ray.get(one)
        except ray.exceptions.RayError as error:
            theirs, seen = {}, [_last_line(error)]
        for fault in seen:
            faults.setdefault(fault, []).append(tasks[one])
        for name, version in theirs.items():
            if version != own.get(name):
                found.remarks.append(f"node {tasks[one]}: {name} {version}, but {own.get(name)} where the job starts")
    for fault, nodes in faults.items():
        found.faults.append(fault if len(nodes) == len(tasks) else f"node {', '.join(nodes)}: {fault}")
    if not faults:
        count = f"{len(done)} node{'s' if len(done) > 1 else ''}"
        found.good.append(f"{count}: {places.name} {places.storage} can be written")
        if places.tracking_uri:
            found.good.append(f"{count}: MLflow at {places.tracking_uri} answers")
        found.good.append(f"versions: {', '.join(f'{name} {version}' for name, version in own.items())}")


def _look_from_node(places: Places) -> tuple[dict[str, str], list[str]]:
    return versions(), _faults_of(places)


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def versions() -> dict[str, str]:
    """Versions that must be equal on all nodes, of this process."""
    found = {"python": platform.python_version()}
    for package in ("ray", "torch", "mlflow"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return {**found, "project": code_version()}


# ---- places ----


def _faults_of(places: Places) -> list[str]:
    """What is wrong with the places, seen from this process."""
    faults = []
    if (text := _write_fault(places.storage)) is not None:
        faults.append(f"{places.name} {redacted(places.storage)} cannot be written: {text}")
    if places.tracking_uri and (text := _tracking_fault(places)) is not None:
        faults.append(text)
    return faults + (places.readable() if places.readable else [])


def _write_fault(storage: str) -> str | None:
    """Why a small file cannot be written and read there; None if it can. Folders made for it are removed again."""
    probe, data = join(storage, f"{STAGED}doctor-{uuid.uuid4().hex}"), os.urandom(16)
    try:
        with folders_restored(storage):
            write_bytes(probe, data)
            same = read_bytes(probe) == data
            delete(probe)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return " ".join(redacted(reason).split())
    return None if same else "what is read is not what was written"


def _tracking_fault(places: Places) -> str | None:
    store = MlflowStore(places.tracking_uri)
    if store.database is not None:
        text = _write_fault(str(store.database.parent))
        return text and f"tracking_uri {redacted(store.uri)} cannot be written: {text}"
    try:
        store.check(places.experiment, f"{time.time():.0f}")
    except (ConnectionError, ValueError) as error:
        return str(error)
    return None


# ---- upload ----


def _check_upload(found: Findings) -> None:
    folder = shipped_folder()
    if folder is None:
        return
    sizes: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            top = path.relative_to(folder).parts[0]
            sizes[top] = sizes.get(top, 0) + path.stat().st_size
    total = sum(sizes.values())
    text = f"upload: {total / 1e6:.1f} MB of at most {UPLOAD_LIMIT / 1e6:.0f} MB"
    if total > UPLOAD_LIMIT / 2:
        largest = ", ".join(sorted(sizes, key=lambda name: -sizes[name])[:3])
        found.remarks.append(f"{text}, most of it in {largest}: list in .rayignore what the job does not need")
    else:
        found.good.append(text)

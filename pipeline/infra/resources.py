"""Resources: those that a job needs, those of the cluster, and those that an autoscaler may add.

``preflight`` compares them, because Ray itself waits silently for resources that the cluster does not have.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""File that ``ray up`` writes on a head node, with the node types that the autoscaler may add."""

Nodes = list[tuple[dict[str, float], int]]
"""(Resources of one node, number of such nodes)."""

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Needs:
    """What a job reserves.

    Attributes:
        workers: training or predicting processes; each needs its resources on one node.
        per_worker: for example {"CPU": 2, "GPU": 1}.
        spare_cpus: CPUs besides, for reading and decoding.
    """

    workers: int
    per_worker: Mapping[str, float]
    spare_cpus: float = 0.0

    def total(self) -> dict[str, float]:
        """All of it together, by resource."""
        amounts = {name: self.workers * amount for name, amount in self.per_worker.items() if amount > 0}
        return {**amounts, "CPU": amounts.get("CPU", 0.0) + self.spare_cpus} if self.spare_cpus else amounts


def preflight(
    workers: int,
    resources_per_worker: Mapping[str, float],
    trials: int = 1,
    spare_cpus: float = 0.0,
    bootstrap: Path = BOOTSTRAP,
) -> int:
    """Number of trials that can run at once, 1 to ``trials``; includes nodes that an autoscaler may still add.

    Args:
        workers: training workers of one trial; each needs its resources on one node.
        resources_per_worker: for example {"CPU": 2, "GPU": 1}.
        trials: wanted number of trials; 1 for a plain training.
        spare_cpus: CPUs that one trial needs besides its workers, for reading and decoding. Without them training
            would block: workers wait for data, and reading waits for CPUs that the workers hold.
        bootstrap: the autoscaler's file of node types.

    Raises:
        ValueError: not even one trial fits; names the needed resources and those of the cluster.
    """
    import ray

    needed = {name: amount for name, amount in resources_per_worker.items() if amount > 0}
    if workers < 1 or trials < 1 or not needed:
        raise ValueError(
            f"workers = {workers}, trials = {trials}, resources_per_worker = {dict(resources_per_worker)}, "
            "wanted at least 1 worker, 1 trial and one resource above 0"
        )
    nodes = [(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]
    grown = autoscaler_nodes(bootstrap)
    if grown:
        # The autoscaler may have added some of the live nodes, so its largest size is counted with the head alone.
        full_size = [(node, count) for node, count in nodes if "node:__internal_head__" in node] + grown
        nodes = max(full_size, nodes, key=lambda candidate: _trials_that_fit(candidate, workers, needed, spare_cpus))
    fit = _trials_that_fit(nodes, workers, needed, spare_cpus)
    if fit == 0:
        raise ValueError(_refusal(nodes, workers, needed, spare_cpus))
    return min(fit, trials)


def _places(nodes: Nodes, needed: Mapping[str, float]) -> int:
    """Number of workers that fit on the nodes, each within one node."""
    slack = 1e-6  # 0.3 / 0.1 must be 3, but is slightly less in floating point
    return sum(count * min(int(node.get(r, 0) / need + slack) for r, need in needed.items()) for node, count in nodes)


def _trials_that_fit(nodes: Nodes, workers: int, needed: Mapping[str, float], spare_cpus: float) -> int:
    cpus = sum(node.get("CPU", 0) * count for node, count in nodes)
    cpus_per_trial = workers * needed.get("CPU", 0) + spare_cpus
    by_cpus = int(cpus / cpus_per_trial + 1e-6) if cpus_per_trial else _places(nodes, needed)
    return min(_places(nodes, needed) // workers, by_cpus)


def _refusal(nodes: Nodes, workers: int, needed: Mapping[str, float], spare_cpus: float) -> str:
    """One line with the needed resources of one trial and the cluster's total of the same resources."""
    names = list(needed) + (["CPU"] if spare_cpus and "CPU" not in needed else [])
    totals = {name: sum(node.get(name, 0) * count for node, count in nodes) for name in names}
    plural = "s" if workers > 1 else ""
    wanted = f"{workers} worker{plural} x {_amounts(needed)}" + (
        f" + {spare_cpus:g} CPU for data" if spare_cpus else ""
    )
    line = f"needs {wanted}, the cluster has {_amounts(totals)}"
    enough = all(totals[name] >= need * workers for name, need in needed.items())
    places = _places(nodes, needed)
    return f"{line}, whose nodes have room for {places} of them" if enough and places < workers else line


def _amounts(resources: Mapping[str, float]) -> str:
    return " + ".join(f"{amount:g} {name}" for name, amount in resources.items())


def autoscaler_nodes(bootstrap: Path = BOOTSTRAP) -> Nodes:
    """Resources and largest number of each worker type that an autoscaler may start; empty without one."""
    return list(node_groups(bootstrap).values())


def node_groups(bootstrap: Path = BOOTSTRAP) -> dict[str, tuple[dict[str, float], int]]:
    """Name -> resources and largest number of the node types that ``ray up`` or KubeRay may start; empty without them.

    ``ray up`` writes them into a file on the head. KubeRay's are in its RayCluster, which the head's pod may read where
    its autoscaler is on.
    """
    path = bootstrap.expanduser()
    if path.is_file():
        config = yaml.safe_load(path.read_text())
    else:
        config = _kuberay_config()
    if not config:
        return {}
    most = config["max_workers"]
    return {
        name: (kind.get("resources", {}), min(kind.get("max_workers", most), most))
        for name, kind in config["available_node_types"].items()
        if name != config["head_node_type"]
    }


def _kuberay_config() -> dict[str, Any]:
    """The RayCluster around this pod as Ray's autoscaler reads it; empty without KubeRay or without an autoscaler."""
    name = os.environ.get("RAY_CLUSTER_NAME")
    if not name or not _NAMESPACE.is_file():
        return {}
    import requests
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    try:
        cluster = KubernetesHttpApiClient(_NAMESPACE.read_text().strip()).get(f"rayclusters/{name}")
    except (requests.RequestException, OSError):
        return {}  # KubeRay gives the right to read it together with the autoscaler
    return kuberay_config(cluster)


def kuberay_config(cluster: dict[str, Any]) -> dict[str, Any]:
    """Node types of a RayCluster in the form of ``ray up``; empty where its autoscaler is off."""
    if not cluster["spec"].get("enableInTreeAutoscaling"):
        return {}
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    config: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(cluster)
    return config

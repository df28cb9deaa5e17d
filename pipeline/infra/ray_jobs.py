"""The jobs of the Ray cluster that this process is connected to: which ones run, and what they hold.

Everything here is read from Ray's state API, which a cluster without a dashboard does not have; then nothing is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from pipeline.infra.cluster import submitted_with
from pipeline.infra.redaction import redacted

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_MOST = 10_000  # entries that are read of each kind


def this_ray_job() -> dict[str, str]:
    """Node, job and name of this process in Ray, as JSON; empty outside of Ray. The name is the submission's id."""
    import ray

    if not ray.is_initialized():
        return {}
    context = ray.get_runtime_context()
    job = context.get_job_id()
    submission = submitted_with().get("metadata", {}).get("job_submission_id")
    return {"node": context.get_node_id(), "job": job, "name": submission or job}


def has_ended_in_ray(process: Mapping[str, str]) -> bool:
    """Whether the node or the job of a ``this_ray_job`` is known to this cluster and known to have ended."""
    import ray

    if not process or not ray.is_initialized():
        return False
    alive = {node["NodeID"]: node["Alive"] for node in ray.nodes()}
    if process["node"] not in alive:
        return False
    return not alive[process["node"]] or any(
        job.job_id == process["job"] and job.status in _ENDED for job in _listed("jobs")
    )


def held(resource: str) -> dict[str, float]:
    """Amounts of a resource that are reserved now, by a line about the job that holds them; this process is left out.

    Placement groups count whole; of actors and tasks those count that are in no placement group.
    """
    import ray

    own = ray.get_runtime_context().get_job_id()
    amounts: defaultdict[str, float] = defaultdict(float)
    for group in _listed("placement_groups"):
        if group.state == "CREATED":
            bundles = (bundle.get("unit_resources", bundle) for bundle in group.bundles or [])
            amounts[group.creator_job_id] += sum(float(bundle.get(resource, 0)) for bundle in bundles)
    for entry in (*_listed("actors"), *_listed("tasks")):
        running = entry.state in ("ALIVE", "RUNNING") and getattr(entry, "type", "") != "ACTOR_TASK"
        if running and not entry.placement_group_id:
            amounts[entry.job_id] += float((entry.required_resources or {}).get(resource, 0))
    lines = _job_lines()
    return {lines.get(job, f"job {job}"): amount for job, amount in amounts.items() if amount and job != own}


def _job_lines() -> dict[str, str]:
    """Job id -> the job as a person knows it."""
    found = {}
    for job in _listed("jobs"):
        if job.job_id:
            words = redacted(" ".join((job.entrypoint or "").split()))
            short = words if len(words) <= 80 else words[:77] + "..."
            place = f", process {job.driver_info.pid} on {job.driver_info.node_ip_address}" if job.driver_info else ""
            found[job.job_id] = f"job {job.submission_id or job.job_id} ({short}{place})"
    return found


def _listed(kind: str) -> list[Any]:
    from ray.util import state
    from ray.util.state.exception import RayStateApiException

    try:
        return list(getattr(state, f"list_{kind}")(limit=_MOST, detail=True, raise_on_missing_output=False))
    except (RayStateApiException, OSError):
        return []

"""Runs a model on the connected cluster: predictions for all images of a split, and the cost of one image.

Workers get the model through Ray's object store, so no node needs the checkpoint's folder.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.util.annotations import RayDeprecationWarning
from tqdm import tqdm

from das.camera import ASSUMED_FOV_DEGREES, intrinsics_from_fov
from das.model import DAS
from das.model_info import ModelInfo
from das.predictor import Predictor
from pipeline.data.ray_rows import quiet_context
from pipeline.data.record import Record
from pipeline.data.shards import find_records
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.benchmark.latency import measure
from pipeline.evaluation.benchmark.runtime import Runtime
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.part_predictor import PartPredictor
from pipeline.evaluation.parts import Part, assemble, parts_of, too_many
from pipeline.evaluation.predictions_file import PREDICTIONS_FILE, Provenance
from pipeline.infra.files import join, names
from pipeline.infra.redaction import redacted
from pipeline.infra.resources import autoscaler_nodes, preflight

# How often lost processes are replaced. Without an end, an image that kills its process would do so for ever.
_RETRIES = 3
# More than any cluster holds.
_ALL_WORKERS = 1 << 20
# More threads than these decode faster than any GPU predicts.
_MOST_CPUS = 16


def predict_split(
    annotations: Annotations,
    provenance: Provenance,
    model: Any,
    config: EvaluateConfig,
    workers: int,
    cpus: int,
    folder: str,
    out: str,
) -> None:
    """Predicts every image and writes the predictions file; goes on after the parts that an earlier attempt finished.

    Args:
        annotations: the images.
        provenance: stored with the predictions; its ``least_score`` is the score threshold.
        model: reference to (DAS, ModelInfo) in Ray's object store.
        config: batch size, device, and how many images may stay in quarantine.
        workers: from ``worker_count``: the most processes; the cluster may grow to them meanwhile.
        cpus: of each of them.
        folder: of the parts (parts.py), on a storage that all nodes reach.
        out: where the predictions file is written.

    Raises:
        ValueError: more than ``config.max_quarantine`` images cannot be predicted, a shard cannot be read, or from
            ``assemble``.
        ChildProcessError: processes were lost time and again.
    """
    parts = parts_of(annotations)
    for attempt in range(_RETRIES + 1):
        finished = {*names(folder)}
        waiting = [number for number, part in enumerate(parts) if part.name not in finished]
        if not waiting:
            break
        # What came first has perhaps ended its process: it comes last now, so that the others are finished.
        waiting = waiting[attempt:] + waiting[:attempt]
        try:
            _predict_parts(parts, waiting, folder, provenance.least_score, model, config, workers, cpus)
        except ray.exceptions.RayActorError as error:
            if attempt == _RETRIES:
                raise ChildProcessError(_lost(parts, {*names(folder)})) from error
    quarantine = assemble(
        folder, parts, annotations.keys, provenance, join(out, PREDICTIONS_FILE), config.max_quarantine
    )
    if len(quarantine) == len(annotations.index):
        key, reason = next(iter(quarantine.items()))
        raise ValueError(f"{annotations.name}: no image can be predicted, such as {key}: {reason}")


def _predict_parts(
    parts: Sequence[Part],
    waiting: Sequence[int],
    folder: str,
    threshold: float,
    model: Any,
    config: EvaluateConfig,
    workers: int,
    cpus: int,
) -> None:
    """Predicts the parts of these numbers; arguments as in ``predict_split`` and ``PartPredictor``.

    Raises:
        ValueError: as ``predict_split``.
        RayActorError: a process was lost, for the last time where Ray replaces it.
    """
    _quiet()
    workers = min(workers, len(waiting))
    rows = ray.data.from_items([{"part": number} for number in waiting], override_num_blocks=len(waiting))
    # Ray replaces processes where nodes come and go. For every process that it would replace it prints a warning, so
    # on a single node the next attempt of ``predict_split`` does. Ray 2.64 will remove the option, and perhaps this.
    single = len(ray.nodes()) == 1 and not autoscaler_nodes()
    restarts = {"max_restarts": 0} if single else {"max_restarts": -1, "max_task_retries": _RETRIES}
    with warnings.catch_warnings(action="ignore", category=RayDeprecationWarning):
        done = rows.map_batches(
            PartPredictor,
            fn_constructor_args=(model, ray.put(parts), folder, threshold, config.batch_size, config.gpu, cpus),
            batch_size=1,
            # All are asked for at once, so that an autoscaler starts their nodes; work begins with the first.
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
            num_cpus=cpus,
            num_gpus=1 if config.gpu else 0,
            **restarts,
        )
    images, held = sum(part.rows for part in parts), 0
    before = images - sum(parts[number].rows for number in waiting)
    try:
        with tqdm(total=images, initial=before, unit=" images", delay=2, desc="predict") as bar:
            for row in done.iter_rows():
                bar.update(int(row["images"]))
                held += int(row["quarantined"])
                if held > config.max_quarantine:
                    raise too_many(held, config.max_quarantine, row["example"])
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, ValueError):
            raise
        # One line that names the shard, without the worker's stack and Ray's advice about retrying.
        raise ValueError(str(error.cause).splitlines()[0]) from error


def _lost(parts: Sequence[Part], finished: Collection[str]) -> str:
    left = [part for part in parts if part.name not in finished]
    where = f", the first that is left is of row groups {left[0].groups} of {redacted(left[0].shard)}" if left else ""
    return (
        f"processes that predict were lost {_RETRIES + 1} times, for want of memory or by an image that ends them: "
        f"{len(parts) - len(left)} of {len(parts)} parts are finished and kept for the next attempt{where}"
    )


def _quiet() -> None:
    """Switches off Ray Data's log lines about plans and progress bars, and about errors that are raised anyway."""
    quiet_context()
    for name in ("_internal.progress", "_internal.execution.streaming_executor_state", "exceptions"):
        logging.getLogger(f"ray.data.{name}").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().raise_original_map_exception = True


def worker_count(wanted: int, gpu: bool, cpus: int = 1) -> int:
    """The most processes: as wanted; for 0 one for every GPU, or as many as leave one CPU free.

    Counted are the nodes that are alive and those that an autoscaler may add.

    Raises:
        ValueError: the cluster cannot hold so many.
    """
    per_worker = {"CPU": float(cpus), "GPU": 1.0 if gpu else 0.0}
    # One CPU stays free for the driver, which assembles and scores.
    preflight(max(1, wanted), per_worker, spare_cpus=1.0)
    if wanted:
        return wanted
    most = preflight(1, per_worker, trials=_ALL_WORKERS)
    return most if gpu else max(1, most - 1)


def default_cpus(gpu: bool) -> int:
    """CPUs of a process: one, or with a GPU its share of the CPUs of the smallest kind of node, less one of them."""
    if not gpu:
        return 1
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes += [resources for resources, count in autoscaler_nodes() if count]
    shares = [int((node.get("CPU", 0) - 1) // node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1]
    return min([_MOST_CPUS, *(max(1, share) for share in shares)]) if shares else 1


def runtime_on(
    annotations: Annotations, model: Any, images: int, threshold: float, batch_size: int, gpu: bool
) -> Runtime:
    """Latency, throughput and memory on evenly spread images, in a process with one CPU and, if ``gpu``, a GPU.

    One CPU, as every predicting actor has. Threads of one process wait for each other at every operation: with two
    threads on two busy cores a latency of 20 ms was measured as 800 ms.

    Args:
        annotations: where the images come from.
        model: reference to (DAS, ModelInfo) in Ray's object store.
        images: number of images to time.
        threshold: score threshold; decoding takes longer for more people.
        batch_size: for the throughput.
        gpu: measure on a GPU.
    """
    records = spread_images(annotations, images)
    task = ray.remote(num_cpus=1, num_gpus=1 if gpu else 0)(_measure)
    found: Runtime = ray.get(task.remote(model, records, "cuda" if gpu else "cpu", threshold, batch_size))
    return found


def spread_images(annotations: Annotations, count: int) -> list[Record]:
    """At most ``count`` images, spread evenly over the data, with their pixels."""
    keys = annotations.keys
    even = np.linspace(0, len(keys) - 1, min(count, len(keys)), dtype=int)
    return [*find_records(annotations.shards, {keys[i] for i in even}).values()]


def images_and_cameras(records: Sequence[Record]) -> tuple[list[bytes], list[np.ndarray], list[np.ndarray]]:
    """Encoded images, (3, 3) intrinsics and (5,) distortion of each; unknown cameras get an assumed field of view."""
    cameras = [intrinsics_from_fov(r.width, r.height, ASSUMED_FOV_DEGREES) if r.K is None else r.K for r in records]
    lenses = [np.zeros(5) if record.distortion is None else record.distortion for record in records]
    return [record.image for record in records], cameras, lenses


def _measure(
    model: tuple[DAS, ModelInfo], records: list[Record], device: str, threshold: float, batch_size: int
) -> Runtime:
    """The body of the Ray task of ``runtime_on``."""
    torch.set_num_threads(1)
    predictor = Predictor(*model, device=device, threshold=threshold)
    return measure(predictor, *images_and_cameras(records), batch_size)

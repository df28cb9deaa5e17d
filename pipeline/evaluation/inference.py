"""Runs a model on the connected cluster: predictions for all images of a split, and the cost of one image.

Workers get the model through Ray's object store, so no node needs the checkpoint's folder.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from pipeline.data.ray_rows import read_split
from pipeline.data.record import Record, decode_image
from pipeline.data.schema import from_row
from pipeline.data.shards import find_records
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.benchmark.latency import measure
from pipeline.evaluation.benchmark.runtime import Runtime
from pipeline.evaluation.predictions_file import PredictionSet, Provenance, collect
from pipeline.infra.resources import preflight


class BatchPredictor:
    """Prepared rows to people, for Ray Data: ``rows.map_batches(BatchPredictor, batch_format="pyarrow", ...)``.

    Its output has one row per person, so that all columns have a fixed shape; an image without people has none.

        key           the image's key
        rank          0 for the image's best score
        score         confidence x centerness
        joints_uv     (J, 2) float32, pixels of the stored image
        joints_cam    (J, 3) float32, mm, camera frame
        root_uv       (2,), root_cam (3,) float32
        assumed_camera  bool, the row has no K

    Args:
        folder: checkpoint folder, readable on every node.
        device: cpu or cuda.
        bf16: see ``Predictor``.
        threshold: replaces the checkpoint's score threshold.
    """

    def __init__(self, folder: str, device: str = "cpu", bf16: bool = False, threshold: float | None = None) -> None:
        self.predictor = Predictor.from_folder(folder, device, bf16, threshold)

    def __call__(self, batch: Any) -> dict[str, np.ndarray]:
        """A pyarrow Table of prepared rows to columns of people; ValueError names a row that cannot be read."""
        records = [from_row(row) for row in batch.to_pylist()]
        images = [decode_image(record) for record in records]
        predictions = self.predictor.predict_batch(
            images, [record.K for record in records], [record.distortion for record in records]
        )
        people = [prediction.people for prediction in predictions]
        counts = [len(found) for found in people]

        def column(name: str) -> np.ndarray:
            return np.concatenate([getattr(found, name) for found in people]).astype(np.float32)

        return {
            "key": np.repeat(np.array([record.key for record in records], dtype=object), counts),
            "rank": np.concatenate([np.arange(n) for n in counts]),
            "score": column("scores"),
            **{name: column(name) for name in ("joints_uv", "joints_cam", "root_uv", "root_cam")},
            "assumed_camera": np.repeat(np.array([p.assumed_camera for p in predictions]), counts),
        }


class ObjectStorePredictor(BatchPredictor):
    """A ``BatchPredictor`` that takes its model, a reference to (DAS, ModelInfo), from Ray's object store."""

    def __init__(self, model: Any, device: str, threshold: float) -> None:
        network, info = ray.get(model)
        self.predictor = Predictor(network, info, device, threshold=threshold)


def predict_split(
    annotations: Annotations, provenance: Provenance, model: Any, workers: int, batch_size: int, gpu: bool
) -> PredictionSet:
    """Predicts every image, on ``workers`` actors with one CPU each.

    Args:
        annotations: the images.
        provenance: stored with the predictions; its ``least_score`` is the score threshold.
        model: reference to (DAS, ModelInfo) in Ray's object store.
        workers: from ``worker_count``.
        batch_size: images at once.
        gpu: every actor takes a GPU too.

    Raises:
        ValueError: an image that cannot be decoded; names its key.
    """
    _quiet()
    rows = read_split(annotations.folders, annotations.split)
    # Restarting lost actors helps where nodes come and go. On a single node the default only makes Ray print a
    # warning about every actor; Ray 2.64 will remove the option, and perhaps the warning.
    restarts = {"max_restarts": 0} if len(ray.nodes()) == 1 else {}
    with warnings.catch_warnings(action="ignore", category=RayDeprecationWarning):
        people = rows.map_batches(
            ObjectStorePredictor,
            fn_constructor_args=(model, "cuda" if gpu else "cpu", provenance.least_score),
            batch_size=batch_size,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=1 if gpu else 0,
            **restarts,
        )
    batches = people.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0)
    try:
        return collect(provenance, annotations.keys, _with_bar(batches, len(annotations.records)))
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, ValueError):
            raise
        # One line that names the image, without the worker's stack and Ray's advice about retrying.
        raise ValueError(str(error.cause).splitlines()[0]) from error


def _quiet() -> None:
    """Switches off Ray Data's log lines about plans and progress bars, and about errors that are raised anyway."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for name in ("_internal.progress", "_internal.execution.streaming_executor_state", "exceptions"):
        logging.getLogger(f"ray.data.{name}").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().raise_original_map_exception = True


def _with_bar(batches: Iterable[Mapping[str, np.ndarray]], images: int) -> Iterator[Mapping[str, np.ndarray]]:
    """The same batches under a progress bar; images without people are counted at the end."""
    with tqdm(total=images, unit=" images", delay=2, desc="predict") as bar:
        for batch in batches:
            bar.update(len(set(batch["key"])))
            yield batch
        bar.update(images - bar.n)


def worker_count(wanted: int, gpu: bool) -> int:
    """Number of actors: as wanted; for 0 one for every GPU of the cluster, or for every CPU but one.

    Raises:
        ValueError: the cluster cannot hold so many.
    """
    available = ray.cluster_resources()
    workers = wanted or max(1, int(available.get("GPU", 0) if gpu else available["CPU"] - 1))
    # One CPU stays free: if actors held all, they would wait for rows, and reading rows would wait for a CPU.
    preflight(workers, {"CPU": 1.0, "GPU": 1.0 if gpu else 0.0}, spare_cpus=1.0)
    return workers


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

"""Predicts parts of an evaluation, in a process of Ray Data's: reads, decodes, runs the network, writes one file.

Threads of the process read row groups ahead and decode and resize the next batches while the network runs on this one.
So pixels do not travel between processes: an HD picture has 6 MB of them and 0.3 MB as a JPEG.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import ray

from das.decode import People
from das.predictor import Inputs, Predictor
from das.uncertainty import joint_scales
from pipeline.data.record import Record, decode_image
from pipeline.data.stored_rows import read_ahead, read_rows
from pipeline.data.validate_record import validate_image
from pipeline.evaluation.parts import Part, write_part
from pipeline.evaluation.predictions_file import SCALES
from pipeline.infra.columns import ListColumn
from pipeline.infra.files import join
from pipeline.infra.prefetch import in_order


class PartPredictor:
    """A callable of Ray Data: numbers of parts to what became of them, one row for each.

        part         the number
        images       rows of the part
        quarantined  images that could not be predicted
        example      key and reason of the first of those, or ""

    Args:
        model: reference to (DAS, ModelInfo) in Ray's object store, so that no node needs the checkpoint's folder.
        parts: reference to the list of parts.
        folder: of the parts' files.
        threshold: candidates above this score are kept.
        batch_size: images that the network takes at once.
        gpu: run it on a GPU.
        threads: that decode.
    """

    def __init__(
        self, model: Any, parts: Any, folder: str, threshold: float, batch_size: int, gpu: bool, threads: int
    ) -> None:
        network, info = ray.get(model)
        self.parts: Sequence[Part] = ray.get(parts)
        self.predictor = Predictor(network, info, "cuda" if gpu else "cpu", threshold=threshold)
        self.folder, self.batch_size, self.threads = folder, batch_size, threads

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predicts parts and writes their files; ValueError names a shard and row group that cannot be read."""
        rows = []
        for number in batch["part"].tolist():
            part = self.parts[number]
            keys, lists, quarantine = self.predicted(part)
            write_part(join(self.folder, part.name), keys, lists, quarantine)
            example = next((f"{key}: {reason}" for key, reason in quarantine.items()), "")
            rows.append((number, part.rows, len(quarantine), example))
        names = ("part", "images", "quarantined", "example")
        return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}

    def predicted(self, part: Part) -> tuple[list[str], dict[str, ListColumn], dict[str, str]]:
        """Keys of the predicted images, their people as columns of the predictions file, and reasons for the others."""
        keys: list[str] = []
        found: list[People[np.ndarray]] = []
        quarantine: dict[str, str] = {}
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            for here, inputs, refused in in_order(pool, self._prepared, self._batches(part), self.threads + 1):
                quarantine |= refused
                people = [] if inputs is None else self.predictor.people(self.predictor.network(inputs), inputs)
                for key, one in zip(here, people, strict=True):
                    numbers = one.numpy()
                    if all(np.isfinite(x).all() for x in (numbers.scores, numbers.joints_uv, numbers.joints_cam)):
                        keys.append(key)
                        found.append(numbers)
                    else:
                        quarantine[key] = "the model's numbers for it are not finite"
        return keys, _columns(found, self.predictor.info.calibration is not None), quarantine

    def _batches(self, part: Part) -> Iterator[list[Record]]:
        groups = zip(part.groups, part.sizes, strict=True)
        read = read_ahead(lambda group: read_rows(part.shard, group[0], np.arange(group[1])), groups)
        records = (record for rows in read for record in rows)
        while batch := [*islice(records, self.batch_size)]:
            yield batch

    def _prepared(self, records: Sequence[Record]) -> tuple[list[str], Inputs | None, dict[str, str]]:
        """Keys and network inputs of the images that can be predicted, and by key the reasons why others cannot."""
        keys, images, Ks, lenses = [], [], [], []
        quarantine = {}
        for record in records:
            try:
                validate_image(record)
                image = decode_image(record)
                (K,), (lens,) = self.predictor.cameras([image], [record.K], [record.distortion])
            except ValueError as error:
                quarantine[record.key] = str(error).splitlines()[0].removeprefix(f"{record.key}: ")
                continue
            keys.append(record.key)
            images.append(image)
            Ks.append(K)
            lenses.append(lens)
        return keys, self.predictor.prepare(images, Ks, lenses) if images else None, quarantine


def _columns(people: Sequence[People[np.ndarray]], doubt: bool) -> dict[str, ListColumn]:
    """Images' people as lists, one list for each image; ``doubt``: with the scales of their doubt."""

    def column(values: Sequence[np.ndarray]) -> ListColumn:
        flat = [np.zeros(0, np.float32), *(value.ravel().astype(np.float32) for value in values)]
        return ListColumn(np.array([value.size for value in values], np.int64), np.concatenate(flat))

    columns = {
        "scores": column([p.scores for p in people]),
        "joints_uv": column([p.joints_uv for p in people]),
        "joints_cam": column([p.joints_cam for p in people]),
    }
    if doubt:
        columns[SCALES] = column([joint_scales(p.sigma_mm, p.joints_cam) for p in people])
    return columns

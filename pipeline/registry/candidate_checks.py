"""A registered version at work before it is promoted: do its files still give its scores, and at what cost?

Both questions are asked of one fixed batch, images spread evenly over the evaluated data. The files are loaded from
where they are registered, not from where they were trained.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from das.predictor import Predictor
from pipeline.data.record import Record, decode_image
from pipeline.data.shards import find_records
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.predictions_file import PredictionSet, collect
from pipeline.evaluation.scores import Evidence
from pipeline.evaluation.train_overlap import overlap
from pipeline.registry.gate import Check, Gate
from pipeline.registry.gate_inputs import evidence_of

_PAIRS = 24  # pairs of timings, at least
_WARM_UP = 2


def fixed_batch(annotations: Annotations, evidence: Evidence, images: int) -> list[Record]:
    """Images with people who count, evenly spread over the data: always the same for the same data."""
    there = np.flatnonzero(evidence.metrics["recall"].denominator > 0)
    chosen = there[np.unique(np.linspace(0, len(there) - 1, min(images, len(there)), dtype=int))]
    keys = [annotations.records[i].key for i in chosen]
    found = find_records(annotations.shards, keys)
    return [found[key] for key in keys]


def unseen(checkpoint: Path, annotations: Annotations) -> Check:
    """Whether none of the evaluated images was trained on, by the index that the checkpoint carries."""
    reason = overlap(checkpoint, annotations)
    text = f"none of the {len(annotations.records)} evaluated images was trained on" if reason is None else reason
    return Check("disjoint from training", reason is None, text)


def reproduction(
    checkpoint: Path, batch: Sequence[Record], annotations: Annotations, predictions: PredictionSet, gate: Gate
) -> Check:
    """Whether a checkpoint gives the scores of its evaluation again on the fixed batch."""
    part = replace(annotations, records=tuple(batch))
    keys = [record.key for record in batch]
    origin = predictions.provenance
    predictor = Predictor.from_folder(checkpoint, threshold=origin.least_score)
    rows = []
    for record in batch:
        people = predictor.predict(decode_image(record), record.K, record.distortion).people
        rows.append(
            {
                "key": np.full(len(people.scores), record.key),
                "rank": np.arange(len(people.scores)),
                "score": people.scores,
                "joints_uv": people.joints_uv,
                "joints_cam": people.joints_cam,
            }
        )
    fresh = evidence_of(part, collect(origin, keys, rows)).metrics
    stored = evidence_of(part, predictions.only(keys)).metrics
    allowed = {
        "mpjpe_with_misses": gate.batch_tolerance_mm,
        "recall": gate.batch_tolerance,
        "precision": gate.batch_tolerance,
    }
    differing = []
    for name, most in allowed.items():
        found, wanted = fresh[name].value, stored[name].value
        if not (abs(found - wanted) <= most or (np.isnan(found) and np.isnan(wanted))):
            differing.append(f"{name} {found:.4g} instead of {wanted:.4g}")
    text = f"the registered files give on {len(batch)} images "
    text += f"{', '.join(differing)}" if differing else "the scores of the evaluation again"
    return Check("reproduces its scores", not differing, text)


def latency(candidate: Path, champion: Path, batch: Sequence[Record], margin: float) -> Check:
    """Times two checkpoints in turn on the same images, one CPU thread: the median of the paired ratios decides.

    Two evaluations' own timings would not do: they are of two days, and often of two machines.
    """
    predictors = [Predictor.from_folder(folder) for folder in (candidate, champion)]
    images = [(decode_image(record), record.K, record.distortion) for record in batch]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for predictor in predictors:
            for job in images[:_WARM_UP]:
                predictor.predict(*job)
        rounds = -(-_PAIRS // len(images))
        seconds = np.array([[_seconds(p, job) for p in predictors] for _ in range(rounds) for job in images])
    finally:
        torch.set_num_threads(threads)
    ratio = float(np.median(seconds[:, 0] / seconds[:, 1]))
    mine, other = 1000 * np.median(seconds, axis=0)
    good = ratio <= 1 + margin
    text = (
        f"latency {mine:.0f} ms, the champion's {other:.0f} ms: {100 * (ratio - 1):+.0f} % in {len(seconds)} pairs on "
        f"this machine, {'within' if good else 'more than'} the {100 * margin:g} % allowed"
    )
    return Check("latency", good, text)


def _seconds(predictor: Predictor, job: tuple[np.ndarray, np.ndarray | None, np.ndarray | None]) -> float:
    began = time.perf_counter()
    predictor.predict(*job)
    return time.perf_counter() - began

"""Checks of a candidate's registered files: training images, reproduced scores, latency.

Scores and latency are measured on one fixed batch, images spread evenly over the evaluated data. The files are the
registered ones, not those in the folder of the training.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from das.predictor import Predictor
from pipeline.data.record import Record, decode_image
from pipeline.data.shards import find_records
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.predictions_file import PredictionSet, collect
from pipeline.evaluation.scores import Evidence
from pipeline.evaluation.train_overlap import overlap, unchecked
from pipeline.registry.gate import Check, Gate
from pipeline.registry.gate_inputs import evidence_of

_PAIRS = 24  # least number of pairs of timings
_WARM_UP = 2  # images before the timing: the first calls allocate memory and choose kernels


def fixed_batch(annotations: Annotations, evidence: Evidence, images: int) -> list[Record]:
    """Images with people whom the strict protocol counts, evenly spread over the data; the same for the same data."""
    with_people = np.flatnonzero(evidence.metrics["recall"].denominator > 0)
    n = len(with_people)
    chosen = with_people[np.unique(np.linspace(0, n - 1, min(images, n), dtype=int))]
    keys = annotations.keys[chosen].tolist()
    found = find_records(annotations.shards, keys)
    return [found[key] for key in keys]


def disjoint_from_training(checkpoint: Path, annotations: Annotations) -> Check:
    """Whether none of the evaluated images was trained on, by the checkpoint's digests (train_overlap.py).

    Of imported weights it passes by their owners' word, and its text says so.
    """
    reason = overlap(checkpoint, annotations)
    known = f"none of the {len(annotations.index)} evaluated images was trained on"
    text = reason or unchecked(checkpoint) or known
    return Check("disjoint from training", reason is None, text)


def reproduction(
    checkpoint: Path, batch: Sequence[Record], annotations: Annotations, predictions: PredictionSet, gate: Gate
) -> Check:
    """Whether a checkpoint reproduces the scores of its evaluation on the fixed batch.

    Args:
        checkpoint: the registered files.
        batch: the fixed batch.
        annotations: of the evaluation.
        predictions: of the evaluation.
        gate: its tolerances.
    """
    part = annotations.holding(batch)
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
    for name, tolerance in allowed.items():
        found, wanted = fresh[name].value, stored[name].value
        if not (abs(found - wanted) <= tolerance or (np.isnan(found) and np.isnan(wanted))):
            differing.append(f"{name} {found:.4g} instead of {wanted:.4g}")
    text = f"the registered files give on {len(batch)} images "
    text += f"{', '.join(differing)}" if differing else "the scores of the evaluation again"
    return Check("reproduces its scores", not differing, text)


def latency(candidate: Path, champion: Path, batch: Sequence[Record], margin: float) -> Check:
    """Times two checkpoints alternately on the same images, on one CPU thread, and compares the median of the ratios.

    The timings in the two evaluations cannot be compared: they were made at different times, often on two machines.

    Args:
        candidate: checkpoint folder.
        champion: checkpoint folder.
        batch: the fixed batch; repeated until there are at least 24 pairs of timings.
        margin: by what share the candidate may take longer.
    """
    predictors = [Predictor.from_folder(folder) for folder in (candidate, champion)]
    images = [(decode_image(record), record.K, record.distortion) for record in batch]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for predictor in predictors:
            for image in images[:_WARM_UP]:
                predictor.predict(*image)
        rounds = -(-_PAIRS // len(images))
        seconds = np.array([[_seconds(p, image) for p in predictors] for _ in range(rounds) for image in images])
    finally:
        torch.set_num_threads(threads)
    ratio = float(np.median(seconds[:, 0] / seconds[:, 1]))
    candidate_ms, champion_ms = 1000 * np.median(seconds, axis=0)
    good = ratio <= 1 + margin
    text = (
        f"latency {candidate_ms:.0f} ms, the champion's {champion_ms:.0f} ms: {100 * (ratio - 1):+.0f} % in "
        f"{len(seconds)} pairs on this machine, {'within' if good else 'more than'} the {100 * margin:g} % allowed"
    )
    return Check("latency", good, text)


def _seconds(predictor: Predictor, image: tuple[np.ndarray, np.ndarray | None, np.ndarray | None]) -> float:
    """Time of one prediction; ``image`` is the picture (H, W, 3), its K and its distortion."""
    began = time.perf_counter()
    predictor.predict(*image)
    return time.perf_counter() - began

"""From annotations and predictions to numbers under every protocol that fits the data.

protocols/table.py lists the protocols. The formulas are functions on arrays in das/metrics/; the modules of protocols/
turn rows of prepared data into their arguments, form groups, and name the results as in MLflow, reports and tables.

A number's 95 % interval has its name with _low and _high. Where the model was trained on some of the images, the names
of all metrics and tables begin with ``train-fit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.evaluation.annotations import Annotations, check_coco
from pipeline.evaluation.frame_choice import frame_errors
from pipeline.evaluation.ground_truth import image_cells
from pipeline.evaluation.predictions_file import Predicted
from pipeline.evaluation.protocols.coco import coco_numbers, coco_sums
from pipeline.evaluation.protocols.strict import StrictSums
from pipeline.evaluation.protocols.sums import merged
from pipeline.evaluation.protocols.table import PROTOCOLS
from pipeline.evaluation.scored import Scored, Setting, check_people, checked_threshold
from pipeline.evaluation.train_overlap import TRAIN_FIT
from pipeline.infra.text_tables import Numbers, Table


@dataclass(frozen=True)
class ProtocolResults(Numbers):
    """The numbers of all protocols for predictions on images in 3D, and what they were computed from.

    Attributes:
        annotations: the images. predictions: for all of them.
        setting: threshold, provenance and cells.
        strict: what the strict protocol kept.
        errors: (F,) mm, ``frame_errors`` of the images.
    """

    annotations: Annotations
    predictions: Predicted
    setting: Setting
    strict: StrictSums
    errors: np.ndarray

    def scored(self, images: Sequence[int]) -> Scored:
        """Some of the images person by person, by their places."""
        part, places = self.annotations.part(images), self.predictions.places(self.annotations.keys)
        return Scored.of(part, self.predictions.at(places[[*images]]), self.setting.threshold)

    def with_more(self, more: Numbers) -> ProtocolResults:
        """The same with further metrics and tables."""
        return replace(self, metrics=self.metrics | more.metrics, tables=(*self.tables, *more.tables))


@dataclass(frozen=True)
class Measured:
    """What is kept of a run of images.

    Attributes:
        rows: (U,) cells of the protocols' sums.
        errors: (F,) mm, ``frame_errors``.
        protocols: what each keeps, by its name.
    """

    rows: np.ndarray
    errors: np.ndarray
    protocols: dict[str, Any]

    @classmethod
    def of(cls, scored: Scored) -> Measured:
        """What is kept of these images."""
        kept = {p.name: p.sums(scored) for p in PROTOCOLS if p.sums is not None}
        return cls(scored.rows, frame_errors(scored), kept)


def score(annotations: Annotations, predictions: Predicted, threshold: float | None = None) -> ProtocolResults:
    """Scores one set of predictions for exactly these images under every protocol that fits them.

    A run of images is in memory at a time (sums.py).

    Args:
        annotations: the images.
        predictions: for all of them; joined by key.
        threshold: score threshold of the strict protocol; None takes the model's own.

    Raises:
        ValueError: from ``Scored.of``; no person with a visible root.
    """
    provenance = predictions.provenance
    threshold = checked_threshold(annotations, provenance, threshold)
    places, cells = predictions.places(annotations.keys), image_cells(annotations.index)
    setting = Setting(provenance, threshold, len(annotations.index), cells)
    parts = []
    for run in annotations.runs():
        here, of = predictions.at(places[run]), cells.of[run]
        parts.append(Measured.of(Scored.of(annotations.part(run), here, threshold, of, run.start)))
    measured = merged(parts, np.concatenate([part.rows for part in parts]), len(cells))
    kept: StrictSums = measured.protocols["strict"]
    check_people(annotations, kept.people)
    numbers = [
        found
        for p in PROTOCOLS
        if p.numbers is not None and measured.protocols[p.name] is not None
        for found in p.numbers(measured.protocols[p.name], setting)
    ]
    all_ = merge_numbers(numbers, provenance.train_fit)
    return ProtocolResults(
        all_.metrics, all_.tables, all_.scores, annotations, predictions, setting, kept, measured.errors
    )


def score_2d(annotations: Annotations, predictions: Predicted) -> Numbers:
    """Scores predictions for images that are annotated in 2D only: COCO's numbers, metrics named oks/...

    Raises:
        ValueError: predictions for other data, or images of another joint set than COCO17.
    """
    checked_threshold(annotations, predictions.provenance, None)
    check_coco(annotations)
    places, skeleton = predictions.places(annotations.keys), predictions.provenance.skeleton
    parts = []
    for run in annotations.runs():
        part = annotations.part(run)
        parts.append(coco_sums(part.records, predictions.at(places[run]).table(part.keys), skeleton))
    numbers = coco_numbers(merged(parts, np.zeros(0, np.int64), 0), skeleton, len(annotations.index))
    return merge_numbers([numbers], predictions.provenance.train_fit)


def merge_numbers(parts: Sequence[Numbers], train_fit: bool) -> Numbers:
    """The numbers of several protocols as one, marked where the model was trained on the images."""
    metrics = {name: value for part in parts for name, value in part.metrics.items()}
    scores = {name: value for part in parts for name, value in part.scores.items()}
    tables: list[Table] = [table for part in parts for table in part.tables]
    if train_fit:
        metrics = {f"{TRAIN_FIT}/{name}": value for name, value in metrics.items()}
        scores = {f"{TRAIN_FIT}/{name}": value for name, value in scores.items()}
        tables = [replace(t, name=f"{TRAIN_FIT}_{t.name}", title=f"{TRAIN_FIT}: {t.title}") for t in tables]
    return Numbers(metrics, tuple(tables), scores)

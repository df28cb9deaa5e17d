"""From annotations and predictions to numbers under every protocol that fits the data.

protocols/table.py lists the protocols. The formulas are functions on arrays in das/metrics/; the modules of protocols/
turn rows of prepared data into their arguments, form groups, and name the results as in MLflow, reports and tables.

A number's 95 % interval has its name with _low and _high. Where the model was trained on some of the images, the names
of all metrics and tables begin with ``train-fit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from das.metrics.strict import Strict
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.predictions_file import PredictionSet
from pipeline.evaluation.protocols.coco import coco_numbers
from pipeline.evaluation.protocols.table import PROTOCOLS
from pipeline.evaluation.scored import Scored, checked_threshold
from pipeline.evaluation.train_overlap import TRAIN_FIT
from pipeline.infra.text_tables import Numbers, Table


@dataclass(frozen=True)
class ProtocolResults(Numbers):
    """The numbers of all protocols for predictions on images in 3D, and what they were computed from.

    Attributes:
        scored: images, predictions and ground truth.
    """

    scored: Scored

    @property
    def strict(self) -> Strict:
        """The strict protocol's result, person by person."""
        return self.scored.strict

    def with_more(self, more: Numbers) -> ProtocolResults:
        """The same with further metrics and tables."""
        return replace(self, metrics=self.metrics | more.metrics, tables=(*self.tables, *more.tables))


def score(annotations: Annotations, predictions: PredictionSet, threshold: float | None = None) -> ProtocolResults:
    """Scores one set of predictions for exactly these images under every protocol that fits them.

    Args:
        annotations: the images.
        predictions: for all of them; joined by key.
        threshold: score threshold of the strict protocol; None takes the model's own.

    Raises:
        ValueError: from ``Scored.of``.
    """
    scored = Scored.of(annotations, predictions, threshold)
    parts = [numbers for protocol in PROTOCOLS if protocol.score is not None for numbers in protocol.score(scored)]
    found = merge_numbers(parts, scored.provenance.train_fit)
    return ProtocolResults(found.metrics, found.tables, found.scores, scored)


def score_2d(annotations: Annotations, predictions: PredictionSet) -> Numbers:
    """Scores predictions for images that are annotated in 2D only: COCO's numbers, metrics named oks/...

    Raises:
        ValueError: predictions for other data, or images of another joint set than COCO17.
    """
    checked_threshold(annotations, predictions.provenance, None)
    candidates = predictions.table(annotations.keys)
    numbers = coco_numbers(annotations.records, candidates, predictions.provenance.skeleton)
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

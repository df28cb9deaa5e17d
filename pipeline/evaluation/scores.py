"""Scores of one evaluation in the form that a gate compares and the registry stores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from das.fields import check_json
from das.metrics.bootstrap import Clusters, Ratio

if TYPE_CHECKING:  # configurations need this module, and scoring needs torch
    from pipeline.evaluation.predictions_file import Provenance

Metric = Literal["mpjpe_with_misses", "mpjpe", "root_error", "f1", "recall", "precision"]
METRICS: tuple[Metric, ...] = ("mpjpe_with_misses", "mpjpe", "root_error", "f1", "recall", "precision")
"""Metrics that a gate can compare: errors in mm, where smaller is better, and shares, where larger is better."""
SHARES: frozenset[Metric] = frozenset(("f1", "recall", "precision"))
"""Those of METRICS that are shares, 0 to 1."""
SliceKind = Literal["activity", "sequence", "joint", "people", "distance", "overlap", "occlusion"]
SLICES: tuple[SliceKind, ...] = ("activity", "sequence", "joint", "people", "distance", "overlap", "occlusion")
"""Kinds of subsets of the data; the last four are defined in subsets.py."""
SCORES_FILE = "scores.json"
"""Name of the file, and artifact of the evaluation run, that holds the ``Scores``."""


_NUMBERS = (
    "mpjpe_mm",
    "recall",
    "precision",
    "baseline_mpjpe_mm",
    "mpjpe_with_misses_mm",
    "baseline_mpjpe_with_misses_mm",
)


@dataclass(frozen=True)
class Scores:
    """Main scores of one evaluation; stored as JSON on the evaluation run and on the registered version."""

    protocol: str
    """Name of the protocol; ``strict`` decides promotions."""
    split: str
    """Evaluated split, with its sources: for example ``panoptic/test``."""
    skeleton: str
    """Joint set of the predictions."""
    data_fingerprint: str
    """Fingerprint of the evaluated data."""
    model_fingerprint: str
    """``fingerprint`` of the evaluated checkpoint folder."""
    train_fit: bool
    """The data overlap with the model's training data."""
    mpjpe_mm: float
    """Root-aligned mean per-joint position error over matched people, mm; nan if no person was matched."""
    recall: float
    """Matched people / annotated people, 0 to 1; nan without annotated people."""
    precision: float
    """Matched people / predicted people, 0 to 1; nan without predictions."""
    baseline_mpjpe_mm: float
    """MPJPE of the training split's mean pose on the same matched people, mm; nan if no person was matched."""
    mpjpe_with_misses_mm: float
    """MPJPE over all annotated people, mm; a missed one has the mean pose's error. nan without a mean pose."""
    baseline_mpjpe_with_misses_mm: float
    """MPJPE of the mean pose on all annotated people, mm; nan without a mean pose."""

    def __post_init__(self) -> None:
        for name in ("protocol", "split", "skeleton", "data_fingerprint", "model_fingerprint"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"scores: {name} = {getattr(self, name)!r}, wanted a text")
        if not isinstance(self.train_fit, bool):
            raise ValueError(f"scores: train_fit = {self.train_fit!r}, wanted true or false")
        for name in _NUMBERS:
            value, most = getattr(self, name), 1e6 if name.endswith("_mm") else 1
            if not (math.isnan(value) or 0 <= value <= most):
                raise ValueError(f"scores: {name} = {value!r}, wanted nan or 0 to {most:g}")

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision, 0 to 1; nan where one of them is."""
        return 2 * self.recall * self.precision / (self.recall + self.precision) if self.recall else self.recall

    def to_json(self) -> dict[str, Any]:
        """Plain values; nan becomes null."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scores:
        """Inverse of ``to_json``; ValueError names unknown, missing or bad fields.

        Scores of versions that were registered before errors with misses were part of them have null there.
        """
        values: dict[str, Any] = {"mpjpe_with_misses_mm": None, "baseline_mpjpe_with_misses_mm": None, **value}
        check_json(cls, values, "scores")
        for name in _NUMBERS:
            values[name] = math.nan if values[name] is None else float(values[name])
        return cls(**values)


@dataclass(frozen=True)
class Slice:
    """A subset of the data: its number of people, and the model's scores on it."""

    people: int
    metrics: Mapping[str, Ratio]


@dataclass(frozen=True)
class Evidence:
    """Scores of one model on F images, as gates compare them; of two models the images are in one order.

    Attributes:
        scores: the main scores.
        clusters: of the images.
        metrics: those of METRICS, as sums per image.
        slices: by kind and name, such as ``slices["activity"]["pizza"]``; with the metrics defined on a subset.
    """

    scores: Scores
    clusters: Clusters
    metrics: Mapping[str, Ratio]
    slices: Mapping[str, Mapping[str, Slice]]


def gate_scores(split: str, provenance: Provenance, numbers: Mapping[str, float]) -> Scores:
    """The strict protocol's headline. Without any prediction the precision is 0, which passes no gate.

    Args:
        split: name of the data, for example ``panoptic/test``.
        provenance: of the predictions.
        numbers: from ``Strict.numbers`` or ``StrictSums.numbers``.
    """
    return Scores(
        protocol="strict",
        split=split,
        skeleton=provenance.skeleton.name,
        data_fingerprint=provenance.data_fingerprint,
        model_fingerprint=provenance.model_fingerprint,
        train_fit=provenance.train_fit,
        mpjpe_mm=numbers["mpjpe"],
        recall=numbers["recall"],
        precision=0.0 if math.isnan(numbers["precision"]) else numbers["precision"],
        baseline_mpjpe_mm=numbers["baseline_mpjpe"],
        mpjpe_with_misses_mm=numbers["mpjpe_with_misses"],
        baseline_mpjpe_with_misses_mm=numbers["baseline_mpjpe_with_misses"],
    )

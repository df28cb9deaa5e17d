"""What a protocol measures: some images of one split, their ground truth, and the predictions for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from das.metrics.bootstrap import Ratio
from das.metrics.strict import Strict, strict
from das.metrics.tables import Predictions, Truth
from das.skeleton import Skeleton
from pipeline.data.record import Record
from pipeline.evaluation.annotations import Annotations, check_joints
from pipeline.evaluation.ground_truth import strict_truth
from pipeline.evaluation.predictions_file import PredictionSet, Provenance
from pipeline.evaluation.protocols.sums import Cells


@dataclass(frozen=True)
class Setting:
    """What all runs of images have in common when predictions are scored.

    Attributes:
        provenance: of the predictions.
        threshold: score above which a candidate is a person, for all protocols but the release's.
        images: F, how many there are in all.
        cells: of all images.
    """

    provenance: Provenance
    threshold: float
    images: int
    cells: Cells


@dataclass(frozen=True)
class Scored:
    """F images with joints in 3D and the predictions for them, person by person; frame i of every table is records[i].

    Attributes:
        records: the images, without pixels, in memory.
        provenance: of the predictions.
        threshold: score above which a candidate is a person, for all protocols but the release's.
        candidates: all predictions that were kept, those above ``provenance.least_score``.
        people: the candidates above ``threshold``.
        release_candidates: the candidates above ``provenance.release_threshold``, among which the release's protocols
            choose.
        truth: ground truth of the strict protocol, T people in the J joints of the predictions.
        strict: which of ``people`` the strict protocol pairs with which of ``truth``, and their errors. Pictures and
            gates use it too.
        cell: (F,) cell of each image.
        first: place of records[0] among all images.
    """

    records: Sequence[Record]
    provenance: Provenance
    threshold: float
    candidates: Predictions
    people: Predictions
    release_candidates: Predictions
    truth: Truth
    strict: Strict
    cell: np.ndarray
    first: int = 0

    @classmethod
    def of(
        cls,
        annotations: Annotations,
        predictions: PredictionSet,
        threshold: float | None = None,
        cell: np.ndarray | None = None,
        first: int = 0,
    ) -> Scored:
        """Joins predictions and annotations by key.

        Args:
            annotations: the images.
            predictions: for exactly these images.
            threshold: score threshold; None takes the model's own.
            cell: of each image; None makes every image a cell of its own.
            first: place of the first image among all.

        Raises:
            ValueError: predictions for other data, images without joints in 3D or without the model's root, or a
                threshold below the scores that were kept.
        """
        provenance, records = predictions.provenance, annotations.records
        threshold = checked_threshold(annotations, provenance, threshold)
        check_joints(annotations, provenance.skeleton)
        truth = strict_truth(records, provenance.skeleton)
        candidates = predictions.table(annotations.keys)
        people = candidates.where(candidates.scores > threshold)
        supervised = np.array([joint not in provenance.unsupervised_joints for joint in provenance.skeleton.joints])
        root = provenance.skeleton.root_indices
        return cls(
            records=records,
            provenance=provenance,
            threshold=threshold,
            candidates=candidates,
            people=people,
            release_candidates=candidates.where(candidates.scores > provenance.release_threshold),
            truth=truth,
            strict=strict(truth, people, root, provenance.mean_pose_mm, taught=supervised),
            cell=np.arange(len(records)) if cell is None else cell,
            first=first,
        )

    @property
    def skeleton(self) -> Skeleton:
        """Joint set of the predictions."""
        return self.provenance.skeleton

    @property
    def rows(self) -> np.ndarray:
        """(U,) the cells that have images here, ascending: those of the rows of ``by_cell``."""
        return np.unique(self.cell)

    def by_cell(self, score: Ratio) -> Ratio:
        """A score (F,) or (F, G) of the images as sums over their cells, (U,) or (U, G)."""
        cells, row = np.unique(self.cell, return_inverse=True)
        return score.summed(row, len(cells))


def check_people(annotations: Annotations, people: int) -> None:
    """ValueError where nobody counts in the strict protocol."""
    if not people:
        images = len(annotations.index)
        raise ValueError(f"{annotations.name}: no person in {images} images can be scored: no root joint is visible")


def checked_threshold(annotations: Annotations, provenance: Provenance, threshold: float | None) -> float:
    """The score threshold to use: the given one, or the model's own.

    Raises:
        ValueError: predictions for other data, or a threshold below the scores that were kept.
    """
    if provenance.data_fingerprint != annotations.fingerprint:
        found, wanted = provenance.data_fingerprint[:12], annotations.fingerprint[:12]
        raise ValueError(f"the predictions are for data {found}, but {annotations.name} has fingerprint {wanted}")
    threshold = provenance.score_threshold if threshold is None else threshold
    if threshold < provenance.least_score:
        raise ValueError(
            f"threshold = {threshold:g}, wanted at least {provenance.least_score:g}: candidates with lower scores were "
            "not kept"
        )
    return threshold

"""What a protocol scores: images of one split, their ground truth, and the predictions for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from das.metrics.bootstrap import Clusters
from das.metrics.strict import Strict, strict
from das.metrics.tables import Predictions, Truth
from das.skeleton import Skeleton
from pipeline.data.record import Record
from pipeline.evaluation.annotations import Annotations, check_joints
from pipeline.evaluation.ground_truth import image_clusters, strict_truth
from pipeline.evaluation.predictions_file import PredictionSet, Provenance


@dataclass(frozen=True)
class Scored:
    """F images with joints in 3D and the predictions for them; frame i of every table is records[i].

    Attributes:
        annotations: the images.
        provenance: of the predictions.
        threshold: score above which a candidate is a person, for all protocols but the release's.
        candidates: all predictions that were kept, those above ``provenance.least_score``.
        people: the candidates above ``threshold``.
        release_candidates: the candidates above ``provenance.release_threshold``, among which the release's protocols
            choose.
        truth: ground truth of the strict protocol, T people in the J joints of the predictions.
        strict: which of ``people`` the strict protocol pairs with which of ``truth``, and their errors. Pictures and
            gates use it too.
        clusters: which images are drawn together for intervals.
    """

    annotations: Annotations
    provenance: Provenance
    threshold: float
    candidates: Predictions
    people: Predictions
    release_candidates: Predictions
    truth: Truth
    strict: Strict
    clusters: Clusters

    @classmethod
    def of(cls, annotations: Annotations, predictions: PredictionSet, threshold: float | None = None) -> Scored:
        """Joins predictions and annotations by key.

        Args:
            annotations: the images.
            predictions: for exactly these images.
            threshold: score threshold; None takes the model's own.

        Raises:
            ValueError: predictions for other data, images without joints in 3D or without the model's root, no person
                with a visible root, or a threshold below the scores that were kept.
        """
        provenance, records = predictions.provenance, annotations.records
        threshold = checked_threshold(annotations, provenance, threshold)
        check_joints(annotations, provenance.skeleton)
        truth = strict_truth(records, provenance.skeleton)
        root = provenance.skeleton.root_indices
        if not truth.counted(root).any():
            raise ValueError(
                f"{annotations.name}: no person in {len(records)} images can be scored: no root joint is visible"
            )
        candidates = predictions.table(annotations.keys)
        people = candidates.where(candidates.scores > threshold)
        supervised = np.array([joint not in provenance.unsupervised_joints for joint in provenance.skeleton.joints])
        return cls(
            annotations=annotations,
            provenance=provenance,
            threshold=threshold,
            candidates=candidates,
            people=people,
            release_candidates=candidates.where(candidates.scores > provenance.release_threshold),
            truth=truth,
            strict=strict(truth, people, root, provenance.mean_pose_mm, taught=supervised),
            clusters=image_clusters(records),
        )

    @property
    def records(self) -> tuple[Record, ...]:
        """The images, without pixels."""
        return self.annotations.records

    @property
    def skeleton(self) -> Skeleton:
        """Joint set of the predictions."""
        return self.provenance.skeleton


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

"""From annotations and predictions to numbers under every protocol that fits the data.

The protocols themselves are functions on arrays in das/. Here rows become their tables, groups are formed, and results
get the names that they have in MLflow, reports and tables:

    strict/...             ours, for all data in 3D; decides promotions
    baseline/...           the training split's mean pose in the place of every prediction, under the same protocol
    panoptic_release/...   the evaluator released with DAS on Panoptic, per activity; optimistic by construction
    panoptic_smap/...      SMAP's, one-to-one by the root in the image
    mupots_.../...         MuPoTS-3D, percent, per sequence (scoring_mupots.py)
    oks/...                COCO's average precision of joints in the image, for data without depth

A number's 95 % interval has its name with _low and _high. Where the model knows the images from its training, every
name and table begins with ``train-fit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from das.metrics.bootstrap import Clusters
from das.metrics.strict import Strict, strict
from das.metrics.tables import Predictions, Truth
from pipeline.evaluation.annotations import Annotations, check_joints
from pipeline.evaluation.ground_truth import image_clusters, strict_truth
from pipeline.evaluation.predictions_file import Origin, PredictionSet
from pipeline.evaluation.protocols.mupots import mupots_numbers
from pipeline.evaluation.protocols.panoptic import panoptic_numbers
from pipeline.evaluation.protocols.strict import strict_numbers
from pipeline.infra.text_tables import Numbers, Table

TRAIN_FIT = "train-fit"
"""What marks numbers that were measured on training data."""


@dataclass(frozen=True)
class Sheet(Numbers):
    """What predictions of images in 3D are worth: the numbers of all protocols, and the strict one's result.

    Attributes:
        threshold: people above this score count in the strict protocol.
        truth, people, strict: its two tables and its result, person by person; frame i is the i-th image.
        clusters: which images are drawn together for intervals.
    """

    threshold: float
    truth: Truth
    people: Predictions
    strict: Strict
    clusters: Clusters

    def beside(self, more: Numbers) -> Sheet:
        """The same with more metrics and tables."""
        return replace(self, metrics=self.metrics | more.metrics, tables=(*self.tables, *more.tables))


def score(annotations: Annotations, predictions: PredictionSet, threshold: float | None = None) -> Sheet:
    """Scores one set of predictions for exactly these images under every protocol that fits them.

    Args:
        annotations: the images.
        predictions: for all of them; joined by key.
        threshold: score threshold of the strict protocol; None takes the model's own.

    Raises:
        ValueError: predictions for other data, images without joints in 3D or without the model's root, nobody who
            can be scored, or a threshold below the scores that were kept.
    """
    origin, records = predictions.origin, annotations.records
    threshold = check_origin(annotations, origin, threshold)
    check_joints(annotations, origin.skeleton)
    truth = strict_truth(records, origin.skeleton)
    if not truth.counted(origin.skeleton.root_indices).any():
        raise ValueError(f"{annotations.name}: nobody in {len(records)} images can be scored: no root is visible")

    everyone = predictions.table(annotations.keys)
    people = everyone.where(everyone.scores > threshold)
    candidates = everyone.where(everyone.scores > origin.release_threshold)
    clusters = image_clusters(records)
    taught = np.array([joint not in origin.unsupervised_joints for joint in origin.skeleton.joints])
    result = strict(truth, people, origin.skeleton.root_indices, origin.mean_pose_mm, taught=taught)
    ours = strict_numbers(records, truth, people, everyone, result, origin, clusters, threshold)
    published = [
        *panoptic_numbers(records, candidates, people, origin, clusters),
        *mupots_numbers(records, candidates, origin, clusters),
    ]
    found = joined([ours, *published], origin.train_fit)
    return Sheet(found.metrics, found.tables, found.scores, threshold, truth, people, result, clusters)


def check_origin(annotations: Annotations, origin: Origin, threshold: float | None) -> float:
    """The score threshold to use: the one given, or the model's own.

    Raises:
        ValueError: predictions for other data, or a threshold below the scores that were kept.
    """
    if origin.data_fingerprint != annotations.fingerprint:
        found, wanted = origin.data_fingerprint[:12], annotations.fingerprint[:12]
        raise ValueError(f"the predictions are for data {found}, but {annotations.name} has fingerprint {wanted}")
    threshold = origin.score_threshold if threshold is None else threshold
    if threshold < origin.least_score:
        raise ValueError(f"threshold = {threshold:g}, wanted at least {origin.least_score:g}: others were not kept")
    return threshold


def joined(parts: Sequence[Numbers], train_fit: bool) -> Numbers:
    """The numbers of several protocols as one, marked where the model was trained on the images."""
    metrics = {name: value for part in parts for name, value in part.metrics.items()}
    scores = {name: value for part in parts for name, value in part.scores.items()}
    tables: list[Table] = [table for part in parts for table in part.tables]
    if train_fit:
        metrics = {f"{TRAIN_FIT}/{name}": value for name, value in metrics.items()}
        scores = {f"{TRAIN_FIT}/{name}": value for name, value in scores.items()}
        tables = [replace(t, name=f"{TRAIN_FIT}_{t.name}", title=f"{TRAIN_FIT}: {t.title}") for t in tables]
    return Numbers(metrics, tuple(tables), scores)

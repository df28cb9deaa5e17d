"""The inputs of a gate from a predictions file: the strict protocol's sums per image.

A registered version stores the predictions of its evaluation, not only their scores. A promotion scores both models
again from them, with the same code on the same annotations, and pairs them image by image; neither model is run.
"""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.predictions_file import PredictionSet
from pipeline.evaluation.score import ProtocolResults, score
from pipeline.evaluation.scores import Evidence, Slice, gate_scores
from pipeline.evaluation.subsets import people_subsets


def evidence_of(annotations: Annotations, predictions: PredictionSet) -> Evidence:
    """Scores predictions at the score threshold that the model was saved with.

    Raises:
        ValueError: from ``score``: predictions that are not for exactly these images.
    """
    sheet = score(annotations, predictions)
    records = annotations.records
    sequence = np.array([record.sequence for record in records])
    activity = np.array([record.activity for record in records])
    groups = {"sequence": sequence}
    if (activity != "").any():
        groups["activity"] = np.where(activity == "", "no activity", activity)
    frame = sheet.scored.truth.frame
    subsets = {
        kind: {str(n): _subset(sheet, len(records), people=(names == n)[frame]) for n in np.unique(names)}
        for kind, names in groups.items()
    }
    skeleton = predictions.provenance.skeleton
    for kind, classes in people_subsets(records, sheet.scored.truth, skeleton).items():
        subsets[kind] = {name: _subset(sheet, len(records), people=people) for name, people in classes.items()}
    joints = skeleton.joints
    subsets["joint"] = {
        joint: _subset(sheet, len(records), joints=np.arange(len(joints)) == i)
        for i, joint in enumerate(joints)
        if sheet.strict.scored[:, i].any()
    }
    return Evidence(
        scores=gate_scores(sheet),
        clusters=sheet.scored.clusters,
        metrics=sheet.strict.scores(sheet.scored.truth, sheet.scored.people, len(records)),
        slices=subsets,
    )


def _subset(
    sheet: ProtocolResults, images: int, people: np.ndarray | None = None, joints: np.ndarray | None = None
) -> Slice:
    """Scores of some of the T annotated people, (T,) bool, or of some of their joints, (J,) bool."""
    part = sheet.strict.of(people, joints)
    scores = part.scores(sheet.scored.truth, sheet.scored.people, images)
    del scores["precision"], scores["f1"]  # a false positive belongs to no annotated person, hence to no subset
    return Slice(part.people, scores)

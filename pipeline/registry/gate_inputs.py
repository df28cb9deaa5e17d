"""The inputs of a gate from a predictions file: the strict protocol's sums per image.

A registered version stores the predictions of its evaluation, not only their scores. A promotion scores both models
again from them, with the same code on the same annotations, and pairs them image by image; neither model is run.
"""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.ground_truth import image_clusters
from pipeline.evaluation.predictions_file import PredictionSet
from pipeline.evaluation.scored import Scored, check_people
from pipeline.evaluation.scores import Evidence, Slice, gate_scores
from pipeline.evaluation.subsets import people_subsets


def evidence_of(annotations: Annotations, predictions: PredictionSet) -> Evidence:
    """Scores predictions at the score threshold that the model was saved with.

    Raises:
        ValueError: from ``Scored.of`` and ``check_people``: predictions that are not for exactly these images.
    """
    scored = Scored.of(annotations.holding([*annotations.records]), predictions)
    check_people(annotations, scored.strict.people)
    records, sequence, activity = scored.records, annotations.index.sequences, annotations.index.activities
    groups = {"sequence": sequence}
    if (activity != "").any():
        groups["activity"] = np.where(activity == "", "no activity", activity)
    frame = scored.truth.frame
    subsets = {
        kind: {str(n): _subset(scored, len(records), people=(names == n)[frame]) for n in np.unique(names)}
        for kind, names in groups.items()
    }
    skeleton = predictions.provenance.skeleton
    for kind, classes in people_subsets(records, scored.truth, skeleton).items():
        subsets[kind] = {name: _subset(scored, len(records), people=people) for name, people in classes.items()}
    joints = skeleton.joints
    subsets["joint"] = {
        joint: _subset(scored, len(records), joints=np.arange(len(joints)) == i)
        for i, joint in enumerate(joints)
        if scored.strict.scored[:, i].any()
    }
    return Evidence(
        scores=gate_scores(annotations.name, predictions.provenance, scored.strict.numbers()),
        clusters=image_clusters(annotations.index),
        metrics=scored.strict.scores(scored.truth, scored.people, len(records)),
        slices=subsets,
    )


def _subset(scored: Scored, images: int, people: np.ndarray | None = None, joints: np.ndarray | None = None) -> Slice:
    """Scores of some of the T annotated people, (T,) bool, or of some of their joints, (J,) bool."""
    part = scored.strict.of(people, joints)
    scores = part.scores(scored.truth, scored.people, images)
    del scores["precision"], scores["f1"]  # a false positive belongs to no annotated person, hence to no subset
    return Slice(part.people, scores)

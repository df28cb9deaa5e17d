"""The published ways of scoring MuPoTS-3D: 3DPCK and AUC over 14 of its 17 joints, per sequence.

Numbers of different papers on this benchmark are not comparable unless the protocol is: the ground truth
(``annot3`` in millimetres, or ``univ_annot3``, scaled to one universal skeleton), the pairing of people, and
what is done to the predicted bone lengths all differ. So each evaluator is a separate function:

- ``mupots_matlab``: the script of Moon et al. (2019) around the authors' toolbox; most published numbers.
- ``mupots_release``: the evaluator released with DAS, most likely behind the paper's Table 3.
- ``mupots_paired``: scores for predictions that come already paired with people.

``Truth.joints_cam`` decides which ground truth is used. People of invalid frames are not
part of Truth. A frame without prediction is a miss for each of its people under every protocol here (the
released evaluator stops with an exception). ``everyone`` chooses between the usual modes: all annotated
people, a missed one being wrong in every joint; or matched people only. All joints of a person count, visible
or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from das.metrics.bootstrap import Ratio
from das.metrics.tables import (
    MISSED,
    Predictions,
    Truth,
    chunks,
    distances,
    greedy,
    mean_where,
    nearest,
    pairs_within_frames,
    per_frame,
    required,
    root_aligned,
    root_of,
)
from das.skeleton import MUPOTS17

# Joint groups of the published tables: 14 joints; pelvis, spine and head serve the bone lengths only.
GROUPS = {
    "Head": (0,),
    "Neck": (1,),
    "Shou": (2, 5),
    "Elbow": (3, 6),
    "Wrist": (4, 7),
    "Hip": (8, 11),
    "Knee": (9, 12),
    "Ankle": (10, 13),
}
COLUMNS = (*GROUPS, "Total")
EVALUATED = slice(0, 14)
NEAR = 150.0  # mm
MATLAB_THRESHOLDS = np.arange(0.0, 151.0, 5.0)
RELEASE_THRESHOLDS = np.arange(0.0, 200.0, 5.0)
# A missed person is scored against a pose with every coordinate here, in mm: wrong at every threshold.
_NOWHERE = 1e5

_ROOT = MUPOTS17.root_indices
_PARENT = (1, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, 14, 14, 1)  # of each joint, in the toolbox
_ORDER = (15, 1, 0, 16, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)  # every joint after its parent


@dataclass(frozen=True)
class SequencePck:
    """PCK and AUC of every sequence, percent.

    Attributes:
        sequences: (S,) names.
        people: (S,) how many people were counted.
        pck: (S, 9) percent, columns ``COLUMNS``; NaN where no person was counted.
        auc: (S, 9) percent.
    """

    sequences: np.ndarray
    people: np.ndarray
    pck: np.ndarray
    auc: np.ndarray

    @property
    def mean_pck(self) -> float:
        """The number papers print: plain mean of the sequences' totals, not weighted by frames, percent."""
        total = self.pck[:, -1]
        return mean_where(total, ~np.isnan(total))  # NaN: no person of the sequence was counted


@dataclass(frozen=True)
class SequenceCounts:
    """Joints within each threshold, by sequence; those of all images are those of parts, one after another.

    Attributes:
        sequences: (S,) names; one that is in several parts is there several times.
        people: (S,) how many people were counted.
        near: (S, 1 + n, 17) how many of their joints are closer than 150 mm, and than each of n thresholds.
    """

    sequences: np.ndarray
    people: np.ndarray
    near: np.ndarray

    @classmethod
    def of(
        cls, errors: np.ndarray, counted: np.ndarray, sequence: np.ndarray, thresholds: np.ndarray
    ) -> SequenceCounts:
        """Counts of errors; arguments as in ``score_sequences``."""
        names = np.unique(sequence)
        rows = [errors[counted & (sequence == name)] for name in names]
        limits = np.array([NEAR, *thresholds])
        near = [[(found < limit).sum(axis=0) for limit in limits] for found in rows]
        return cls(
            names,
            np.array([len(found) for found in rows], dtype=np.int64),
            np.array(near, dtype=np.int64).reshape(-1, len(limits), errors.shape[1]),
        )

    def scores(self) -> SequencePck:
        """PCK strictly under 150 mm and AUC over the thresholds, for every sequence."""
        names, row = np.unique(self.sequences, return_inverse=True)
        people, near = np.zeros(len(names), np.int64), np.zeros((len(names), *self.near.shape[1:]), np.int64)
        np.add.at(people, row, self.people)
        np.add.at(near, row, self.near)
        share = near / np.where(people > 0, people, np.nan)[:, None, None]
        return SequencePck(
            sequences=names,
            people=people,
            pck=np.array([group_columns(s[0]) for s in share]).reshape(-1, len(COLUMNS)),
            auc=np.array([group_columns(s[1:].mean(axis=0)) for s in share]).reshape(-1, len(COLUMNS)),
        )


@dataclass(frozen=True)
class Mupots:
    """What a MuPoTS protocol found.

    Attributes:
        match: (T,) row of Predictions, or MISSED.
        counted: (T,) bool, people in the scores: everyone, or matched people.
        relative_errors: (T, 17) mm, root-aligned; huge for missed people.
        absolute_errors: (T, 17) mm, in the camera frame.
        counts: joints within the thresholds, of the former as ``rel`` and of the latter as ``abs``.
    """

    match: np.ndarray
    counted: np.ndarray
    relative_errors: np.ndarray
    absolute_errors: np.ndarray
    counts: Mapping[str, SequenceCounts]

    @property
    def relative(self) -> SequencePck:
        """Scores of root-aligned poses, PCK_rel."""
        return self.counts["rel"].scores()

    @property
    def absolute(self) -> SequencePck:
        """Scores in the camera frame, PCK_abs."""
        return self.counts["abs"].scores()

    def shares(self, truth: Truth, frames: int, thresholds: np.ndarray) -> dict[str, Ratio]:
        """Means over people, fractions 0 to 1, as sums over images; ``mean_over`` makes them means over sequences.

        Args:
            truth: the table that was scored.
            frames: F, the number of images.
            thresholds: of AUC, (n,) mm.

        Returns:
            ``pck_rel``, ``pck_abs``, ``auc_rel`` and ``auc_abs``.
        """
        people = per_frame(self.counted, truth.frame, frames)
        found = {}
        for kind, errors in (("rel", self.relative_errors), ("abs", self.absolute_errors)):
            for name, limits in (("pck", np.array([NEAR])), ("auc", thresholds)):
                share = np.mean([(errors[:, EVALUATED] < t).mean(axis=1) for t in limits], axis=0)
                found[f"{name}_{kind}"] = Ratio(
                    per_frame(np.where(self.counted, share, 0.0), truth.frame, frames), people
                )
        return found

    def scores(self, truth: Truth, sequence: np.ndarray, thresholds: np.ndarray) -> dict[str, Ratio]:
        """The means over sequences, fractions 0 to 1, as sums over images, from which intervals are computed.

        Args:
            truth: the table that was scored.
            sequence: (F,) name of every image's sequence.
            thresholds: of AUC, (n,) mm.

        Returns:
            ``pck_rel``, ``pck_abs``, ``auc_rel`` and ``auc_abs``.
        """
        shares = self.shares(truth, len(sequence), thresholds)
        return {name: share.mean_over(sequence) for name, share in shares.items()}


def group_columns(per_joint: np.ndarray) -> np.ndarray:
    """Percent of each joint group and their joint-weighted mean (9,) from shares per joint (17,)."""
    groups = [per_joint[list(joints)].mean() for joints in GROUPS.values()]
    return 100 * np.array([*groups, per_joint[EVALUATED].mean()])


def score_sequences(
    errors: np.ndarray, counted: np.ndarray, sequence: np.ndarray, thresholds: np.ndarray
) -> SequencePck:
    """PCK strictly under 150 mm and AUC over the thresholds for every sequence.

    Args:
        errors: (T, 17) mm.
        counted: (T,) bool.
        sequence: (T,) name of each person's sequence.
        thresholds: (n,) mm.
    """
    return SequenceCounts.of(errors, counted, sequence, thresholds).scores()


def rescale_bones(poses: np.ndarray, reference: np.ndarray, parent_bug: bool = False) -> np.ndarray:
    """Predicted directions with the reference's bone lengths, from the fixed pelvis outwards: (N, 17, 3) mm.

    ``parent_bug`` repeats the release: it reads the parent of the i-th joint of the traversal from place i of
    the table of parents instead of from the joint's own place, so joints are stretched about wrong
    neighbours. A predicted bone without length has no direction: its joint and those behind it become NaN.
    """
    mapped = poses.copy()
    for place, joint in enumerate(_ORDER):
        parent = _PARENT[place] if parent_bug else _PARENT[joint]
        bone = poses[:, joint] - poses[:, parent]
        length = np.linalg.norm(bone, axis=1)
        wanted = distances(reference[:, joint], reference[:, parent])
        stretch = wanted / np.where(length > 0, length, np.nan)
        mapped[:, joint] = mapped[:, parent] + bone * stretch[:, None]
    return mapped


# ---- Moon et al. and the toolbox ---------------------------------------------------------------------

_PIXELS = 40.0
_MATCHED_JOINTS = slice(1, 14)


def match_in_image(truth: Truth, predictions: Predictions) -> np.ndarray:
    """The toolbox's pairing: match (T,), row of Predictions or MISSED.

    Joints 1..13 agree when both coordinates differ by less than 40 px and the predicted one is not exactly
    (0, 0). People in annotation order each take the free prediction with most agreeing joints, the first of
    equals, if there is one with any.
    """
    truth_uv = required(truth.joints_uv, "Truth.joints_uv")[:, _MATCHED_JOINTS]
    predicted_uv = required(predictions.joints_uv, "Predictions.joints_uv")[:, _MATCHED_JOINTS]
    present = (predicted_uv != 0).any(axis=-1)
    t, p = pairs_within_frames(truth, predictions)
    near = (np.abs(truth_uv[t] - predicted_uv[p]) < _PIXELS).all(axis=-1)
    agreeing = (near & present[p]).sum(axis=1)
    t, p, agreeing = t[agreeing > 0], p[agreeing > 0], agreeing[agreeing > 0]
    order = np.lexsort((p, -agreeing, t))
    return greedy(len(truth), len(predictions), t[order], p[order])


def mupots_matlab(
    truth: Truth, predictions: Predictions, sequence: np.ndarray, everyone: bool = True, bones: bool = True
) -> Mupots:
    """``mupots-matlab``: one-to-one pairing in the image, bone lengths of the ground truth, AUC to 150 mm.

    Args:
        truth: 17 joints with joints_uv (annot2); joints_cam is univ_annot3 in the published script.
        predictions: 17 joints with joints_uv, px of the original image.
        sequence: (F,) name of every frame's sequence.
        everyone: all annotated people (mode 0), or matched people only (mode 1).
        bones: rescale predicted bones to the lengths of the ground truth, as published.
    """
    match = match_in_image(truth, predictions)
    found = match != MISSED
    poses = predictions.joints_cam[match[found]]
    if bones:
        poses = rescale_bones(poses, truth.joints_cam[found])
    return _score(truth, match, poses, sequence, everyone, MATLAB_THRESHOLDS)


# ---- the DAS release ---------------------------------------------------------------------------------

_ACCEPTED = 250.0  # mm


def mupots_release(
    truth: Truth,
    predictions: Predictions,
    sequence: np.ndarray,
    everyone: bool = True,
    parent_bug: bool = True,
) -> Mupots:
    """``mupots-release``: the evaluator of the DAS release, pairing in 3D with replacement, AUC to 195 mm.

    Every person takes the prediction whose corrected pose is nearest, if that is within 250 mm on average.
    Correcting means: root-aligned, x and y scaled by the ratio of the true root depth to the predicted one
    (so the ground truth's depth helps the prediction), bones rescaled to the ground truth's lengths. Absolute
    errors are those of the corrected pose put back at the predicted pelvis. Predictions with the root at
    depth 0 are left out.

    Args:
        truth: 17 joints; joints_cam is annot3 in the release.
        predictions: 17 joints.
        sequence: (F,) name of every frame's sequence.
        everyone: all annotated people, or matched people only.
        parent_bug: as released (see ``rescale_bones``); needed to compare with the paper's 82.7 / 39.2.
    """
    pose, predicted = root_aligned(truth.joints_cam, _ROOT), root_aligned(predictions.joints_cam, _ROOT)
    true_depth = root_of(truth.joints_cam, _ROOT)[:, 2]
    depth = root_of(predictions.joints_cam, _ROOT)[:, 2]

    def corrected(t: np.ndarray, p: np.ndarray) -> np.ndarray:
        zoom = true_depth[t] / depth[p]
        scale = np.stack([zoom, zoom, np.ones_like(zoom)], axis=-1)
        return rescale_bones(predicted[p] * scale[:, None], pose[t], parent_bug)

    t, p = pairs_within_frames(truth, predictions)
    t, p = t[depth[p] != 0], p[depth[p] != 0]
    cost = np.empty(len(t))
    for part in chunks(len(t)):
        cost[part] = distances(corrected(t[part], p[part]), pose[t[part]]).mean(axis=1)
    match, cost = nearest(len(truth), t, p, np.where(np.isnan(cost), np.inf, cost))
    match[cost > _ACCEPTED] = MISSED
    found = np.flatnonzero(match != MISSED)
    poses = corrected(found, match[found]) + root_of(predictions.joints_cam, _ROOT)[match[found], None]
    return _score(truth, match, poses, sequence, everyone, RELEASE_THRESHOLDS)


# ---- predictions that are already paired -------------------------------------------------------------


def mupots_paired(
    joints_cam: np.ndarray,
    predicted: np.ndarray,
    found: np.ndarray,
    sequence: np.ndarray,
    everyone: bool = True,
) -> Mupots:
    """Scores of foreign predictions that are given person by person: no pairing, no rescaling, AUC to 150 mm.

    Args:
        joints_cam: (T, 17, 3) mm, ground truth.
        predicted: (T, 17, 3) mm, the prediction for the same person; anything where not found.
        found: (T,) bool.
        sequence: (T,) name of each person's sequence.
        everyone: all annotated people, or found people only.
    """
    rows = np.arange(len(joints_cam))
    truth = Truth(rows, joints_cam, np.ones(joints_cam.shape[:2], dtype=bool))
    return _score(truth, np.where(found, rows, MISSED), predicted[found], sequence, everyone, MATLAB_THRESHOLDS)


def _score(
    truth: Truth,
    match: np.ndarray,
    poses: np.ndarray,
    sequence: np.ndarray,
    everyone: bool,
    thresholds: np.ndarray,
) -> Mupots:
    """Errors and scores for the found people's final poses (camera frame, in order of the truth rows)."""
    found = match != MISSED
    target, aligned = truth.joints_cam, root_aligned(truth.joints_cam, _ROOT)
    relative, absolute = distances(_NOWHERE, aligned), distances(_NOWHERE, target)
    poses = np.where(np.isnan(poses), _NOWHERE, poses)  # a joint without direction counts as missed
    relative[found] = distances(root_aligned(poses, _ROOT), aligned[found])
    absolute[found] = distances(poses, target[found])
    counted = np.ones(len(truth), dtype=bool) if everyone else found
    names = sequence[truth.frame]
    return Mupots(
        match,
        counted,
        relative,
        absolute,
        {
            "rel": SequenceCounts.of(relative, counted, names, thresholds),
            "abs": SequenceCounts.of(absolute, counted, names, thresholds),
        },
    )

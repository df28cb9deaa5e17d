"""The strict protocol, which gates, sweeps and reports of this project use; for any joint set.

Predictions above the score threshold are assigned one-to-one to people by the distance of their roots in the
image (Hungarian: as many pairs as possible, then the smallest total distance); a pair needs less than
``REACH`` times the diagonal of the person's box. Reported together, never alone: MPJPE over matched people,
recall, precision, root position error. The baseline places the training split's mean pose on exactly the same
people.

MPJPE here is the mean over all scored joints of all matched people after moving both roots to the origin. A
root that is itself a joint is left out: its error is zero by construction and would flatter every model by
1/J. Joints that were never supervised are left out by ``taught``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from das.metrics.bootstrap import Ratio
from das.metrics.tables import (
    NOT_COUNTED,
    Predictions,
    Truth,
    distances,
    hungarian,
    mean_per_joint,
    pairs_within_frames,
    pck,
    per_frame,
    procrustes,
    ratio,
    required,
    root_aligned,
    root_of,
)

# A prediction belongs to a person when their roots are closer than this share of the box's diagonal.
REACH = 0.15
_NEAR = 150.0  # mm


@dataclass(frozen=True)
class Strict:
    """What the strict protocol found, person by person; every number is a mean over these arrays.

    Attributes:
        match: (T,) row of Predictions, MISSED, or NOT_COUNTED (ignored, or without a known root).
        predictions: predictions above the threshold, without those that can only be ignored people.
        scored: (T, J) bool, joints that count in errors.
        errors: (T, J) mm, root-aligned; meaningful where the person is matched.
        aligned_errors: (T, J) mm after a similarity alignment (PA); NaN with fewer than 3 scored joints.
        baseline_errors: (T, J) mm, the mean pose in place of a prediction; for matched and missed people.
        root_offset: (T, 3) mm, predicted minus true root; meaningful where the person is matched.
        eligible: (P,) bool, the rows of Predictions that ``predictions`` counts.
    """

    match: np.ndarray
    predictions: int
    scored: np.ndarray
    errors: np.ndarray
    aligned_errors: np.ndarray
    baseline_errors: np.ndarray
    root_offset: np.ndarray
    eligible: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """(T,) bool, people with a prediction."""
        return self.match >= 0

    @property
    def people(self) -> int:
        """People who count."""
        return int((self.match != NOT_COUNTED).sum())

    @property
    def recall(self) -> float:
        """Share of people found."""
        return ratio(self.found.sum(), self.people)

    @property
    def precision(self) -> float:
        """Share of predictions that are matched with a person."""
        return ratio(self.found.sum(), self.predictions)

    @property
    def mpjpe(self) -> float:
        """Root-aligned error over matched people, mm."""
        return self._number("mpjpe")

    @property
    def baseline_mpjpe(self) -> float:
        """The same of the mean pose on the same people, mm."""
        return self._number("baseline_mpjpe")

    @property
    def mpjpe_with_misses(self) -> float:
        """Root-aligned error over all people, mm; a missed person costs what the mean pose would cost."""
        return self._number("mpjpe_with_misses")

    @property
    def baseline_mpjpe_with_misses(self) -> float:
        """Error of the mean pose over all people, mm: what ``mpjpe_with_misses`` is if nobody is found."""
        return self._number("baseline_mpjpe_with_misses")

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision."""
        return f1(int(self.found.sum()), self.people, self.predictions)

    @property
    def root_error(self) -> float:
        """Mean distance of predicted and true root over matched people, mm."""
        return self._number("root_error")

    def joint_mpjpe(self) -> np.ndarray:
        """Root-aligned error of each joint over matched people, (J,) mm; NaN for joints that never count."""
        return mean_per_joint(self.errors, self._joints(self.found))

    def joint_pck(self, threshold: float = _NEAR) -> np.ndarray:
        """Share of joints of matched people within ``threshold`` mm, root-aligned, (J,)."""
        return pck(self.errors, threshold, self._joints(self.found))

    def numbers(self) -> dict[str, float]:
        """Everything as plain numbers: mm, or fractions 0 to 1; NaN where nothing could be measured."""
        return {
            **{name: ratio(above.sum(), below.sum()) for name, (above, below) in self._sums().items()},
            "precision": self.precision,
            "f1": self.f1,
            "people": float(self.people),
            "matched": float(self.found.sum()),
            "predictions": float(self.predictions),
        }

    def scores(self, truth: Truth, predictions: Predictions, frames: int) -> dict[str, Ratio]:
        """All of ``numbers`` that are ratios, as sums over images, from which intervals are computed.

        Args:
            truth: the tables that were scored,
            predictions: both.
            frames: F, the number of images.
        """
        people = truth.frame
        found = per_frame(self.found, people, frames)
        predicted = per_frame(self.eligible, predictions.frame, frames)
        counted = per_frame(self.match != NOT_COUNTED, people, frames)
        sums = self._sums().items()
        return {
            **{
                n: Ratio(per_frame(above, people, frames), per_frame(below, people, frames))
                for n, (above, below) in sums
            },
            "precision": Ratio(found, predicted),
            "f1": Ratio(2 * found, counted + predicted),
        }

    def joint_scores(self, truth: Truth, frames: int) -> dict[str, Ratio]:
        """``mpjpe``, ``baseline_mpjpe`` and ``pck_150mm`` over matched people, a column (F, J) for each joint."""
        there, known = self._joints(self.found), np.isfinite(self.baseline_errors)
        values = (
            ("mpjpe", self.errors, there),
            ("baseline_mpjpe", self.baseline_errors, there & known),
            ("pck_150mm", self.errors < _NEAR, there),
        )
        return {
            name: Ratio(
                per_frame(np.where(counted, value, 0.0), truth.frame, frames), per_frame(counted, truth.frame, frames)
            )
            for name, value, counted in values
        }

    def of(self, people: np.ndarray | None = None, joints: np.ndarray | None = None) -> Strict:
        """The same pairing, with only some people (T,) bool, or some joints of each (T, J) bool, counting.

        No prediction belongs to a part of the people of an image, so precision is not measured in it.
        """
        match, scored = self.match, self.scored
        if people is not None:
            match, scored = np.where(people, match, NOT_COUNTED), scored & people[:, None]
        if joints is not None:
            scored = scored & joints
        return replace(self, match=match, scored=scored, predictions=0, eligible=np.zeros_like(self.eligible))

    def _number(self, name: str) -> float:
        above, below = self._sums()[name]
        return ratio(above.sum(), below.sum())

    def _sums(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """What every person adds above and below the line of each ratio, (T,) each."""
        everyone, found = self.match != NOT_COUNTED, self.found
        there = self._joints(found)

        def over(errors: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.where(counted, errors, 0.0).sum(axis=1), counted.sum(axis=1)

        # Without a mean pose there is nothing to measure a miss by.
        known = np.isfinite(self.baseline_errors)
        mpjpe, baseline = over(self.errors, there), over(self.baseline_errors, there & known)
        with_misses = np.where(found[:, None], self.errors, self.baseline_errors)
        distance = np.linalg.norm(self.root_offset, axis=1)
        return {
            "mpjpe": mpjpe,
            "baseline_mpjpe": baseline,
            "mpjpe_over_baseline": (mpjpe[0], baseline[0]),
            "mpjpe_with_misses": over(with_misses, self._joints(everyone) & known),
            "baseline_mpjpe_with_misses": over(self.baseline_errors, self._joints(everyone) & known),
            "pa_mpjpe": over(self.aligned_errors, there & np.isfinite(self.aligned_errors)),
            "pck_150mm": over(self.errors < _NEAR, there),
            "recall": (found, everyone),
            "root_error": (np.where(found, distance, 0.0), found),
            "root_depth_error": (np.where(found, np.abs(self.root_offset[:, 2]), 0.0), found),
        }

    def _joints(self, people: np.ndarray) -> np.ndarray:
        return self.scored & people[:, None]


def strict(
    truth: Truth,
    predictions: Predictions,
    root: Sequence[int],
    mean_pose: np.ndarray,
    threshold: float = -np.inf,
    taught: np.ndarray | None = None,
) -> Strict:
    """Scores predictions by the strict protocol.

    Args:
        truth: people with joints_uv and bbox; ``scored`` marks labelled joints, occluded ones included.
        predictions: people with joints_uv.
        root: indices of the joints whose mean is the root (``Skeleton.root_indices``).
        mean_pose: (J, 3) mm, the training split's mean root-aligned pose in camera axes; NaN where it is not known.
        threshold: predictions count when their score is above it.
        taught: (J,) bool, joints that were ever supervised; None means all.

    Raises:
        ValueError: if a column is missing or ``mean_pose`` has another number of joints.
    """
    joints = truth.joints_cam.shape[1]
    if np.shape(mean_pose) != (joints, 3):
        raise ValueError(f"mean_pose must have shape {(joints, 3)}, found {np.shape(mean_pose)}")
    counted = truth.counted(root)
    t, p, gap = within_reach(truth, predictions, counted, root)
    lone = _only_ignored(truth, predictions, counted, p, root)
    eligible = (predictions.scores > threshold) & ~lone
    keep = eligible[p]
    t, p, gap = t[keep], p[keep], gap[keep]
    match = hungarian(len(truth), truth.frame[t], t, p, gap)
    match[~counted] = NOT_COUNTED

    scored = truth.scored & counted[:, None]
    if taught is not None:
        scored &= taught
    if len(root) == 1:
        scored[:, root[0]] = False
    found = match >= 0
    true_pose = root_aligned(truth.joints_cam, root)
    true_root = root_of(truth.joints_cam, root)
    pose, moved, offset = np.zeros_like(true_pose), np.zeros_like(true_pose), np.zeros_like(true_root)
    predicted = predictions.joints_cam[match[found]]
    pose[found] = root_aligned(predicted, root)
    offset[found] = root_of(predicted, root) - true_root[found]
    moved[found] = procrustes(pose[found], true_pose[found], scored[found])
    return Strict(
        match=match,
        predictions=int(eligible.sum()),
        scored=scored,
        errors=distances(pose, true_pose),
        aligned_errors=distances(moved, true_pose),
        baseline_errors=distances(np.asarray(mean_pose), true_pose),
        root_offset=offset,
        eligible=eligible,
    )


def only_ignored(truth: Truth, predictions: Predictions, root: Sequence[int]) -> np.ndarray:
    """(P,) bool: predictions that are neither right nor wrong, because they can only be of people who do not count.

    Args:
        truth: as in ``strict``.
        predictions: likewise.
        root: indices of the joints whose mean is the root.
    """
    counted = truth.counted(root)
    _, p, _ = within_reach(truth, predictions, counted, root)
    return _only_ignored(truth, predictions, counted, p, root)


def within_reach(
    truth: Truth, predictions: Predictions, counted: np.ndarray, root: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs close enough to match: truth rows, prediction rows, root distances in px, each (M,)."""
    truth_uv = root_of(required(truth.joints_uv, "Truth.joints_uv"), root)
    predicted_uv = root_of(required(predictions.joints_uv, "Predictions.joints_uv"), root)
    bbox = required(truth.bbox, "Truth.bbox")
    reach = REACH * distances(bbox[:, 2:], bbox[:, :2])
    t, p = pairs_within_frames(truth, predictions)
    gap = distances(truth_uv[t], predicted_uv[p])
    near = counted[t] & (gap < reach[t])
    return t[near], p[near], gap[near]


def _only_ignored(
    truth: Truth, predictions: Predictions, counted: np.ndarray, reachable: np.ndarray, root: Sequence[int]
) -> np.ndarray:
    """(P,) bool: predictions near no counted person, and in the box of one not counted or within reach of its root.

    The root of a person who is cut by the border is outside the image, and below or beside the box of what is visible.
    Such predictions are neither right nor wrong. Decided before the assignment, so that it does not depend on it.
    """
    uv = root_of(required(predictions.joints_uv, "Predictions.joints_uv"), root)
    others = truth.where(~counted)
    t, p = pairs_within_frames(others, predictions)
    box = required(others.bbox, "Truth.bbox")[t]
    inside = ((uv[p] >= box[:, :2]) & (uv[p] <= box[:, 2:])).all(axis=1)
    roots = root_of(required(others.joints_uv, "Truth.joints_uv"), root)[t]
    near = others.placed(root)[t] & (distances(roots, uv[p]) < REACH * distances(box[:, 2:], box[:, :2]))
    lone = np.zeros(len(predictions), dtype=bool)
    lone[p[inside | near]] = True
    lone[reachable] = False
    return lone


def f1(matched: int, people: int, predictions: int) -> float:
    """Harmonic mean of recall and precision; NaN without people and predictions."""
    return ratio(2 * matched, people + predictions)

"""The published ways of scoring CMU Panoptic, kept faithful to the evaluators they come from.

``panoptic_release`` is the evaluator released with DAS (Table 2 of the paper): every person takes the nearest
root-aligned prediction, with replacement and at any distance, so models with many predictions score too well.
It is reported beside the strict protocol and used for no decision. ``panoptic_smap`` is that of SMAP (Zhen et al.
2020). Both work on the 15 joints of PANOPTIC15, mid-hip as root.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from das.camera import back_project
from das.metrics.bootstrap import Ratio
from das.metrics.tables import (
    MISSED,
    NOT_COUNTED,
    Predictions,
    Truth,
    chunks,
    distances,
    greedy,
    mean_per_joint,
    nearest,
    pairs_within_frames,
    per_frame,
    ratio,
    required,
    root_aligned,
    root_of,
)
from das.skeleton import PANOPTIC15

_ROOT = PANOPTIC15.root_indices
_HEAD = PANOPTIC15.index("head")
_CONFIDENT = 0.1  # a joint is annotated above this confidence


# ---- the DAS release ---------------------------------------------------------------------------------


def annotated(confidence: np.ndarray, head_top: np.ndarray) -> np.ndarray:
    """Joints that the release takes for annotated, (T, 15) bool: confidence (T, 15) above 0.1.

    Where the source annotates the nose instead of the head top (coco19), joint 1 is not: ``head_top`` (T,)
    bool.
    """
    known = confidence > _CONFIDENT
    known[:, _HEAD] &= head_top
    return known


def release_truth(
    frame: np.ndarray,
    joints_uv: np.ndarray,
    depth: np.ndarray,
    K: np.ndarray,
    known: np.ndarray,
    width: int = 1920,
    height: int = 1080,
    ignore: np.ndarray | None = None,
) -> Truth:
    """The release's ground truth: pixels of the distorted image, back-projected without undistorting.

    A model that predicts perfectly in camera space is therefore some millimetres off under this protocol.

    Args:
        frame: (T,) frame of each person.
        joints_uv: (T, 15, 2) px of the distorted image.
        depth: (T, 15) Z in mm.
        K: (T, 3, 3) intrinsics of each person's image.
        known: (T, 15) bool, from ``annotated``.
        width: of the image, px; scored joints have 0 <= u <= width - 1.
        height: the same of v.
        ignore: (T,) bool, people the release drops for other reasons: fewer than 3 known joints, or
            a clipped box of at most 1 px or 64 px^2.
    """
    edge = np.array([width - 1, height - 1])
    inside = ((joints_uv >= 0) & (joints_uv <= edge)).all(axis=-1)
    return Truth(frame, back_project(joints_uv, depth, K), known & inside, joints_uv, ignore=ignore)


def world_mean_pose(joints_cam: np.ndarray, known: np.ndarray, R: np.ndarray) -> np.ndarray:
    """The pose that the release scores for frames without predictions: (15, 3) mm, world axes.

    The mean root-aligned pose of all people of one activity (also those outside the image or with an unknown
    root), so it is itself taken from the test set.

    Args:
        joints_cam: (T, 15, 3) mm, true camera-space joints (not those of ``release_truth``).
        known: (T, 15) bool, from ``annotated``.
        R: (T, 3, 3), world to camera rotation of each person's image.
    """
    above, below = world_poses(joints_cam, known, R)
    return above / np.maximum(below, 1)[:, None]


def world_poses(joints_cam: np.ndarray, known: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What ``world_mean_pose`` is the mean of: sums (15, 3) mm, and in how many people a joint is known, (15,)."""
    aligned = root_aligned(joints_cam, _ROOT) @ R  # row vectors: x_world = x_cam R
    return np.einsum("njd,nj->jd", aligned, known), known.sum(axis=0)


@dataclass(frozen=True)
class PanopticRelease:
    """What the release's protocol found.

    Attributes:
        match: (T,) row of Predictions, MISSED where the mean pose was used, or NOT_COUNTED.
        scored: (T, 15) bool, joints that count.
        errors: (T, 15) mm, root-aligned.
        frames: (n,) frames that hold people who count, ascending.
        frame_mpjpe: (n,) mm, mean over all scored joints of the frame.
        frame_people: (n,) how many people count in it.
    """

    match: np.ndarray
    scored: np.ndarray
    errors: np.ndarray
    frames: np.ndarray
    frame_mpjpe: np.ndarray
    frame_people: np.ndarray

    @property
    def mpjpe(self) -> float:
        """The published number, mm: frame means weighted by people; no mean over joints, nor over people."""
        return ratio((self.frame_people * self.frame_mpjpe).sum(), self.frame_people.sum())

    def joint_mpjpe(self) -> np.ndarray:
        """Mean error of each joint where it is scored, (15,) mm."""
        return mean_per_joint(self.errors, self.scored)

    def score(self, frames: int) -> Ratio:
        """``mpjpe`` as sums over all ``frames`` images, from which intervals are computed."""
        people = np.bincount(self.frames, self.frame_people, frames)
        return Ratio(np.bincount(self.frames, self.frame_people * self.frame_mpjpe, frames), people)


def panoptic_release(truth: Truth, predictions: Predictions, world_mean: np.ndarray, R: np.ndarray) -> PanopticRelease:
    """``panoptic-release``: the evaluator of the DAS release, for one annotation file, that is one activity.

    The paper's mean over activities is the plain mean of the four numbers; see ``release_by_activity``.

    Args:
        truth: from ``release_truth``; people whose root is not scored do not count.
        predictions: camera-space poses; their scores and places do not matter.
        world_mean: (15, 3) mm from ``world_mean_pose``.
        R: (F, 3, 3) world to camera rotation of every frame.
    """
    counted = truth.counted(_ROOT)
    scored = truth.scored & counted[:, None]
    pose, predicted = root_aligned(truth.joints_cam, _ROOT), root_aligned(predictions.joints_cam, _ROOT)
    t, p = pairs_within_frames(truth, predictions)
    cost = np.empty(len(t))
    for part in chunks(len(t)):
        errors = distances(pose[t[part]], predicted[p[part]])
        cost[part] = (errors * scored[t[part]]).mean(axis=1)
    match, _ = nearest(len(truth), t, p, cost)
    matched = match != MISSED
    best = world_mean @ R[truth.frame].swapaxes(-1, -2)  # (T, 15, 3)
    best[matched] = predicted[match[matched]]
    errors = distances(pose, best)
    match[~counted] = NOT_COUNTED

    frames, row = np.unique(truth.frame[counted], return_inverse=True)
    joints, people = np.bincount(row, scored[counted].sum(axis=1)), np.bincount(row)
    sums = np.bincount(row, (errors * scored)[counted].sum(axis=1))
    return PanopticRelease(match, scored, errors, frames, sums / joints, people)


def release_by_activity(
    truth: Truth,
    predictions: Predictions,
    activity: np.ndarray,
    R: np.ndarray,
    joints_cam: np.ndarray,
    known: np.ndarray,
) -> dict[str, PanopticRelease]:
    """``panoptic_release`` of every activity, each with its own mean pose, as Table 2 lists them.

    Rows in a result, as ``match``, are those of the activity's own tables, people who are ignored left out.

    Args:
        truth: from ``release_truth``.
        predictions: of all activities.
        activity: (F,) name of every frame's activity.
        R: (F, 3, 3) world to camera rotation of every frame.
        joints_cam: (T, 15, 3) mm, true camera-space joints.
        known: (T, 15) bool, from ``annotated``.
    """
    results = {}
    for name in np.unique(activity):
        here = activity == name
        rows = here[truth.frame] if truth.ignore is None else here[truth.frame] & ~truth.ignore
        world_mean = world_mean_pose(joints_cam[rows], known[rows], R[truth.frame[rows]])
        results[str(name)] = panoptic_release(
            truth.where(rows), predictions.where(here[predictions.frame]), world_mean, R
        )
    return results


def activity_mean(results: dict[str, PanopticRelease]) -> float:
    """The paper's "Mean": the plain mean of the activities' numbers, mm."""
    return ratio(sum(result.mpjpe for result in results.values()), len(results))


# ---- SMAP --------------------------------------------------------------------------------------------

_SMAP_INPUT = (832, 512)  # width, height of the letter-boxed network input in which SMAP measures pixels
_SMAP_PIXELS = 30.0
_SMAP_NEAR = 150.0  # mm


def smap_scale(width: int, height: int) -> float:
    """Pixels of SMAP's network input per pixel of an image of this size."""
    return min(_SMAP_INPUT[0] / width, _SMAP_INPUT[1] / height)


@dataclass(frozen=True)
class PanopticSmap:
    """What SMAP's protocol found.

    Attributes:
        match: (T,) row of Predictions, MISSED, or NOT_COUNTED (root not visible).
        found: (T, 15) bool, joints of matched people that were predicted and annotated: only these have errors.
        relative_errors: (T, 15) mm, root-aligned.
        absolute_errors: (T, 15) mm.
        neighbours: pairs of people who follow each other in the annotation of a frame and are both matched.
        reversed_neighbours: those of which the prediction has the wrong one in front.
    """

    match: np.ndarray
    found: np.ndarray
    relative_errors: np.ndarray
    absolute_errors: np.ndarray
    neighbours: int
    reversed_neighbours: int

    @property
    def matched(self) -> int:
        """People with a prediction."""
        return int((self.match >= 0).sum())

    @property
    def recall(self) -> float:
        """Share of people found."""
        return ratio(self.matched, (self.match != NOT_COUNTED).sum())

    @property
    def mpjpe(self) -> float:
        """Root-aligned error, mm: mean of the joints' means, root included; missed people do not count."""
        return float(self.joint_mpjpe().mean())

    def joint_mpjpe(self) -> np.ndarray:
        """Root-aligned error of each joint, (15,) mm."""
        return mean_per_joint(self.relative_errors, self.found)

    def scores(self, truth: Truth, frames: int) -> dict[str, Ratio]:
        """The numbers as sums over images, from which intervals are computed.

        Args:
            truth: the table that was scored.
            frames: F, the number of images.

        Returns:
            ``mpjpe``, ``mpjpe_absolute``, ``pck`` and ``pck_absolute`` (means over joints), and ``recall``.
        """
        matched = self.match >= 0

        def over_joints(values: np.ndarray, counted: np.ndarray) -> Ratio:
            above = np.where(self.found, values, 0.0)
            return Ratio(per_frame(above, truth.frame, frames), per_frame(counted, truth.frame, frames))

        everywhere = np.broadcast_to(matched[:, None], self.found.shape)
        counted = self.match != NOT_COUNTED
        return {
            "mpjpe": over_joints(self.relative_errors, self.found),
            "mpjpe_absolute": over_joints(self.absolute_errors, self.found),
            "pck": over_joints(self.relative_errors < _SMAP_NEAR, everywhere),
            "pck_absolute": over_joints(self.absolute_errors < _SMAP_NEAR, everywhere),
            "recall": Ratio(per_frame(matched, truth.frame, frames), per_frame(counted, truth.frame, frames)),
        }


def panoptic_smap(
    truth: Truth,
    predictions: Predictions,
    scale: float | np.ndarray = 1.0,
    found: np.ndarray | None = None,
    known: np.ndarray | None = None,
) -> PanopticSmap:
    """``panoptic-smap``: SMAP's Panoptic evaluator.

    One-to-one pairing, closest 2D roots first, closer than 30 px of SMAP's network input. Whether a joint of
    the ground truth is visible does not matter, except the root's, without which a person does not count.

    Args:
        truth: with joints_uv; ``scored`` marks visible joints (not occluded, inside the image).
        predictions: with joints_uv.
        scale: ``smap_scale`` of all images or (F,) of each; 1 for pixels that are those of the network input already.
        found: (P, 15) bool, joints that were predicted at all; None means all.
        known: (T, 15) bool, joints that were annotated at all; None means all. Others have no errors.
    """
    truth_uv = root_of(required(truth.joints_uv, "Truth.joints_uv"), _ROOT)
    predicted_uv = root_of(required(predictions.joints_uv, "Predictions.joints_uv"), _ROOT)
    counted = truth.counted(_ROOT)
    t, p = pairs_within_frames(truth, predictions)
    zoom = scale[truth.frame[t]] if isinstance(scale, np.ndarray) else scale
    gap = zoom * distances(truth_uv[t], predicted_uv[p])
    near = counted[t] & (gap < _SMAP_PIXELS)
    t, p, gap = t[near], p[near], gap[near]
    order = np.argsort(gap, kind="stable")
    match = greedy(len(truth), len(predictions), t[order], p[order])
    matched = match != MISSED
    predicted = np.zeros_like(truth.joints_cam)
    predicted[matched] = predictions.joints_cam[match[matched]]
    measured = np.zeros(truth.scored.shape, dtype=bool)
    measured[matched] = True if found is None else found[match[matched]]
    if known is not None:
        measured &= known
    match[~counted] = NOT_COUNTED

    rows = np.flatnonzero(counted)[np.argsort(truth.frame[counted], kind="stable")]
    a, b = rows[:-1], rows[1:]
    both = (truth.frame[a] == truth.frame[b]) & matched[a] & matched[b]
    true_depth, depth = root_of(truth.joints_cam, _ROOT)[:, 2], root_of(predicted, _ROOT)[:, 2]
    wrong = (true_depth[a] - true_depth[b]) * (depth[a] - depth[b]) < 0
    return PanopticSmap(
        match=match,
        found=measured,
        relative_errors=distances(root_aligned(predicted, _ROOT), root_aligned(truth.joints_cam, _ROOT)),
        absolute_errors=distances(predicted, truth.joints_cam),
        neighbours=int(both.sum()),
        reversed_neighbours=int((both & wrong).sum()),
    )

"""The input tables of all evaluation protocols, ``Truth`` and ``Predictions``, and the steps that protocols share.

Those steps are errors of poses, averages of errors, and matching of people with predictions.

All protocols take the same two tables. A row of ``Truth`` is one annotated person, a row of ``Predictions`` one
predicted person; ``frame`` is the index of the row's image (any integers from 0, in any order, with gaps); values per
frame (camera, activity, sequence) are arrays indexed by it. Rows are flat, not one object per image, so that a
protocol is a few array operations over all people of a data set at once. Points are millimetres in the camera frame (x
right, y down, z forward) or pixels of the stored image.

The protocols themselves: ``strict.py`` (ours), ``panoptic.py``, ``mupots.py`` and ``coco.py`` (published).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike
from scipy.optimize import linear_sum_assignment

# Values of ``match`` (T,): the row of Predictions that a person was given, or one of these.
MISSED = -1
NOT_COUNTED = -2

# Pairs that are compared at once: bounds memory where images have 100 candidates each.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Truth:
    """Annotated people, one row each; the rows of one frame are in annotation order.

    Attributes:
        frame: (T,) int, the row's frame.
        joints_cam: (T, J, 3) mm, camera frame; finite everywhere, anything where not scored.
        scored: (T, J) bool, the joints that count, by the protocol's own rule of visibility.
        joints_uv: (T, J, 2) px, for protocols that pair people in the image.
        bbox: (T, 4) px, x0 y0 x1 y1, for protocols that measure distances by the person's size.
        ignore: (T,) bool, crowds and people whose detection is neither right nor wrong; None: no one is ignored.
        labelled: (T, J) bool, joints whose joints_uv is known, also outside the image; None: those that are scored.

    Raises:
        ValueError: naming the field whose shape disagrees or that holds a number that is not finite.
    """

    frame: np.ndarray
    joints_cam: np.ndarray
    scored: np.ndarray
    joints_uv: np.ndarray | None = None
    bbox: np.ndarray | None = None
    ignore: np.ndarray | None = None
    labelled: np.ndarray | None = None

    def __post_init__(self) -> None:
        rows, joints = _people_and_joints(self)
        _check(self, "frame", np.int64, (rows,))
        _check(self, "joints_cam", np.float64, (rows, joints, 3))
        _check(self, "scored", np.bool_, (rows, joints))
        _check(self, "joints_uv", np.float64, (rows, joints, 2))
        _check(self, "bbox", np.float64, (rows, 4))
        _check(self, "ignore", np.bool_, (rows,))
        _check(self, "labelled", np.bool_, (rows, joints))

    def __len__(self) -> int:
        return len(self.frame)

    def where(self, rows: np.ndarray) -> Truth:
        """The rows of a mask (T,) or of indices; frames keep their numbers."""
        return replace(self, **_rows(self, rows))

    def counted(self, root: Sequence[int]) -> np.ndarray:
        """(T,) bool: people who are not ignored and whose root joints are all scored."""
        known = np.all(self.scored[:, list(root)], axis=1)
        return known if self.ignore is None else known & ~self.ignore

    def placed(self, root: Sequence[int]) -> np.ndarray:
        """(T,) bool: people whose root has a known place in the image plane, inside the image or not."""
        return np.all((self.scored if self.labelled is None else self.labelled)[:, list(root)], axis=1)


@dataclass(frozen=True)
class Predictions:
    """Predicted people, one row each.

    Attributes:
        frame: (P,) int, the row's frame.
        joints_cam: (P, J, 3) mm, camera frame.
        scores: (P,), higher is surer.
        joints_uv: (P, J, 2) px of the stored image, for protocols that pair people in the image.
        scales: (P, J) mm, scale of each joint's doubt (das/uncertainty.py), to calibrate it or to see how it covers.

    Raises:
        ValueError: naming the field whose shape disagrees or that holds a number that is not finite.
    """

    frame: np.ndarray
    joints_cam: np.ndarray
    scores: np.ndarray
    joints_uv: np.ndarray | None = None
    scales: np.ndarray | None = None

    def __post_init__(self) -> None:
        rows, joints = _people_and_joints(self)
        _check(self, "frame", np.int64, (rows,))
        _check(self, "joints_cam", np.float64, (rows, joints, 3))
        _check(self, "scores", np.float64, (rows,))
        _check(self, "joints_uv", np.float64, (rows, joints, 2))
        _check(self, "scales", np.float64, (rows, joints))

    def __len__(self) -> int:
        return len(self.frame)

    def where(self, rows: np.ndarray) -> Predictions:
        """The rows of a mask (P,) or of indices; frames keep their numbers."""
        return replace(self, **_rows(self, rows))

    def with_joints(self, index: Sequence[int]) -> Predictions:
        """The same people in some of their joints, in that order."""
        columns = {name: getattr(self, name) for name in ("joints_cam", "joints_uv", "scales")}
        chosen = {name: column[:, list(index)] for name, column in columns.items() if column is not None}
        return replace(self, **chosen)


Result = TypeVar("Result")


def _people_and_joints(table: Truth | Predictions) -> tuple[int, int]:
    shape = np.shape(table.joints_cam)
    if len(shape) != 3:
        raise ValueError(f"{type(table).__name__}.joints_cam must have shape (people, joints, 3), found {shape}")
    return shape[:2]


def _check(table: Truth | Predictions, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Makes a field an array of that dtype; ValueError if its shape or its content is not as promised."""
    if getattr(table, name) is None:
        return
    value: np.ndarray = np.asarray(getattr(table, name), dtype=dtype)
    label = f"{type(table).__name__}.{name}"
    if value.shape != shape:
        raise ValueError(f"{label} must have shape {shape}, found {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{label} must be finite, found {np.count_nonzero(~np.isfinite(value))} other numbers")
    if name == "frame" and (value < 0).any():
        raise ValueError(f"{label} must not be negative, found {value.min()}")
    object.__setattr__(table, name, value)


def _rows(table: Truth | Predictions, rows: np.ndarray) -> dict[str, Any]:
    columns = {f.name: getattr(table, f.name) for f in fields(table)}
    return {name: column[rows] for name, column in columns.items() if column is not None}


def required(value: np.ndarray | None, name: str) -> np.ndarray:
    """The optional column ``name`` where a protocol cannot do without it; ValueError if it is absent."""
    if value is None:
        raise ValueError(f"this protocol needs {name}, found none")
    return value


def by_group(
    protocol: Callable[[Truth, Predictions], Result],
    truth: Truth,
    predictions: Predictions,
    group: np.ndarray,
) -> dict[str, Result]:
    """One result per activity, sequence or camera: ``group`` (F,) names every frame's group.

    Rows in a result, as ``match``, are those of the group's own tables.
    """
    return {
        str(name): protocol(
            truth.where((group == name)[truth.frame]), predictions.where((group == name)[predictions.frame])
        )
        for name in np.unique(group)
    }


# ---- poses and errors --------------------------------------------------------------------------------


def root_of(joints: np.ndarray, root: Sequence[int]) -> np.ndarray:
    """The root, the mean of the root joints: (N, J, D) gives (N, D)."""
    return joints[:, list(root)].mean(axis=1)


def root_aligned(joints: np.ndarray, root: Sequence[int]) -> np.ndarray:
    """Poses moved so that their root is the origin: (N, J, D)."""
    return joints - root_of(joints, root)[:, None]


def distances(a: np.ndarray | float, b: np.ndarray) -> np.ndarray:
    """Euclidean distances of points (..., D): (...)."""
    difference = a - b
    return np.sqrt(np.einsum("...d,...d->...", difference, difference))


def mean_pose(aligned: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Mean (J, 3) of root-aligned poses (N, J, 3) over the people in whom a joint is labelled (N, J).

    A joint that is never labelled stays at the root. The axes are those of the input: of the camera for the
    strict protocol's baseline, of the world for the fallback of the Panoptic release.
    """
    count = labelled.sum(axis=0)
    return np.einsum("njd,nj->jd", aligned, labelled) / np.maximum(count, 1)[:, None]


def procrustes(source: np.ndarray, target: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Every source pose moved onto its target by the best similarity (rotation, scale, translation).

    Least squares over the scored joints, after Umeyama (1991): source, target (N, J, 3) mm, scored (N, J)
    bool; returns (N, J, 3). What PA-MPJPE measures. A pose with fewer than 3 scored joints has no unique
    alignment and becomes NaN.
    """
    weight = scored / np.maximum(scored.sum(axis=1, keepdims=True), 1)
    source_mean = np.einsum("njd,nj->nd", source, weight)[:, None]
    target_mean = np.einsum("njd,nj->nd", target, weight)[:, None]
    centred, goal = source - source_mean, target - target_mean
    u, stretch, vt = np.linalg.svd(np.einsum("nja,njb,nj->nab", goal, centred, weight))
    sign = np.ones_like(stretch)
    sign[:, 2] = np.where(np.linalg.det(u) * np.linalg.det(vt) < 0, -1.0, 1.0)  # a rotation, never a mirror
    rotation = np.einsum("nai,ni,nib->nab", u, sign, vt)
    variance = np.einsum("njd,njd,nj->n", centred, centred, weight)
    scale = (stretch * sign).sum(axis=1) / np.where(variance > 0, variance, np.inf)
    moved = scale[:, None, None] * np.einsum("nab,njb->nja", rotation, centred) + target_mean
    return np.where((scored.sum(axis=1) >= 3)[:, None, None], moved, np.nan)


def ratio(part: float, whole: float) -> float:
    """``part / whole`` as a float; NaN, "not measured", when there is nothing to divide by."""
    return float(part / whole) if whole else float("nan")


def mean_where(errors: np.ndarray, counted: np.ndarray) -> float:
    """Mean of the counted entries, NaN when there is none."""
    return ratio(float(errors[counted].sum()), int(counted.sum()))


def mean_per_joint(errors: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Mean over people (N, J) of each joint's counted entries: (J,), NaN where a joint is never counted."""
    count = counted.sum(axis=0)
    return np.where(counted, errors, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)


def pck(errors: np.ndarray, threshold: float = 150.0, counted: np.ndarray | None = None) -> np.ndarray:
    """Share of people in whom a joint is closer than ``threshold`` mm, per joint: (N, J) gives (J,), 0 to 1.

    Strictly closer; an error that is NaN or infinite (a missed person) is wrong. NaN where nothing is
    counted.
    """
    counted = np.ones(errors.shape, dtype=bool) if counted is None else counted
    count = counted.sum(axis=0)
    return (counted & (errors < threshold)).sum(axis=0) / np.where(count > 0, count, np.nan)


def auc(errors: np.ndarray, thresholds: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """Mean of ``pck`` over the thresholds, the normalised area under its curve, per joint: (J,), 0 to 1."""
    return np.mean([pck(errors, float(t), counted) for t in thresholds], axis=0)


def per_frame(values: np.ndarray, frame: np.ndarray, frames: int) -> np.ndarray:
    """Sums over the rows of each image: values (N,) or (N, G) of rows in images (N,) give (F,) or (F, G)."""
    if values.ndim == 1:
        return np.bincount(frame, values, frames)
    return np.stack([np.bincount(frame, column, frames) for column in values.T], axis=1)


# ---- pairings: t, p, cost (M,) are truth row, prediction row and cost of every pair that may be chosen


def pairs_within_frames(truth: Truth, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """All rows of both tables that share a frame, ordered by truth row, then prediction row: 2 x (M,).

    Raises:
        ValueError: if the tables hold different numbers of joints.
    """
    joints = truth.joints_cam.shape[1], predictions.joints_cam.shape[1]
    if joints[0] != joints[1]:
        raise ValueError(f"Predictions must have the {joints[0]} joints of Truth, found {joints[1]}")
    return _pairs(truth.frame, predictions.frame)


def _pairs(of: np.ndarray, to: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(to, kind="stable")
    frame = to[order]
    start, stop = (np.searchsorted(frame, of, side) for side in ("left", "right"))
    count = stop - start
    first = np.cumsum(count) - count
    within = np.arange(count.sum()) - np.repeat(first, count)
    return np.repeat(np.arange(len(of)), count), order[np.repeat(start, count) + within]


def pairs_of_people(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """All rows of two different people who share a frame, each pair in both orders: 2 x (M,)."""
    a, b = _pairs(truth.frame, truth.frame)
    return a[a != b], b[a != b]


def chunks(count: int) -> list[slice]:
    """Slices that cover ``range(count)``, so that all pairs of a data set need not be in memory at once."""
    return [slice(i, i + _CHUNK) for i in range(0, count, _CHUNK)]


def nearest(people: int, t: np.ndarray, p: np.ndarray, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest prediction of every person, with replacement: one prediction may serve several people.

    Pairs must be ordered by truth row. Returns match (T,), the first of equally cheap predictions, and its
    cost (T,), infinite where there is no candidate.
    """
    match, best = np.full(people, MISSED), np.full(people, np.inf)
    if len(t):
        start = np.flatnonzero(np.diff(t, prepend=-1))
        best[t[start]] = np.minimum.reduceat(cost, start)
        hits = np.flatnonzero(cost == best[t])[::-1]
        match[t[hits]] = p[hits]  # reversed: of several hits the first is written last
    return match, best


def greedy(people: int, predicted: int, t: np.ndarray, p: np.ndarray) -> np.ndarray:
    """One-to-one pairing that takes pairs as they come and skips those whose person or prediction is taken.

    Sorted by cost this is "closest pair first"; sorted by person, then cost, it is "each person in turn takes
    the best one left". Returns match (T,), MISSED where no pair was left.
    """
    match, free = [MISSED] * people, [True] * predicted
    for person, candidate in zip(t.tolist(), p.tolist(), strict=True):
        if match[person] == MISSED and free[candidate]:
            match[person], free[candidate] = candidate, False
    return np.array(match, dtype=np.int64)


def hungarian(people: int, frame: np.ndarray, t: np.ndarray, p: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """One-to-one pairing with as many pairs as possible and, among those, the smallest total cost per frame.

    ``frame`` (M,) is the frame of each pair. Returns match (T,).
    """
    match = np.full(people, MISSED)
    order = np.argsort(frame, kind="stable")
    t, p, cost, frame = t[order], p[order], cost[order], frame[order]
    edges = [*np.flatnonzero(np.diff(frame, prepend=-1)).tolist(), len(frame)]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        rows, row = np.unique(t[start:stop], return_inverse=True)
        columns, column = np.unique(p[start:stop], return_inverse=True)
        costs = cost[start:stop]
        forbidden = 1.0 + costs.sum()  # costs more than all allowed pairs together, so it is chosen last
        matrix = np.full((len(rows), len(columns)), forbidden)
        matrix[row, column] = costs
        i, j = linear_sum_assignment(matrix)
        allowed = matrix[i, j] < forbidden
        match[rows[i[allowed]]] = columns[j[allowed]]
    return match

"""How often a joint's true place lies within its calibrated radius (das/uncertainty.py), and how large radii are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from das.metrics.strict import Strict
from das.metrics.tables import Predictions, Truth, distances, required, root_aligned, root_of
from das.skeleton import Skeleton
from das.uncertainty import ROOT, Calibration, joint_groups, root_scales

_SAMPLES = 1_000_000


@dataclass(frozen=True)
class Residuals:
    """Errors of M people with a prediction, and the scales that were predicted with them.

    Attributes:
        errors: (M, J) mm, root-aligned.
        scales: (M, J) mm, of ``joint_scales``.
        counted: (M, J) bool, joints whose truth is known; a root joint never counts.
        root_errors: (M,) mm.
        root_scales: (M,) mm, of ``root_scales``.
    """

    errors: np.ndarray
    scales: np.ndarray
    counted: np.ndarray
    root_errors: np.ndarray
    root_scales: np.ndarray

    def scores(self, skeleton: Skeleton) -> dict[str, np.ndarray]:
        """Error over scale of every group's joints that count, and of the roots; mm per mm."""
        groups, ratio = joint_groups(skeleton), self.errors / self.scales
        names = dict.fromkeys(group for group in groups if group is not None)
        of_group = {name: np.array([group == name for group in groups]) for name in names}
        found = {name: ratio[self.counted & columns] for name, columns in of_group.items()}
        return {**found, ROOT: self.root_errors / self.root_scales}


def residuals(truth: Truth, predictions: Predictions, result: Strict, root: Sequence[int]) -> Residuals:
    """Of the people whom the strict protocol paired; ``root`` are the indices of the root joints."""
    found = result.found
    people, true = predictions.where(result.match[found]), truth.joints_cam[found]
    root_cam = root_of(people.joints_cam, root)
    return Residuals(
        errors=distances(root_aligned(people.joints_cam, root), root_aligned(true, root)),
        scales=required(people.scales, "Predictions.scales"),
        counted=result.scored[found],
        root_errors=distances(root_cam, root_of(true, root)),
        root_scales=root_scales(root_cam),
    )


def coverage(calibration: Calibration, found: Residuals, skeleton: Skeleton, level: float) -> dict[str, float]:
    """Share of errors within their radius of ``level``, by group; NaN for a group without people."""
    scores = found.scores(skeleton)
    return {name: _share(of_group <= calibration.radius(name, level)) for name, of_group in scores.items()}


def raw_coverage(found: Residuals, skeleton: Skeleton, level: float) -> dict[str, float]:
    """The same with radii that the prior Q itself promises: three independent Laplace errors of scale sigma each.

    The three scales count as equal, so that the radius is a multiple of their length. The root has no likelihood.
    """
    radius = laplace_radius(level)
    scores = found.scores(skeleton)
    return {name: _share(of_group <= radius) for name, of_group in scores.items() if name != ROOT}


@cache
def laplace_radius(level: float) -> float:
    """Quantile of the length of three standard Laplace numbers, over sqrt(3), the length of their scales."""
    drawn = np.random.default_rng(0).laplace(size=(_SAMPLES, 3))
    return float(np.quantile(np.linalg.norm(drawn, axis=1), level) / np.sqrt(3))


def _share(inside: np.ndarray) -> float:
    return float(inside.mean()) if len(inside) else float("nan")

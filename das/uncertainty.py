"""Calibrated doubt: how far a predicted joint may be from the truth, in mm, with a stated probability.

The likelihood loss (Eq. 9) learns a scale sigma for every joint of every person. It ranks predictions by their doubt,
but nothing makes its size true: the prior, the flow and the limits of sigma all bend it. Split conformal prediction
(Vovk et al., 2005) mends the size on held-out people. With scores e / s, error over scale, of n people, the k-th
smallest score, k = ceil((n + 1) p), times the scale of a new prediction is a radius that holds its error with a
probability of at least p, whatever the errors' distribution, if new people are like the held-out ones (exchangeable).
The guarantee is on average over all people; it says nothing about one pose or one camera, and people of other pictures
than those of the calibration are not like them.

A joint's error is measured relative to the root, as MPJPE is; left and right are one group. The root's own error is
measured against its depth: how far a person is, is told from size, so its doubt grows with the distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from das.fields import check_fields
from das.skeleton import Skeleton

LEVELS = (*(round(0.05 * i, 2) for i in range(1, 20)), 0.99)
"""Probabilities p for which radii are kept."""
ROOT = "root"
"""Name of the root's own group."""


def joint_groups(skeleton: Skeleton) -> tuple[str | None, ...]:
    """The group of every joint, its name without the side; None for a root joint, whose relative error is 0."""
    alone = skeleton.root if len(skeleton.root) == 1 else ()
    return tuple(None if j in alone else j[2:] if j[:2] in ("l_", "r_") else j for j in skeleton.joints)


def joint_scales(sigma_mm: np.ndarray | None, joints_cam: np.ndarray) -> np.ndarray:
    """Scale (n, J) mm of each joint's error: the length of sigma (n, J, 3) mm; 1 mm for a model without sigma.

    ``joints_cam`` (n, J, 3) tells how many there are.
    """
    return np.ones(joints_cam.shape[:-1]) if sigma_mm is None else np.linalg.norm(sigma_mm, axis=-1)


def root_scales(root_cam: np.ndarray) -> np.ndarray:
    """Scale (n,) mm of each root's error: its distance from the camera, of roots (n, 3) mm."""
    return np.linalg.norm(root_cam, axis=-1)


@dataclass(frozen=True)
class Calibration:
    """Radii of ``LEVELS``, in units of the predicted scale, by group of joints.

    Attributes:
        radii: by group, one number per level; infinite ones are None: too few people for that level.
        people: held-out people by group.
        uses_sigma: the scale is the network's sigma; else every prediction has the scale 1 mm.
    """

    radii: dict[str, tuple[float | None, ...]]
    people: dict[str, int]
    uses_sigma: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "radii", {name: tuple(of_group) for name, of_group in self.radii.items()})
        for name, of_group in self.radii.items():
            if len(of_group) != len(LEVELS):
                raise ValueError(f"calibration of {name}: {len(of_group)} radii found, {len(LEVELS)} wanted")
        if set(self.radii) != set(self.people):
            raise ValueError(f"calibration of {sorted(self.radii)}, but people of {sorted(self.people)}")

    @classmethod
    def fit(cls, scores: Mapping[str, np.ndarray], uses_sigma: bool) -> Calibration:
        """From error over scale of held-out people, whom training never saw, by group (das/metrics/coverage.py)."""
        radii = {name: tuple(_conformal(np.sort(of_group), p) for p in LEVELS) for name, of_group in scores.items()}
        return cls(radii, {name: len(of_group) for name, of_group in scores.items()}, uses_sigma)

    def radius(self, group: str, level: float) -> float:
        """Of a group, in units of the scale; infinite where too few people were held out, or none of the group.

        Raises:
            ValueError: ``level`` is none of ``LEVELS``.
        """
        if level not in LEVELS:
            raise ValueError(f"level = {level}, wanted one of {', '.join(map(str, LEVELS))}")
        radius = self.radii[group][LEVELS.index(level)] if group in self.radii else None
        return math.inf if radius is None else radius

    def joint_radii(self, scales: np.ndarray, skeleton: Skeleton, level: float) -> np.ndarray:
        """Radius (n, J) mm about each joint, relative to the root, that holds it with probability ``level``.

        ``scales`` (n, J) mm are those of ``joint_scales``. The radius of a root joint is 0.
        """
        groups = joint_groups(skeleton)
        return scales * np.array([0.0 if group is None else self.radius(group, level) for group in groups])

    def root_radii(self, root_cam: np.ndarray, level: float) -> np.ndarray:
        """Radius (n,) mm about roots (n, 3) mm that holds them with probability ``level``."""
        return root_scales(root_cam) * self.radius(ROOT, level)

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``from_json`` inverts it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Calibration:
        """Inverse of ``to_json``; ValueError names unknown or missing fields."""
        check_fields(set(value), {f.name for f in fields(cls)})
        return cls(**value)


def _conformal(scores: np.ndarray, level: float) -> float | None:
    """The ceil((n + 1) p)-th smallest of n sorted scores; None where that is more than n."""
    # Rounded first: 20 x 0.95 is not 19 in floating point.
    rank = math.ceil(round((len(scores) + 1) * level, 9))
    return float(scores[rank - 1]) if rank <= len(scores) else None

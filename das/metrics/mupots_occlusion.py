"""The two extra tables of MuPoTS-3D's toolbox: errors of the visible, and of the occluded joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from das.metrics.mupots import EVALUATED, NEAR
from das.metrics.tables import mean_per_joint, mean_where, pck, ratio


@dataclass(frozen=True)
class OcclusionTable:
    """Errors (14,) and pooled, mm, and shares within 150 mm, of the visible or of the occluded joints."""

    joint_mpjpe: np.ndarray
    mpjpe: float
    joint_pck: np.ndarray
    pck: float
    joints: int


def occlusion_tables(
    errors: np.ndarray, counted: np.ndarray, occluded: np.ndarray
) -> tuple[OcclusionTable, OcclusionTable]:
    """The toolbox's two extra tables: (visible joints only, occluded joints only).

    Here 150 mm itself is still right, unlike in the headline.

    Args:
        errors: (T, 17) mm, of one sequence or several.
        counted: (T,) bool.
        occluded: (T, 17) bool, the occlusion labels.
    """
    return (
        _joint_table(errors[counted, EVALUATED], ~occluded[counted, EVALUATED]),
        _joint_table(errors[counted, EVALUATED], occluded[counted, EVALUATED]),
    )


def occlusion_sums(errors: np.ndarray, counted: np.ndarray, occluded: np.ndarray) -> np.ndarray:
    """What the pooled numbers of ``occlusion_tables`` are ratios of, which add up: (2, 3).

    Rows are visible and occluded joints; columns are joints within 150 mm, the sum of errors in mm, and joints.
    """
    found = errors[counted, EVALUATED]
    parts = (~occluded[counted, EVALUATED], occluded[counted, EVALUATED])
    return np.array([[(found[part] <= NEAR).sum(), found[part].sum(), part.sum()] for part in parts])


def _joint_table(errors: np.ndarray, counted: np.ndarray) -> OcclusionTable:
    near = np.nextafter(NEAR, np.inf)  # "<" with this is "<= 150"
    return OcclusionTable(
        joint_mpjpe=mean_per_joint(errors, counted),
        mpjpe=mean_where(errors, counted),
        joint_pck=pck(errors, near, counted),
        pck=ratio((errors[counted] <= NEAR).sum(), counted.sum()),
        joints=int(counted.sum()),
    )

"""Object keypoint similarity (OKS): how alike two 2D poses are, from 0 to 1.

Suppression of near-duplicates (decode.py) uses it; das/metrics/coco.py passes the same spreads to COCO's evaluator.

    OKS = mean over joints of exp(-d^2 / (2 area (2 sigma)^2))

with d the pixel distance of the two positions of a joint, area the object's area in square pixels and sigma the
joint's annotation spread as a fraction of the object's size (COCO keypoint evaluation; 2 sigma is its k). Every
function takes NumPy arrays or torch tensors; the two branches are the same few operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")

# Spread of COCO17's joints, in its order (cocodataset.org, keypoint evaluation).
COCO17_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
# The release's suppression gives every joint the same spread.
SUPPRESSION_SIGMA = 0.08

# Keeps a person whose joints all fall on one pixel from dividing by zero; far below any area of a square pixel.
_TINY = float(np.spacing(1))


def pose_area(joints_uv: Array) -> Array:
    """Area in square pixels of the tight box of all joints: (..., J, 2) to (...)."""
    if isinstance(joints_uv, np.ndarray):
        low, high = joints_uv.min(axis=-2), joints_uv.max(axis=-2)
    else:
        low, high = joints_uv.amin(dim=-2), joints_uv.amax(dim=-2)
    return (high[..., 0] - low[..., 0]) * (high[..., 1] - low[..., 1])


def oks(squared: Array, area: Array, sigmas: Array, weight: Array) -> Array:
    """OKS from squared joint distances, (..., J) px^2 to (...).

    Args:
        squared: (..., J) squared distances.
        area: (...) square pixels.
        sigmas: (J,) spreads.
        weight: (..., J), 1 for a joint that counts and 0 for one that does not; none counting gives 0.
    """
    error = squared / (2 * sigmas) ** 2 / (area[..., None] + _TINY) / 2
    if isinstance(error, np.ndarray):
        return (np.exp(-error) * weight).sum(-1) / np.maximum(weight.sum(-1), 1)
    return ((-error).exp() * weight).sum(-1) / weight.sum(-1).clamp(min=1)


def oks_matrix(a: Array, b: Array, area: Array, sigmas: Array) -> Array:
    """OKS of every pose of ``a`` (n, J, 2) with every pose of ``b`` (m, J, 2), all joints counting: (n, m).

    ``area`` (n, m) or anything that broadcasts to it, in square pixels: suppression uses the mean area of the two.
    """
    squared = ((a[:, None] - b[None]) ** 2).sum(-1)  # (n, m, J)
    return oks(squared, area, sigmas, squared * 0 + 1)

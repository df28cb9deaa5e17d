"""The terms of the objective (Eq. 10) as pure functions; each returns a sum and the count that divides it.

Sum and count are returned separately because the count is that of the whole global batch: counts are added over all
workers and accumulation steps before they divide the sums. So the objective does not depend on the number of workers;
its gradient does where batch norm computes over one worker's images, unless that is frozen or synchronised.

``POSE_LOSSES`` and ``ROOT_DEPTH_LOSSES`` at the end hold the forms that a ``DASConfig`` can name. A new form is a
function and an entry here, and its name in das/config.py. ``rle_loss`` is Eq. 9 as written, ``rle_release_loss`` is
what the released code computes. All likelihoods are float32: a caller under autocast must leave it first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from das.config import PoseLikelihood, RootDepthLoss

# Focal loss (Lin et al., ICCV 2017): weight of positives, and exponent that reduces the loss of easy points.
_FOCAL_ALPHA = 0.25
_FOCAL_GAMMA = 2.0
# Where the release's root depth loss turns from quadratic to linear.
_SMOOTH_L1_BETA = 1 / 9


Densities = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Learned densities G over residuals (M, 3): log density (M,) of their u, v, and (M,) of all three dimensions."""


class PoseLoss(NamedTuple):
    """A pose loss summed over supervised joints; and the parts of a likelihood.

    Attributes:
        total: the sum.
        joints: supervised joints, the count that divides it.
        nll_sigma, nll_prior, nll_flow: the parts of ``total`` from scale, prior Q and learned density G; 0 for L1.
    """

    total: Tensor
    joints: Tensor
    nll_sigma: Tensor
    nll_prior: Tensor
    nll_flow: Tensor


def focal_loss(logits: Tensor, positive: Tensor, counted: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sigmoid focal loss of the center confidence (Eq. 1), alpha 0.25 and gamma 2.

    Args:
        logits: (B, M) of all feature points.
        positive: (B, M) bool.
        counted: (B, M) bool, points that add to the sum; None: all.

    Returns:
        The sum, and positives + images: with the images added, a batch with few people does not get a huge loss.
    """
    target = positive.to(logits.dtype)
    probability = logits.sigmoid()
    wrong = torch.where(positive, 1 - probability, probability)
    weight = torch.where(positive, _FOCAL_ALPHA, 1 - _FOCAL_ALPHA) * wrong**_FOCAL_GAMMA
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    losses = weight * cross_entropy
    return (losses if counted is None else losses.where(counted, 0.0)).sum(), positive.sum() + len(logits)


def centerness_loss(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross entropy with a soft target: logits (P,), target (P,) in [0, 1]; the count is P."""
    total = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    return total, _count(logits)


def root_uv_loss(root: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """L1 of the root's image offset (Eq. 2), (P, 2) strides, summed over u and v; the count is P."""
    return (root - target).abs().sum(), _count(root)


def root_depth_loss(depth: Tensor, target: Tensor, has_depth: Tensor, form: RootDepthLoss) -> tuple[Tensor, Tensor]:
    """L1 (Eq. 2) or the release's smooth L1 (beta 1/9) of the raw root depth.

    Args:
        depth: (P,) predicted, raw units.
        target: (P,) the same.
        has_depth: (P,) bool, the person is annotated in 3D; only these count.
        form: an entry of ``ROOT_DEPTH_LOSSES``.

    Returns:
        The sum, and how many positives have depth.
    """
    return ROOT_DEPTH_LOSSES[form](depth.where(has_depth, 0.0), target.where(has_depth, 0.0)), has_depth.sum()


def l1_pose_loss(offsets: Tensor, target: Tensor, supervised: Tensor, has_z: Tensor) -> PoseLoss:
    """Eq. 3: L1 over the dimensions of every supervised joint.

    Args:
        offsets: (P, J, 3) predicted, network units.
        target: (P, J, 3) the same.
        supervised: (P, J) bool, the joint counts.
        has_z: (P, J) bool, it counts in depth too, else in u, v alone.
    """
    dimensions = torch.stack((supervised, supervised, supervised & has_z), dim=-1)
    total = (offsets - target).where(dimensions, 0.0).abs().sum()
    nothing = total.detach() * 0
    return PoseLoss(total, supervised.sum(), nothing, nothing, nothing)


def rle_loss(
    offsets: Tensor, target: Tensor, sigma: Tensor, supervised: Tensor, has_z: Tensor, densities: Densities
) -> PoseLoss:
    """Residual log-likelihood (Eq. 9), once per joint: -log Q(z) - log G(z) + sum over dimensions of log sigma.

    z = (target - offset) / sigma is 2- or 3-dimensional; Q is the standard Laplace density per dimension, G the flow
    of that dimension. A joint without depth, of a person annotated in 2D, has a likelihood in the image plane only.

    Args:
        offsets: (P, J, 3) predicted, network units.
        target: (P, J, 3) the same.
        sigma: (P, J, 3) scales, above 0.
        supervised: (P, J) bool, the joint counts.
        has_z: (P, J) bool, it counts in depth too, else in u, v alone.
        densities: G of u, v, and of u, v, z.
    """
    dimensions = torch.stack((supervised, supervised, supervised & has_z), dim=-1)  # (P, J, 3)
    scale = sigma.where(dimensions, 1.0)
    z = (target - offsets).where(dimensions, 0.0) / scale
    nll_sigma = scale.log().sum()
    nll_prior = z.abs().sum() + math.log(2) * dimensions.sum()
    nll_flow = -_log_density(z, supervised, has_z, densities)
    return PoseLoss(nll_sigma + nll_prior + nll_flow, supervised.sum(), nll_sigma, nll_prior, nll_flow)


def rle_release_loss(
    offsets: Tensor, target: Tensor, sigma: Tensor, supervised: Tensor, has_z: Tensor, densities: Densities
) -> PoseLoss:
    """The released form of Eq. 9, summed over all 3 dimensions of every supervised joint.

    It differs from the paper in four ways: log sigma counts twice per dimension; the joint log density of the flow
    counts once per dimension, three times in all; the Laplace term is |t - u| / (sqrt(2) sigma) with a Gaussian's
    constant log sqrt(2 pi); the residual given to the flow is (u - t) / sigma, of the opposite sign. A joint without
    depth still counts 3 dimensions: its z adds a constant. Arguments as for ``rle_loss``.
    """
    error = (offsets - target).where(supervised[..., None], 0.0)
    scale = sigma.where(supervised[..., None], 1.0)
    nll_sigma = 2 * scale.log().sum()
    constant = 3 * math.log(math.sqrt(2 * math.pi)) * supervised.sum()
    nll_prior = (error.abs() / (math.sqrt(2) * scale + 1e-9)).sum() + constant
    nll_flow = -3 * _log_density(error / scale, supervised, has_z, densities)
    return PoseLoss(nll_sigma + nll_prior + nll_flow, supervised.sum(), nll_sigma, nll_prior, nll_flow)


def _log_density(residual: Tensor, supervised: Tensor, has_z: Tensor, densities: Densities) -> Tensor:
    """Sum of log G over the supervised joints: (P, J, 3) residuals in 2 dimensions where there is no depth, else in 3.

    Both densities are taken of every joint, unsupervised ones at 0, and masks pick one: shapes are known beforehand, so
    the host need not wait for a GPU to count.
    """
    plane, space = densities(residual.flatten(0, 1))  # (P J,)
    density = torch.where(has_z.flatten(), space, plane)
    return density.where(supervised.flatten(), 0.0).sum()


def _count(rows: Tensor) -> Tensor:
    """The number of rows, made on their device."""
    return torch.full((), len(rows), device=rows.device)


class RegressionLoss(Protocol):
    """A pose loss of offsets alone; arguments and result as in ``l1_pose_loss``."""

    def __call__(self, offsets: Tensor, target: Tensor, supervised: Tensor, has_z: Tensor) -> PoseLoss:
        """Sum over the supervised joints."""


class LikelihoodLoss(Protocol):
    """A pose loss with a scale per joint and dimension and a learned density; arguments as in ``rle_loss``."""

    def __call__(
        self,
        offsets: Tensor,
        target: Tensor,
        sigma: Tensor,
        supervised: Tensor,
        has_z: Tensor,
        densities: Densities,
    ) -> PoseLoss:
        """Sum over the supervised joints."""


@dataclass(frozen=True)
class Regression:
    """A pose loss for which the model needs neither sigma nor flows."""

    loss: RegressionLoss


@dataclass(frozen=True)
class Likelihood:
    """A pose loss for which the model predicts sigma and the criterion learns flows.

    Attributes:
        loss: the function.
        small_flows: flows start close to the standard normal, so that an untrained one cannot mislead the offsets;
            else they start with torch's defaults, as in the release.
        root_depth: the root joint's own depth offset, 0 by definition, adds its constant likelihood (release).
    """

    loss: LikelihoodLoss
    small_flows: bool = True
    root_depth: bool = False


POSE_LOSSES: dict[PoseLikelihood, Regression | Likelihood] = {
    "l1": Regression(l1_pose_loss),
    "rle": Likelihood(rle_loss),
    "rle_release": Likelihood(rle_release_loss, small_flows=False, root_depth=True),
}
"""Every form of the pose loss by its name in ``DASConfig.pose_likelihood``."""

ROOT_DEPTH_LOSSES: dict[RootDepthLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": lambda depth, target: (depth - target).abs().sum(),
    "smooth_l1": lambda depth, target: F.smooth_l1_loss(depth, target, beta=_SMOOTH_L1_BETA, reduction="sum"),
}
"""Every form of the root depth loss by its name in ``DASConfig.root_depth_loss``: (M,) twice to their sum."""

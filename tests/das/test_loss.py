"""The terms of the objective, against textbook formulas and torch's own distributions."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Laplace, MultivariateNormal

from das.config import PoseLikelihood, RootDepthLoss
from das.flow import RealNVP
from das.loss import (
    POSE_LOSSES,
    ROOT_DEPTH_LOSSES,
    centerness_loss,
    focal_loss,
    l1_pose_loss,
    rle_loss,
    rle_release_loss,
    root_depth_loss,
    root_uv_loss,
)


class Gaussian:
    """A flow whose density is known: independent normals of a given spread."""

    def __init__(self, dim, spread=1.0):
        self.density = MultivariateNormal(torch.zeros(dim).double(), torch.eye(dim).double() * spread**2)

    def log_prob(self, x):
        return self.density.log_prob(x)


def both(flow_2d, flow_3d):
    """The two densities of a likelihood."""
    return lambda x: (flow_2d.log_prob(x[:, :2]), flow_3d.log_prob(x))


@pytest.fixture
def case():
    g = torch.Generator().manual_seed(0)
    p, j = 5, 4
    offsets, target = (torch.randn(p, j, 3, generator=g, dtype=torch.float64) for _ in range(2))
    sigma = torch.rand(p, j, 3, generator=g, dtype=torch.float64) + 0.05
    supervised = torch.rand(p, j, generator=g) < 0.7
    has_z = torch.tensor([True, False, True, True, False])[:, None].repeat(1, j)
    has_z[:, 2] = False  # a root joint
    return offsets, target, sigma, supervised, has_z


def test_every_name_that_a_configuration_takes_has_its_loss():
    assert tuple(POSE_LOSSES) == get_args(PoseLikelihood)
    assert tuple(ROOT_DEPTH_LOSSES) == get_args(RootDepthLoss)


def test_focal_loss_is_its_formula():
    logits = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4
    positive = torch.arange(100).view(2, 50) % 7 == 0
    total, count = focal_loss(logits, positive)
    expected = 0.0
    for x, y in zip(logits.flatten().tolist(), positive.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        expected += -0.25 * (1 - p) ** 2 * math.log(p) if y else -0.75 * p**2 * math.log(1 - p)
    assert total.item() == pytest.approx(expected, rel=1e-9)
    assert count.item() == positive.sum() + 2
    half = torch.arange(100).view(2, 50) % 2 == 0
    some, same_count = focal_loss(logits, positive, half)
    torch.testing.assert_close(some + focal_loss(logits, positive, ~half)[0], total)
    assert some < total and same_count == count


@given(x=st.floats(-200, 200))
@settings(deadline=None)
def test_focal_loss_stays_finite_at_extreme_logits(x):
    for positive in (True, False):
        logits = torch.tensor([[x]], requires_grad=True)
        total, _ = focal_loss(logits, torch.tensor([[positive]]))
        total.backward()
        assert total.isfinite() and logits.grad.isfinite().all()


def test_centerness_loss_is_least_at_its_target():
    target = torch.tensor([0.1, 0.5, 0.9])
    logits = target.logit().requires_grad_()
    total, count = centerness_loss(logits, target)
    total.backward()
    assert count == 3 and logits.grad.abs().max() < 1e-6
    assert total.item() == pytest.approx(sum(-t * math.log(t) - (1 - t) * math.log(1 - t) for t in (0.1, 0.5, 0.9)))


def test_root_losses_sum_and_count():
    root, target = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[0.5, 4.0], [0.0, 0.0]])
    assert [v.item() for v in root_uv_loss(root, target)] == [3.5, 2]
    depth, goal = torch.tensor([1.0, 2.0, 100.0]), torch.tensor([1.05, 3.0, 0.0])
    has_depth = torch.tensor([True, True, False])
    total, count = root_depth_loss(depth, goal, has_depth, "l1")
    assert (total.item(), count.item()) == (pytest.approx(1.05), 2)
    total, count = root_depth_loss(depth, goal, has_depth, "smooth_l1")
    # quadratic below 1/9, then linear: 0.5 x^2 * 9, |x| - 1/18
    assert (total.item(), count.item()) == (pytest.approx(0.5 * 0.05**2 * 9 + 1 - 1 / 18, rel=1e-5), 2)


def test_l1_pose_loss_counts_joints_and_leaves_out_missing_depth(case):
    offsets, target, _, supervised, has_z = case
    loss = l1_pose_loss(offsets, target, supervised, has_z)
    expected = 0.0
    for p, j in supervised.nonzero().tolist():
        expected += (offsets[p, j] - target[p, j])[: 3 if has_z[p, j] else 2].abs().sum().item()
    assert loss.total.item() == pytest.approx(expected) and loss.joints == supervised.sum()


@pytest.mark.parametrize("spread", [1.0, 0.5])
def test_rle_is_prior_times_learned_density_over_sigma_once_per_joint(case, spread):
    offsets, target, sigma, supervised, has_z = case
    loss = rle_loss(offsets, target, sigma, supervised, has_z, both(Gaussian(2, spread), Gaussian(3, spread)))
    sigmas, priors, flows = 0.0, 0.0, 0.0
    for p, j in supervised.nonzero().tolist():
        d = 3 if has_z[p, j] else 2
        z = (target[p, j, :d] - offsets[p, j, :d]) / sigma[p, j, :d]
        sigmas += sigma[p, j, :d].log().sum()
        priors -= Laplace(torch.zeros(d).double(), 1.0).log_prob(z).sum()
        flows -= Gaussian(d, spread).log_prob(z)
    for ours, expected in zip((loss.nll_sigma, loss.nll_prior, loss.nll_flow), (sigmas, priors, flows), strict=True):
        torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(loss.total, sigmas + priors + flows)
    assert loss.joints == supervised.sum()


def test_release_form_counts_log_sigma_twice_and_the_density_three_times(case):
    offsets, target, sigma, supervised, has_z = case
    loss = rle_release_loss(offsets, target, sigma, supervised, has_z, both(Gaussian(2), Gaussian(3)))
    expected = 0.0
    for p, j in supervised.nonzero().tolist():
        d = 3 if has_z[p, j] else 2
        density = Gaussian(d).log_prob(((offsets - target) / sigma)[p, j, :d])
        for k in range(3):
            s, error = sigma[p, j, k], (offsets - target)[p, j, k].abs()
            expected += s.log() - density + (s * math.sqrt(2 * math.pi)).log() + error / (math.sqrt(2) * s + 1e-9)
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.nll_sigma + loss.nll_prior + loss.nll_flow, loss.total)


@pytest.mark.parametrize("form", [rle_loss, rle_release_loss])
def test_likelihood_learns_offset_scale_and_density(form):
    """Maximum likelihood on residuals of spread 0.2 around 0.7 finds both, and every flow gets a gradient."""
    torch.manual_seed(0)
    target = 0.7 + 0.2 * torch.randn(200, 1, 3)
    offset, raw = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    flow_2d, flow_3d = (RealNVP(d, small_init=True) for d in (2, 3))
    supervised, has_z = torch.ones(200, 1, dtype=torch.bool), (torch.arange(200) % 2 == 0)[:, None]
    optimizer = torch.optim.Adam([offset, raw], lr=0.03)
    for _ in range(120):
        args = (offset.expand(200, 1, 3), target, raw.sigmoid().expand(200, 1, 3) + 1e-3, supervised, has_z)
        loss = form(*args, both(flow_2d, flow_3d))
        optimizer.zero_grad()
        (loss.total / loss.joints).backward()
        optimizer.step()
    assert (offset - 0.7).abs().max() < 0.05
    assert (0.05 < raw.sigmoid()).all() and (raw.sigmoid() < 0.45).all()
    for flow in (flow_2d, flow_3d):
        assert all(p.grad is not None for p in flow.parameters())
        assert any(p.grad.any() for p in flow.parameters())


@pytest.mark.parametrize("form", [rle_loss, rle_release_loss])
def test_unsupervised_nonsense_reaches_neither_loss_nor_gradient(case, form):
    offsets, target, sigma, supervised, has_z = case
    target = target.masked_fill(~supervised[..., None], torch.nan)
    offsets = offsets.clone().requires_grad_()
    loss = form(offsets, target, sigma, supervised, has_z, both(Gaussian(2), Gaussian(3)))
    loss.total.backward()
    assert loss.total.isfinite() and offsets.grad.isfinite().all()
    assert (offsets.grad[~supervised] == 0).all() and (offsets.grad[supervised][:, :2] != 0).all()
    other = l1_pose_loss(offsets, target, supervised, has_z).total
    (gradient,) = torch.autograd.grad(other, offsets)
    assert other.isfinite() and gradient.isfinite().all()


def test_sums_without_positives_are_zero_and_differentiable():
    no_people = torch.zeros(0, 15, 3, requires_grad=True)
    none = torch.zeros(0, 15, dtype=torch.bool)
    flows = RealNVP(2), RealNVP(3)
    for form in (rle_loss, rle_release_loss):
        loss = form(no_people, no_people.detach(), no_people.detach() + 1, none, none, both(*flows))
        loss.total.backward()
        assert loss.total == 0 and loss.joints == 0
    assert l1_pose_loss(no_people, no_people.detach(), none, none).total == 0
    assert all(p.grad is not None and not p.grad.any() for f in flows for p in f.parameters())

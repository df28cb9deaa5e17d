import numpy as np
import pytest
import torch

from das.flow import RealNVP
from tests.das.release_vectors import from_base


def below(data, prefix):
    return {key.removeprefix(prefix): torch.from_numpy(data[key]) for key in data if key.startswith(prefix)}


def recorded_flows(golden):
    """Every flow of the recorded file: name, its vectors, and a RealNVP with its weights."""
    data = np.load(golden / "model" / "A_real_nvp.npz")
    names = sorted({key.split("/")[0] for key in data if not key.startswith("sd/")})
    assert names
    for name in names:
        flow = RealNVP(data[f"{name}/x"].shape[1])
        flow.load_state_dict(below(data, f"sd/{name}."))
        yield name, below(data, f"{name}/"), flow


def random_flow(dim, dtype=torch.float64):
    torch.manual_seed(dim)
    return RealNVP(dim).to(dtype)


@pytest.mark.golden
def test_density_and_its_gradient_match_the_release(golden):
    for _, want, flow in recorded_flows(golden):
        x = want["x"].requires_grad_()
        log_prob = flow.log_prob(x)
        torch.testing.assert_close(log_prob, want["log_prob"], rtol=1e-4, atol=1e-5)
        (gradient,) = torch.autograd.grad(log_prob.sum(), x)
        torch.testing.assert_close(gradient, want["dlogprob_dx"], rtol=1e-4, atol=1e-4)


@pytest.mark.golden
def test_both_directions_match_the_release(golden):
    for _, want, flow in recorded_flows(golden):
        z, log_det = flow.to_base(want["x"])
        torch.testing.assert_close(z, want["z"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(log_det, want["log_det"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(from_base(flow, want["sample_z"]), want["sample_x"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
def test_log_determinant_is_that_of_the_jacobian(dim):
    flow = random_flow(dim)
    x = 2 * torch.randn(20, dim, dtype=torch.float64)
    _, log_det = flow.to_base(x)
    for row, value in zip(x, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda r: flow.to_base(r[None])[0][0], row)
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(value.item(), abs=1e-10)


@pytest.mark.parametrize("dim", [2, 3])
def test_directions_are_inverses(dim):
    flow = random_flow(dim)
    x = 3 * torch.randn(50, dim, dtype=torch.float64)
    torch.testing.assert_close(from_base(flow, flow.to_base(x)[0]), x, rtol=1e-10, atol=1e-10)


def test_density_integrates_to_one():
    flow = random_flow(2)
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dim", [2, 3])
def test_small_init_starts_at_the_standard_normal(dim):
    torch.manual_seed(0)
    x = torch.randn(100, dim)
    normal = torch.distributions.Normal(0, 1).log_prob(x).sum(1)
    torch.testing.assert_close(RealNVP(dim, small_init=True).log_prob(x), normal, atol=1e-3, rtol=0)
    assert (RealNVP(dim).log_prob(x) - normal).abs().max() > 0.05


def test_autocast_leaves_the_density_in_float32():
    flow = random_flow(3, torch.float32)
    x = torch.randn(30, 3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = flow.log_prob(x)
        low = flow.log_prob(x.bfloat16())
    assert inside.dtype == low.dtype == torch.float32
    assert torch.equal(inside, flow.log_prob(x))


def test_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="dim = 4"):
        RealNVP(4)

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from das.recursive_update import FeaturePoints, RecursiveUpdate, UpdateState, update_at, update_dense
from das.release.weights import official_key

KINDS = ["none", "single", "multi", "release"]


def random_state(kind, batch=2, joints=3, samples=4, height=5, width=7, spread=2.0, root=1, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.randn(batch, joints, *shape, height, width, generator=generator, dtype=torch.float64)

    if kind in ("none", "single"):
        return UpdateState(kind, spread * rand(3), root=root)
    confidence = rand(3) if kind == "release" else rand(samples)
    return UpdateState(kind, spread * rand(3), spread * rand(samples, 2), confidence, root)


def every_point(state):
    batch, _, _, height, width = state.offsets.shape
    axes = (torch.arange(n) for n in (batch, height, width))
    return FeaturePoints(*(axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")))


def at_points(dense, points):
    return dense[points.image, :, :, points.y, points.x]


def bilinear(maps, x, y):
    """(C, h, w) read at one place, zero outside, by the definition."""
    value = np.zeros(len(maps))
    for row in range(maps.shape[1]):
        for column in range(maps.shape[2]):
            value += max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row)) * maps[:, row, column]
    return value


def softmax(logits):
    e = np.exp(logits - logits.max(0))
    return e / e.sum(0)


def by_hand(state, image, joint, row, column):
    """The updated offset of one joint at one point, word by word from the paper and the release's description."""
    offsets = state.offsets[image, joint].numpy()
    u = offsets[:, row, column]
    here = np.array([column, row])
    if state.kind == "none":
        return u
    t = here + u[:2]
    if state.kind == "single":
        return u + bilinear(offsets, *t)
    sampling = state.sampling[image, joint].numpy()  # (S, 2, h, w)
    confidence = state.confidence[image, joint].numpy()
    around_target = np.array([bilinear(s, *t) for s in sampling])  # (S, 2)
    if state.kind == "multi":
        p = softmax(bilinear(confidence, *t))
        return u + sum(p_m * (np.append(d, 0) + bilinear(offsets, *(t + d))) for p_m, d in zip(p, around_target))
    displacements = [d + u[:2] for d in around_target] + [s[:, row, column] for s in sampling]
    p = softmax(np.array([bilinear(confidence, *(here + d)) for d in displacements]))  # (2S, 3)
    values = np.array([np.append(d, 0) + bilinear(offsets, *(here + d)) for d in displacements])
    return (p * values).sum(0)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_formula_word_by_word(kind):
    state = random_state(kind)
    dense = update_dense(state)
    for b, k, i, j in np.ndindex(2, 3, 5, 7):
        want = by_hand(state, b, k, i, j)
        if k == state.root:
            want[2] = 0
        np.testing.assert_allclose(dense[b, k, :, i, j].numpy(), want, atol=1e-10)


@given(
    kind=st.sampled_from(KINDS),
    joints=st.integers(1, 3),
    samples=st.integers(1, 5),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    spread=st.floats(0, 20),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_points_equal_the_dense_update(kind, joints, samples, height, width, spread, seed):
    state = random_state(kind, 2, joints, samples, height, width, spread, root=0, seed=seed)
    points = every_point(state)
    torch.testing.assert_close(update_at(state, points), at_points(update_dense(state), points), atol=1e-8, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("norm", [True, False])
def test_points_equal_the_dense_update_behind_layers_of_parameters(kind, layers, norm):
    torch.manual_seed(layers)
    update = RecursiveUpdate(kind, layers, 4, 5, 8, 32, norm, root=2)
    for parameter in update.parameters():  # the initial ones are too small to move anything
        torch.nn.init.normal_(parameter, std=0.3)
    features, offsets = torch.randn(2, 8, 9, 11), 2 * torch.randn(2, 5, 3, 9, 11)
    offsets.requires_grad_()
    state = update(features, offsets)
    points = FeaturePoints(*(torch.randint(n, (40,)) for n in (2, 9, 11)))
    points_result, dense_result = update_at(state, points), at_points(update_dense(state), points)
    torch.testing.assert_close(points_result, dense_result, atol=1e-4, rtol=1e-4)
    inputs = [offsets, *update.parameters()]
    direction = torch.randn_like(points_result)
    a = torch.autograd.grad((points_result * direction).sum(), inputs, retain_graph=True)
    b = torch.autograd.grad((dense_result * direction).sum(), inputs)
    for x, y in zip(a, b, strict=True):
        # Two ways of rounding a place at a cell's edge can differ in a gradient or two.
        assert (x - y).norm() < 1e-2 * y.norm() + 1e-4
    assert all(g.abs().sum() > 0 for g in a)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_exact_at_points(kind):
    state = random_state(kind, 1, 2, 2, 3, 4, spread=1.0)
    points = FeaturePoints(torch.tensor([0, 0]), torch.tensor([0, 2]), torch.tensor([3, 1]))
    maps = [t.requires_grad_() for t in (state.offsets, state.sampling, state.confidence) if t is not None]

    def result(offsets, sampling=None, confidence=None):
        return update_at(UpdateState(kind, offsets, sampling, confidence, state.root), points)

    assert torch.autograd.gradcheck(result, maps)


def test_points_next_to_the_joint_refine_a_far_point():
    """Eq. 6 as meant: cells near the joint know the rest of the way, a far cell inherits it."""
    joint_x, joint_y = 6.25, 3.5
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(10.0), indexing="ij")
    offsets = torch.stack((joint_x - x, joint_y - y, torch.zeros_like(x)))[None, None]
    offsets[0, 0, :2, 1, 1] = torch.tensor([4.0, 2.0])  # stops short at (5, 3)
    moved = update_at(UpdateState("single", offsets), FeaturePoints(*torch.tensor([[0], [1], [1]])))
    torch.testing.assert_close(moved[0, 0], torch.tensor([joint_x - 1, joint_y - 1, 0.0]))


def test_single_adds_the_map_to_itself_per_layer():
    offsets = torch.zeros(1, 2, 3, 20, 20)
    offsets[:, :, 0], offsets[:, :, 2] = 0.5, 0.1
    for layers in (0, 1, 2, 3):
        state = RecursiveUpdate("single", layers, 4, 2, 8, 8)(torch.zeros(1, 8, 20, 20), offsets)
        middle = update_dense(state)[0, 1, :, 10, 10]
        torch.testing.assert_close(middle, 2**layers * offsets[0, 1, :, 10, 10])


def test_multi_source_starts_close_to_single_source():
    torch.manual_seed(0)
    features, offsets = torch.randn(1, 16, 9, 9), torch.randn(1, 3, 3, 1, 1).expand(1, 3, 3, 9, 9)
    multi = RecursiveUpdate("multi", 1, 4, 3, 16, 16, norm=False)(features, offsets)
    centre = FeaturePoints(*torch.tensor([[0], [4], [4]]))
    torch.testing.assert_close(update_at(multi, centre), 2 * offsets[..., 0, 0], atol=0.1, rtol=0)
    assert multi.sampling.std() > 0.1


def test_outside_the_map_is_zero():
    offsets = torch.full((1, 1, 3, 4, 4), 100.0)
    result = update_at(UpdateState("single", offsets), FeaturePoints(*torch.tensor([[0], [0], [0]])))
    assert result.tolist() == [[[100.0, 100.0, 100.0]]]


@pytest.mark.parametrize("kind", KINDS)
def test_no_points_give_an_empty_result_with_a_gradient(kind):
    state = random_state(kind)
    state.offsets.requires_grad_()
    none = torch.zeros(0, dtype=torch.int64)
    result = update_at(state, FeaturePoints(none, none, none))
    assert result.shape == (0, 3, 3)
    result.sum().backward()
    assert state.offsets.grad.abs().sum() == 0


def test_a_diverged_map_gives_nan_not_a_crash():
    state = random_state("single")
    state.offsets[0, 0, 0, 2, 2] = float("nan")
    state.offsets[0, 0, 0, 3, 3] = float("inf")
    result = update_at(state, every_point(state))
    assert not result[2 * 7 + 2, 0].isfinite().all()
    assert result[7:].isfinite().any()


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_depth_of_the_root_is_zeroed(kind):
    state = random_state(kind, root=1)
    zeroed = update_dense(state)
    free = update_dense(UpdateState(state.kind, state.offsets, state.sampling, state.confidence, None))
    assert (zeroed[:, 1, 2] == 0).all() and (free[:, 1, 2] != 0).any()
    zeroed[:, 1, 2] = free[:, 1, 2]
    assert torch.equal(zeroed, free)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_samples_in_float32(kind):
    torch.manual_seed(0)
    update = RecursiveUpdate(kind, 2, 4, 3, 8, 32)
    offsets = 20 * torch.randn(1, 3, 3, 6, 300)
    with torch.autocast("cpu", torch.bfloat16):
        state = update(torch.randn(1, 8, 6, 300), offsets)
        inside = update_at(state, every_point(state)), update_dense(state)
    assert all(m is None or m.dtype == torch.float32 for m in (state.offsets, state.sampling, state.confidence))
    assert torch.equal(inside[0], update_at(state, every_point(state)))
    torch.testing.assert_close(inside[0], at_points(inside[1], every_point(state)), atol=1e-2, rtol=1e-3)


def kept_for_backward(state, result):
    """Bytes that autograd keeps for the result, beyond the state's own maps."""
    own = {t.untyped_storage().data_ptr() for t in (state.offsets, state.sampling, state.confidence) if t is not None}
    kept = {}

    def pack(t):
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result(state)
    return sum(t.untyped_storage().nbytes() for t in kept.values())


@pytest.mark.parametrize("kind", ["single", "multi", "release"])
def test_memory_is_proportional_to_the_points(kind):
    def kept(height, count):
        state = random_state(kind, height=height, width=32)
        state.offsets.requires_grad_()
        points = FeaturePoints(*(torch.randint(n, (count,)) for n in (2, height, 32)))
        return kept_for_backward(state, lambda s: update_at(s, points)), kept_for_backward(state, update_dense)

    assert kept(16, 20)[0] == kept(64, 20)[0]
    assert kept(16, 40)[0] == pytest.approx(2 * kept(16, 20)[0], rel=0.05)
    at_few, dense = kept(64, 20)
    assert at_few < dense / 10  # 20 of 4096 cells


def recorded_update(golden, layers):
    """The recorded branch with its first layers, its vectors, and J."""
    data = {k: torch.from_numpy(v) for k, v in np.load(golden / "model" / "D_recursive_update.npz").items()}
    reduction = data["sd/reduction.conv.weight"]
    joints = data["offset"].shape[1] // 3
    per_joint = data["sd/layer_0.next_level_offset.sampling_offset.weight"].shape[0] // joints
    update = RecursiveUpdate("release", layers, per_joint // 2, joints, reduction.shape[1], reduction.shape[0])
    prefix = "bbox_head.recursive_update_branch."
    names = {k: official_key(f"update.{k}").removeprefix(prefix) for k in update.state_dict()}
    update.load_state_dict({k: data[f"sd/{name}"] for k, name in names.items()})
    return update, data, joints


@pytest.mark.golden
@pytest.mark.parametrize(("layers", "tolerance"), [(1, 2e-4), (2, 1e-3), (3, 5e-3)])
def test_layers_match_the_release(golden, layers, tolerance):
    update, data, joints = recorded_update(golden, layers)
    state = update(data["feat"], data["offset"].unflatten(1, (joints, 3)))
    want = data[f"out{layers}"].unflatten(1, (joints, 3))
    torch.testing.assert_close(update_dense(state), want, atol=tolerance, rtol=0)
    points = every_point(state)
    torch.testing.assert_close(update_at(state, points), at_points(want, points), atol=tolerance, rtol=0)


@pytest.mark.golden
def test_gradients_match_the_release(golden):
    update, data, joints = recorded_update(golden, 1)
    # In float64, for float32 may put a place on the other side of a cell's edge, where the gradient jumps.
    features, offsets = (data[k].double().requires_grad_() for k in ("feat", "offset"))
    out = update_dense(update.double()(features, offsets.unflatten(1, (joints, 3))))
    direction = torch.cos(torch.arange(out.numel(), dtype=torch.float64)).view_as(out)
    for gradient, name in zip(torch.autograd.grad((out * direction).sum(), (features, offsets)), ("feat", "offset")):
        torch.testing.assert_close(gradient.float(), data[f"grad_{name}1"], atol=1e-3, rtol=1e-3)

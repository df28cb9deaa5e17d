import json

import numpy as np
import pytest
import torch

from das.head import Head
from das.recursive_update import RecursiveUpdate, update_dense
from das.release.weights import official_key


def make_head(**changes):
    torch.manual_seed(0)
    values = dict(joints=4, root=1, levels=2, in_channels=8, channels=32, branch_channels=32, centerness_channels=16)
    return Head(**{**values, **changes})


def load_recorded(module, prefix, tensors):
    """Copies recorded tensors, named as in the release's head, into our head or update."""
    for key, value in module.state_dict().items():
        name = "sd/" + official_key(f"{prefix}.{key}").removeprefix("bbox_head.")
        parts = [tensors[name.replace("*", str(i))] for i in range(4)] if "*" in name else tensors[name]
        value.copy_(torch.from_numpy(np.stack(parts) if "*" in name else parts))


@pytest.fixture
def recorded_head(golden):
    """The recorded small head and its update, with weights; the release's config of it; outputs per level."""
    folder = golden / "model"
    config = json.loads((folder / "E_head_config.json").read_text())["head"]
    branch = config["recursive_update"]
    head = Head(
        joints=config["num_joints"],
        root=config["root_idx"],
        levels=len(config["strides"]),
        in_channels=config["in_channels"],
        channels=config["feat_channels"],
        branch_channels=config["cls_branch"][0],
        centerness_channels=config["centerness_branch"][0],
    )
    update = RecursiveUpdate(
        kind="release",
        layers=branch["num_layers"],
        samples=branch["num_heads"],
        joints=config["num_joints"],
        in_channels=branch["in_channels"],
        channels=branch["feat_channels"],
        root=config["root_idx"],
    )
    state = np.load(folder / "E_head_state.npz")
    load_recorded(head, "head", state)
    load_recorded(update, "update", state)
    inputs = np.load(folder / "E_head_input.npz")
    outputs = []
    with torch.no_grad():
        for level in range(len(config["strides"])):
            prediction, features = head(torch.from_numpy(inputs[f"feat{level}"]), level, want_sigma=True)
            outputs.append((prediction, update_dense(update(features, prediction.joints))))
    return config, outputs


@pytest.mark.golden
def test_predictions_match_the_release(golden, recorded_head):
    want = {k: torch.from_numpy(v) for k, v in np.load(golden / "model" / "E_head_train.npz").items()}
    for level, (prediction, updated) in enumerate(recorded_head[1]):
        pose = (prediction.root, prediction.joints.flatten(1, 2), prediction.raw_sigma.flatten(1, 2))
        for name, value in (
            ("cls", prediction.confidence),
            ("cen", prediction.centerness),
            ("pose", torch.cat(pose, dim=1)),
            ("aux", updated.flatten(1, 2)),
        ):
            torch.testing.assert_close(value, want[f"{name}{level}"], atol=1e-3, rtol=0)


@pytest.mark.golden
def test_predictions_in_the_release_test_units_match(golden, recorded_head):
    config, outputs = recorded_head
    want = {k: torch.from_numpy(v) for k, v in np.load(golden / "model" / "E_head_eval.npz").items()}
    for level, (prediction, updated) in enumerate(outputs):
        stride = config["strides"][level]
        unit = torch.tensor([stride, stride, config["z_norm"]])[:, None, None]  # pixels and the annotation's cm
        root = prediction.root / torch.tensor([1, 1, config["depth_factor"]])[:, None, None]
        pose = torch.cat((root, (updated * unit).flatten(1, 2)), dim=1)
        torch.testing.assert_close(pose, want[f"pose{level}"], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(prediction.confidence, want[f"cls{level}"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(prediction.centerness, want[f"cen{level}"], rtol=1e-4, atol=1e-4)


@pytest.mark.golden
def test_every_recorded_tensor_has_a_place(golden):
    """The small head's names and shapes are the release's, and none is left over (flows belong to the criterion)."""
    wanted = json.loads((golden / "model" / "E_head_keys.json").read_text())
    config = json.loads((golden / "model" / "E_head_config.json").read_text())["head"]
    c = config["feat_channels"]
    sizes = (len(config["strides"]), config["in_channels"], c, config["cls_branch"][0], config["centerness_branch"][0])
    head = Head(config["num_joints"], config["root_idx"], *sizes)
    layers, heads = config["recursive_update"]["num_layers"], config["recursive_update"]["num_heads"]
    update = RecursiveUpdate("release", layers, heads, config["num_joints"], c, c)
    ours = {}
    for prefix, module in (("head", head), ("update", update)):
        for key, value in module.state_dict().items():
            name = official_key(f"{prefix}.{key}").removeprefix("bbox_head.")
            ours.update({name.replace("*", str(i)): [] for i in range(4)} if "*" in name else {name: [*value.shape]})
    assert ours == {k: v for k, v in wanted.items() if not k.startswith("flow")}


def test_root_depth_offset_and_its_sigma_are_constants():
    head = make_head()
    x = torch.randn(2, 8, 5, 6)
    prediction, _ = head(x, 0, want_sigma=True)
    assert (prediction.joints[:, 1, 2] == 0).all()
    assert (prediction.raw_sigma[:, 1, 2] == 1).all()
    (prediction.joints[:, 1, 2].sum() + prediction.raw_sigma[:, 1, 2].sum()).backward()
    assert head.joints.out.weight.grad.abs().sum() == 0
    assert head.sigma.out.weight.grad.abs().sum() == 0


def test_sigma_is_computed_only_when_wanted():
    head = make_head()
    calls = []
    head.sigma.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(1, 8, 4, 4)
    without, _ = head(x, 0)
    assert without.raw_sigma is None and not calls
    with_sigma, _ = head(x, 0, want_sigma=True)
    assert with_sigma.raw_sigma.shape == (1, 4, 3, 4, 4) and calls
    assert torch.equal(with_sigma.joints, without.joints)
    assert make_head(sigma=False).sigma is None


def test_level_scalars_multiply_their_own_outputs():
    head = make_head()
    x = torch.randn(1, 8, 4, 4)
    before, _ = head(x, 1, True)
    with torch.no_grad():
        head.scales[1].copy_(torch.tensor([2.0, 3.0, 5.0, 7.0]))
    after, _ = head(x, 1, True)
    other, _ = head(x, 0, True)
    torch.testing.assert_close(after.root, before.root * torch.tensor([2.0, 2, 3])[:, None, None])
    torch.testing.assert_close(after.joints, before.joints * torch.tensor([5.0, 5, 7])[:, None, None])
    for name in ("confidence", "centerness", "raw_sigma"):
        assert torch.equal(getattr(after, name), getattr(before, name))
    assert torch.equal(other.joints, before.joints)


def test_confidence_starts_at_its_prior():
    prediction, _ = make_head()(torch.randn(2, 8, 6, 6), 0)
    torch.testing.assert_close(prediction.confidence.sigmoid(), torch.full((2, 1, 6, 6), 0.01), atol=2e-3, rtol=0)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("deformable", [True, False])
def test_switches_build_what_they_say(norm, deformable):
    head = make_head(norm=norm, deformable=deformable)
    names = head.state_dict().keys()
    assert any(".gn." in n for n in names) == norm
    assert any("conv_offset" in n for n in names) == deformable
    assert all(f"{n.removesuffix('weight')}bias" in names for n in names if n.endswith("conv.weight"))
    _, features = head(torch.randn(4, 8, 12, 12), 0)
    assert 0.2 < features.std() < 5  # neither start lets the features fade


def test_shapes_hold_on_a_single_cell_and_in_training():
    head = make_head(in_channels=8, channels=64, branch_channels=64).train()
    prediction, features = head(torch.randn(1, 8, 1, 1), 0, True)
    assert features.shape == (1, 64, 1, 1)
    assert prediction.joints.shape == prediction.raw_sigma.shape == (1, 4, 3, 1, 1)

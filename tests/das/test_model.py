"""The whole network: against the recorded release, its shapes, its modes and low precision."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from das.config import VARIANTS, DASConfig, small
from das.model import DAS
from das.recursive_update import ReleaseLayer, update_dense
from das.release.weights import RELEASES, load_official, to_official
from tests.das.model_cases import (
    assert_recorded_outputs,
    everything,
    randomize,
    recorded_state,
    release_flows,
)


def tiny(**changes):
    values = dict(backbone="resnet18", backbone_width=8, fpn_channels=32, update="multi", update_layers=1)
    return DASConfig(**{**values, **changes})


# The release


@pytest.mark.golden
@pytest.mark.parametrize("name", RELEASES)
def test_whole_models_match_the_release(golden, name):
    model, flows = DAS(RELEASES[name]()).eval(), release_flows()
    load_official(recorded_state(golden, name, to_official(model, flows)), model, flows)
    assert_recorded_outputs(golden, name, model)


# Shapes, switches, modes


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_predicts_every_level(name):
    config = replace(VARIANTS[name](), backbone_width=8, fpn_channels=32)
    output = DAS(config).eval()(torch.randn(2, 3, 64, 96), want_sigma=True)
    assert len(output.levels) == len(output.updates) == len(config.strides)
    for stride, level, update in zip(config.strides, output.levels, output.updates, strict=True):
        h, w = -(-64 // stride), -(-96 // stride)
        assert level.confidence.shape == level.centerness.shape == (2, 1, h, w)
        assert level.root.shape == (2, 3, h, w)
        joints = (2, config.n_joints, 3, h, w)
        assert level.joints.shape == level.raw_sigma.shape == update_dense(update).shape == joints
        assert update.kind == config.update and update.root == config.skeleton.root_index


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_number_of_levels_follows_the_strides(levels):
    strides = tuple(8 << i for i in range(levels))
    config = tiny(strides=strides, range_ends=tuple(40.0 * 2**i for i in range(levels - 1)))
    model = DAS(config)
    output = model(torch.randn(2, 3, 128, 128))
    assert [level.confidence.shape[-1] for level in output.levels] == [128 // s for s in strides]


@pytest.mark.parametrize("update", ["none", "single", "multi", "release"])
@pytest.mark.parametrize(("pose_likelihood", "regress_root_xy", "levels"), [("l1", True, 1), ("rle", False, 4)])
def test_exactly_the_trainable_parameters_get_gradients(update, pose_likelihood, regress_root_xy, levels):
    """Otherwise data-parallel training would wait for them forever."""
    config = tiny(
        strides=(8, 16, 32, 64)[:levels],
        range_ends=(80.0, 160.0, 320.0)[: levels - 1],
        update=update,
        update_layers=2,
        pose_likelihood=pose_likelihood,
        regress_root_xy=regress_root_xy,
        offset_origin="root" if regress_root_xy else "pixel",
    )
    model = DAS(config)
    output = model(torch.randn(2, 3, 64, 64), want_sigma=pose_likelihood == "rle")
    sum(m.sum() for m in everything(output) if m.requires_grad).backward()
    assert {k for k, p in model.named_parameters() if p.grad is None} == {
        k for k, p in model.named_parameters() if not p.requires_grad
    }
    frozen = {k.split(".")[1] for k, p in model.named_parameters() if not p.requires_grad}
    assert frozen == (set() if regress_root_xy else {"root_xy"})


def test_training_and_test_mode_mean_the_same():
    """Apart from batch statistics, which a model without batch norm in its pyramid and with a frozen body lacks."""
    model = randomize(DAS(tiny(fpn_norm=False)))
    x = torch.randn(2, 3, 64, 64)
    model.train()
    model.backbone.eval()
    trained = everything(model(x, want_sigma=True))
    for a, b in zip(trained, everything(model.eval()(x, want_sigma=True)), strict=True):
        assert torch.equal(a, b)


def test_images_of_a_batch_do_not_touch_each_other():
    model = randomize(DAS(small())).eval()
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together, turned = model(x), model(x.flip(0))
    for a, b in zip(everything(together), everything(turned), strict=True):
        assert (a - b.flip(0)).norm() <= 1e-3 * a.norm()


def test_sigma_of_a_model_without_it_is_refused():
    model = DAS(tiny(pose_likelihood="l1"))
    assert model(torch.randn(2, 3, 64, 64)).levels[0].raw_sigma is None
    with pytest.raises(ValueError, match="pose_likelihood = 'l1'"):
        model(torch.randn(2, 3, 64, 64), want_sigma=True)


# Pose prior, normalisation


@pytest.mark.parametrize("update", ["none", "single", "multi", "release"])
@pytest.mark.parametrize("layers", [1, 2])
def test_an_untrained_model_predicts_its_priors(update, layers):
    torch.manual_seed(0)
    model = DAS(tiny(update=update, update_layers=layers)).eval()
    root, mean = torch.tensor([0.1, -0.2, 20.0]), torch.randn(15, 3)
    mean[model.config.skeleton.root_index, 2] = 0
    model.set_priors(root, mean)
    for branch in (model.head.root_xy, model.head.root_depth, model.head.joints):
        torch.nn.init.zeros_(branch.out.weight)  # the random part around the prior
    for layer in model.update.layers:
        if isinstance(layer, ReleaseLayer):  # the random part of gates, fresh offsets and displacements
            for out in (layer.update_weight, layer.update_offset_value, layer.sampling_offset, layer.sampling_conf):
                torch.nn.init.zeros_(out.weight)
    output = model(torch.randn(1, 3, 128, 128))
    updated = update_dense(output.updates[0])[0, :, :, 8, 8]  # away from the zeros outside the map
    torch.testing.assert_close(updated, mean, atol=0.1, rtol=0)
    torch.testing.assert_close(output.levels[0].root[0, :, 8, 8], root)


def test_misshapen_priors_are_refused():
    with pytest.raises(ValueError, match=r"mean_offsets has shape \(21, 3\), wanted \(15, 3\)"):
        DAS(tiny()).set_priors(torch.zeros(3), torch.zeros(21, 3))
    with pytest.raises(ValueError, match=r"mean_root has shape \(2,\), wanted \(3,\)"):
        DAS(tiny()).set_priors(torch.zeros(2), torch.zeros(15, 3))


def test_normalisation_is_imagenet_inside_and_zero_outside():
    torch.manual_seed(0)
    images = torch.randint(256, (2, 3, 8, 12), dtype=torch.uint8)
    out = DAS(tiny()).normalize(images, torch.tensor([[8, 12], [5, 7]]))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    want = ((images / 255) - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(out[0], want[0])
    torch.testing.assert_close(out[1, :, :5, :7], want[1, :, :5, :7])
    assert (out[1, :, 5:] == 0).all() and (out[1, :, :, 7:] == 0).all()
    assert out.dtype == torch.float32


def test_constants_are_not_part_of_the_weights():
    model = DAS(tiny())
    assert not {"mean", "std"} & model.state_dict().keys()
    assert model.to(torch.float64).mean.dtype == torch.float64


# Number formats, memory layouts, export


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("config", [small, partial(tiny, update="release", update_layers=2)])
def test_autocast_keeps_predictions_in_float32_and_close(config, dtype):
    torch.manual_seed(0)
    model = DAS(config()).eval()
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        low = model(x, want_sigma=True)
    with torch.no_grad():
        exact = everything(model(x, want_sigma=True))
    for a, b in zip(everything(low), exact, strict=True):
        assert a.dtype == torch.float32 and a.isfinite().all()
        assert (a - b).norm() <= 0.1 * b.norm() + 1e-3


def test_autocast_does_not_round_large_predictions_to_its_few_digits():
    torch.manual_seed(0)
    model = DAS(small()).eval()
    model.set_priors(torch.tensor([0.0, 0.0, 40.6]), torch.zeros(model.config.n_joints, 3))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        depths = [level.root[:, 2] for level in model(torch.randn(1, 3, 64, 64)).levels]
    assert all((depth - depth.bfloat16()).abs().max() > 0.05 for depth in depths)


def test_autocast_trains():
    model = DAS(small())
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.randn(2, 3, 64, 64), want_sigma=True)
    sum(m.square().mean() for m in everything(output)).backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("config", [small, partial(tiny, update="release")])
def test_channels_last_changes_nothing(config):
    model = randomize(DAS(config())).eval().double()  # so that rounding moves no place beyond a cell's edge
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        plain = everything(model(x, want_sigma=True))
        model.to(memory_format=torch.channels_last)
        last = everything(model(x.contiguous(memory_format=torch.channels_last), want_sigma=True))
    for a, b in zip(last, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-7)


class WithUpdate(torch.nn.Module):
    """What an export would wrap: updated offsets and confidences, as plain tensors."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        output = self.model(x)
        return [level.confidence for level in output.levels] + [update_dense(u) for u in output.updates]


def test_the_model_exports():
    model = WithUpdate(DAS(tiny(update="release", strides=(8,), range_ends=())).eval())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        for a, b in zip(program.module()(x), model(x), strict=True):
            torch.testing.assert_close(a, b)


def test_a_model_can_learn_one_picture():
    """Every part pulls in one direction: offsets, root, confidence and sigma of one image fit in some steps."""
    torch.manual_seed(0)
    model = DAS(tiny(strides=(8, 16), range_ends=(40.0,), update_layers=2))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        targets = [torch.rand_like(m) for m in everything(model(x, want_sigma=True))]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(12):
        predictions = everything(model(x, want_sigma=True))
        loss = sum((p - t).abs().mean() for p, t in zip(predictions, targets, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]

import math

import pytest
import torch

from das.backbone import BACKBONES, MSPN, recompute_layers
from das.config import BACKBONE_NAMES


def built(name, width=64):
    return BACKBONES[name](width, 2)


def torchvision_shapes(name):
    """Names and shapes of torchvision's ResNets without the classifier, by rule."""
    shapes = {"conv1.weight": (64, 3, 7, 7)}

    def norm(prefix, channels):
        shapes.update({f"{prefix}.{k}": (channels,) for k in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{prefix}.num_batches_tracked"] = ()

    norm("bn1", 64)
    in_channels, deep = 64, name == "resnet50"
    for layer, blocks in enumerate({"resnet18": [2] * 4}.get(name, [3, 4, 6, 3])):
        width = 64 * 2**layer
        out_channels = width * 4 if deep else width
        for block in range(blocks):
            at = f"layer{layer + 1}.{block}"
            kernels = [(width, in_channels, 1), (width, width, 3), (out_channels, width, 1)]
            if not deep:
                kernels = [(width, in_channels, 3), (width, width, 3)]
            for i, (d, c, k) in enumerate(kernels, start=1):
                shapes[f"{at}.conv{i}.weight"] = (d, c, k, k)
                norm(f"{at}.bn{i}", d)
            if block == 0 and (layer > 0 or deep):
                shapes[f"{at}.downsample.0.weight"] = (out_channels, in_channels, 1, 1)
                norm(f"{at}.downsample.1", out_channels)
            in_channels = out_channels
    return shapes


# Parameters of torchvision's models less those of their classifiers.
@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 11_176_512), ("resnet34", 21_284_672), ("resnet50", 23_508_032)]
)
def test_resnet_tensors_are_named_and_shaped_as_in_torchvision(name, parameters):
    with torch.device("meta"):
        model = built(name)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == torchvision_shapes(name)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_configurations_name_exactly_the_backbones_that_can_be_built():
    assert tuple(BACKBONES) == BACKBONE_NAMES


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [(64, 96), (70, 101)])
def test_maps_have_their_strides_and_channels(name, size):
    model = built(name, width=8)
    maps = model.eval()(torch.randn(2, 3, *size), stride4=True)
    assert [tuple(m.shape) for m in maps] == [
        (2, c, *(-(-n // s) for n in size)) for c, s in zip(model.channels, (4, 8, 16, 32), strict=True)
    ]
    for with_, without in zip(maps[1:], model(torch.zeros(1, 3, 32, 32)), strict=True):
        assert with_.shape[1] == without.shape[1]


def test_width_scales_every_stage():
    assert built("resnet18", 32).channels == (32, 64, 128, 256)
    assert built("resnet50", 16).channels == (64, 128, 256, 512)


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_mspn_trains_all_that_its_output_depends_on(stages):
    model = MSPN(stages, width=8)
    sum(m.square().mean() for m in model(torch.randn(1, 3, 64, 64))).backward()
    without_gradient = {k for k, p in model.named_parameters() if p.grad is None}
    frozen = {k for k, p in model.named_parameters() if not p.requires_grad}
    assert without_gradient == frozen
    assert frozen and all(k.startswith(f"multi_stage_mspn.{stages - 1}.upsample.up4.") for k in frozen)


@pytest.mark.parametrize("name", BACKBONES)
def test_convolutions_start_with_the_spread_that_keeps_gradients(name):
    """He et al. (ICCV 2015), eq. 14: standard deviation sqrt(2 / (k^2 d)) for d filters of k x k."""
    torch.manual_seed(0)
    for layer in built(name, width=16).modules():
        if isinstance(layer, torch.nn.Conv2d):
            spread = math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels))
            sure = 5 / math.sqrt(2 * layer.weight.numel())  # standard errors of a measured deviation
            assert layer.weight.std().item() == pytest.approx(spread, rel=sure)


@pytest.mark.parametrize("name", ["resnet18", "mspn"])
def test_recomputed_layers_give_the_same_gradients_and_running_statistics_and_keep_less(name):
    def trained(recompute):
        torch.manual_seed(0)
        backbone = built(name, 8)
        if recompute:
            recompute_layers(backbone)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            maps = backbone(torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)))
        sum(m.square().mean() for m in maps).backward()
        gradients = {k: p.grad for k, p in backbone.named_parameters() if p.grad is not None}
        return gradients, backbone.state_dict(), sum(kept)

    (wanted, state, all_of_it), (found, again, less) = trained(False), trained(True)
    assert less < 0.5 * all_of_it
    assert wanted.keys() == found.keys() and len(wanted) > 40
    assert all(torch.equal(wanted[k], found[k]) for k in wanted)
    assert all(torch.equal(state[k], again[k]) for k in state)

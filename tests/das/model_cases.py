"""The recorded models of the release, and all predictions of a model as a list: what tests of whole models share."""

import json
import zlib

import numpy as np
import pytest
import torch

from das.flow import RealNVP
from das.recursive_update import update_dense
from das.release.weights import FLOW_NAMES


def release_flows():
    return {key: RealNVP(key[1]) for key in FLOW_NAMES.values()}


def everything(output):
    """All predictions as one list of tensors."""
    maps = [v for level in output.levels for v in vars(level).values()] + [update_dense(u) for u in output.updates]
    return [m for m in maps if m is not None]


def randomize(model):
    """Moves every parameter, so that nothing is 0 by its initial value."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def recipe(key, shape, seed):
    """The recorded models' weights: a seeded function of the release's tensor name (golden/model/README.md)."""
    random = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
    u = random.random_sample(int(np.prod(shape)) if len(shape) else 1)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    if leaf == "running_var":
        v = 0.5 + u
    elif leaf == "running_mean":
        v = 0.2 * (u - 0.5)
    elif leaf == "scale":
        v = 0.8 + 0.4 * u
    elif len(shape) >= 2:
        gain = 0.3 if "conv_offset" in key else (1.5 if ".t." in key or ".s." in key else 6.0)
        v = (2 * u - 1) * np.sqrt(gain / np.prod(shape[1:]))
    elif leaf == "weight":
        v = 0.3 + 0.4 * u
    else:
        v = 0.2 * (u - 0.5)
    return v.reshape(shape).astype(np.float32)


def recorded_state(golden, name, like):
    """The state dict of the recorded whole model, checked against the recorded sums.

    Args:
        golden: folder of the recorded vectors.
        name: experiment.
        like: a state dict of the same keys and shapes, whose masks, which are constants, are taken.
    """
    info = json.loads((golden / "model" / f"G_recipe_exp_{name}.json").read_text())
    state = {
        key: value if key.endswith(".mask") else torch.from_numpy(recipe(key, tuple(value.shape), info["seed"]))
        for key, value in like.items()
    }
    for key, (total, magnitude) in info["probe_sum_abssum"].items():
        tensor = state[key].double()
        assert tensor.abs().sum().item() == pytest.approx(magnitude, rel=1e-6), key
        assert tensor.sum().item() == pytest.approx(total, rel=1e-6, abs=1e-6 * max(magnitude, 1)), key
    return state


@torch.no_grad()
def assert_recorded_outputs(golden, name, model):
    """The model, with the recorded weights, computes the recorded maps from the recorded image."""
    want = {k: torch.from_numpy(v) for k, v in np.load(golden / "model" / f"G_full_model_exp_{name}.npz").items()}

    def check(value, label, tolerance):
        """Against recorded maps: whole, or their first channels with every channel's mean and deviation."""
        assert any(k.startswith(label) for k in want), label
        for key, expected in want.items():
            if key == label or key.startswith(f"{label}_ch0_"):
                got = value[:, : expected.shape[1]]
            elif key == f"{label}_chmean":
                got = value.mean((0, 2, 3))
            elif key == f"{label}_chstd":
                got = value.std((0, 2, 3))
            else:
                continue
            torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance, msg=lambda m, k=key: f"{k}: {m}")

    # The release's test units: root depth in f' x annotation unit, joint offsets in pixels and annotation units.
    depth_factor, z_norm = {"panoptic": (20, 50), "mupots": (1, 50)}[name]
    maps = model.backbone(want["image"], stride4=True)
    for i, value in enumerate(maps):
        check(value, f"backbone{i}", 1e-4)
    for i, value in enumerate(model.fpn(maps[1:])):
        check(value, f"fpn{i}", 1e-4)
    output = model(want["image"])
    for i, stride in enumerate(model.config.strides):
        level = output.levels[i]
        root = level.root / torch.tensor([1, 1, depth_factor])[:, None, None]
        joints = update_dense(output.updates[i]) * torch.tensor([stride, stride, z_norm])[:, None, None]
        check(level.confidence, f"cls{i}", 1e-3)
        check(level.centerness, f"cen{i}", 1e-3)
        check(torch.cat((root, joints.flatten(1, 2)), dim=1), f"pose{i}", 1e-3)

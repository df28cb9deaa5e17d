"""Files of weights as their owners write them."""

import json
from pathlib import Path

import torch

from das.backbone import BACKBONES
from das.flow import RealNVP
from das.release.weights import FLOW_NAMES
from tests.das.model_cases import recorded_state


def official_file(golden: Path, name: str, path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint as the official training writes it, with the recorded model's weights; returns these.

    Keys and shapes are those that were recorded from the official model, not ours.
    """
    tensors = json.loads((golden / "model" / f"keys_exp_{name}.json").read_text())["tensors"]
    like = {key: torch.empty(about["shape"], dtype=getattr(torch, about["dtype"])) for key, about in tensors.items()}
    like |= {f"bbox_head.{flow}.mask": RealNVP(dim).mask for flow, (_, dim) in FLOW_NAMES.items()}
    state = recorded_state(golden, name, like)
    meta = {"epoch": 22, "iter": 9, "config": "model = dict()", "CLASSES": ("person",), "hook_msgs": {}}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 2e-5, "params": [0]}]}
    torch.save({"meta": meta, "state_dict": state, "optimizer": optimizer}, path)
    return state


def weights_of(config):
    """Random weights of a backbone, by our names."""
    torch.manual_seed(3)
    state = BACKBONES[config.backbone](config.backbone_width, config.mspn_stages).state_dict()
    return {k: v + torch.rand_like(v) if v.is_floating_point() else v + 5 for k, v in state.items()}


def mmpose_file(path, state):
    """A checkpoint of a pose network as MMPose writes it."""
    network = {f"backbone.{name}": value for name, value in state.items()}
    head = {"keypoint_head.predict_layers.0.conv_layers.0.conv.weight": torch.zeros(8, 8, 1, 1)}
    torch.save({"meta": {"epoch": 210}, "state_dict": {**network, **head}}, path)
    return path

"""The official release's state dict and ours: the same tensors under other names.

The backbone's names are equal. Elsewhere a table of prefixes suffices, except for the four scalars per level,
which are one tensor here. The release's normalizing flows are part of its head; ours belong to the criterion,
keyed by (prediction, dimension).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from das.criterion import Criterion
from das.flow import RealNVP
from das.model import DAS

Flows = Mapping[tuple[str, int], RealNVP]
"""Keys: ("initial" | "updated", 2 | 3)."""

FLOW_NAMES = {
    "flow3d": ("initial", 3),
    "flow2d": ("initial", 2),
    "flow3d_update": ("updated", 3),
    "flow2d_update": ("updated", 2),
}

# Ours to the release's; the first one that fits counts.
PREFIXES = (
    ("backbone.", "backbone."),
    ("fpn.", "neck."),
    ("head.confidence_tower.", "bbox_head.cls_convs."),
    ("head.root_tower.", "bbox_head.reg_convs."),
    ("head.pose_tower.", "bbox_head.pose_convs."),
    ("head.confidence.block.", "bbox_head.conv_cls_prev.0."),
    ("head.confidence.out.", "bbox_head.conv_cls."),
    ("head.centerness.block.", "bbox_head.conv_centerness_prev.0."),
    ("head.centerness.out.", "bbox_head.conv_centerness."),
    ("head.root_xy.block.", "bbox_head.conv_reg_prevs.0.0."),
    ("head.root_xy.out.", "bbox_head.conv_regs.0."),
    ("head.root_depth.block.", "bbox_head.conv_reg_prevs.1.0."),
    ("head.root_depth.out.", "bbox_head.conv_regs.1."),
    ("head.joints.block.", "bbox_head.conv_pose_prevs.0.0."),
    ("head.joints.out.", "bbox_head.conv_poses.0."),
    ("head.sigma.block.", "bbox_head.conv_pose_prevs.1.0."),
    ("head.sigma.out.", "bbox_head.conv_poses.1."),
    ("update.reduction.", "bbox_head.recursive_update_branch.reduction."),
)


def flows_of(criterion: Criterion) -> Flows:
    """The criterion's flows by (prediction, dimension), as the functions below take them."""
    flows: dict[tuple[str, int], RealNVP] = {}
    for key in FLOW_NAMES.values():
        name = f"{key[0]}_{key[1]}d"
        if name in criterion.flows:
            flow = criterion.flows[name]
            assert isinstance(flow, RealNVP)
            flows[key] = flow
    return flows


def official_key(key: str) -> str:
    """The release's name of one of our tensors; level scalars keep a ``*`` where their number goes."""
    if match := re.fullmatch(r"head\.scales\.(\d+)", key):
        return f"bbox_head.scales.{match[1]}.*.scale"
    if match := re.fullmatch(r"update\.layers\.(\d+)\.(.+)", key):
        return f"bbox_head.recursive_update_branch.layer_{match[1]}.next_level_offset.{match[2]}"
    for ours, theirs in PREFIXES:
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    raise ValueError(f"the release has no tensor like {key!r}")


def to_official(model: DAS, flows: Flows) -> dict[str, Tensor]:
    """The release's state dict (backbone.*, neck.*, bbox_head.*) of a release variant and its flows."""
    state: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        name = official_key(key)
        if "*" in name:
            state.update({name.replace("*", str(i)): scalar for i, scalar in enumerate(value)})
        else:
            state[name] = value
    for name, flow_key in FLOW_NAMES.items():
        if flow_key in flows:
            state.update({f"bbox_head.{name}.{k}": v for k, v in flows[flow_key].state_dict().items()})
    return state


def load_official(state: Mapping[str, Tensor], model: DAS, flows: Flows) -> None:
    """Copies the release's state dict into a release variant of the same architecture and into its flows.

    Raises:
        ValueError: the state dict lacks tensors, or has others, or some of another shape.
    """
    wanted = to_official(model, flows)
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        raise ValueError(f"official state dict: missing {_few(missing)}, unknown {_few(unknown)}")
    # The tensors of state_dict() share memory with the model's: copying into them loads it.
    for key, target in wanted.items():
        if target.shape != state[key].shape:
            raise ValueError(f"official {key}: shape {tuple(state[key].shape)}, wanted {tuple(target.shape)}")
    for key, target in wanted.items():
        target.copy_(state[key])


def read_official(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint file of the release, read without executing anything from it."""
    if not Path(path).is_file():
        raise ValueError(f"official checkpoint: {path} is no file")
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"official checkpoint: {path} has no 'state_dict'")
    return state


def _few(keys: list[str]) -> str:
    """Nothing, or the first keys and how many there are."""
    return f"{len(keys)} ({', '.join(keys[:3])}, ...)" if len(keys) > 3 else ", ".join(keys) or "none"

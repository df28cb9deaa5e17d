"""The official release's state dict and ours: the same tensors under other names.

The backbone's names are equal. Elsewhere a table of prefixes suffices, except for the four scalars per level,
which are one tensor here. The release's normalizing flows are part of its head; ours belong to the criterion,
keyed by (prediction, dimension).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from das.config import DASConfig, release_mupots, release_panoptic
from das.criterion import Criterion
from das.flow import RealNVP
from das.model import DAS
from das.model_info import Shapes, first_names, shape_differences

RELEASES: dict[str, Callable[[], DASConfig]] = {"panoptic": release_panoptic, "mupots": release_mupots}
"""The release's experiments."""

BATCH_COUNT = ".num_batches_tracked"
"""End of the names of tensors that no prediction depends on."""

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

    A batch norm's count of batches may be missing: no prediction depends on it, and programs of other versions do not
    write it.

    Raises:
        ValueError: the state dict lacks tensors, or has others, or some of another shape, or with NaN or infinity; then
            nothing is loaded.
    """
    wanted = to_official(model, flows)
    counts = {key: value for key, value in wanted.items() if key.endswith(BATCH_COUNT) and key not in state}
    found = {**state, **counts}
    if differences := shape_differences(shapes_of(found), shapes_of(wanted)):
        raise ValueError(f"not the release's model of {len(model.config.skeleton)} joints: {differences}")
    refuse_not_finite(state)
    # The tensors of state_dict() share memory with the model's: copying into them loads it.
    for key, target in wanted.items():
        target.copy_(found[key])


def experiment_of(state: Mapping[str, Tensor]) -> str:
    """The experiment of a state dict of the release, by the number of joints: a name of ``RELEASES``.

    Raises:
        ValueError: it is no state dict of the release; says what it is, as far as its keys show that.
    """
    key = "bbox_head.conv_poses.0.weight"
    for name, config in RELEASES.items():
        if key in state and state[key].shape[:1] == (3 * config().n_joints,):
            return name
    kinds = dict.fromkeys(name.split(".")[0] for name in state)
    shape = f" of {tuple(state[key].shape)}" if key in state else ""
    raise ValueError(
        f"its tensors are another network's: {'another' if shape else 'no'} {key}{shape} among {len(state)} tensors of "
        f"{first_names(kinds)}; wanted a whole model of the official release"
    )


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    """Shape of every tensor, by its name."""
    return {key: tuple(value.shape) for key, value in state.items()}


def refuse_not_finite(state: Mapping[str, Tensor]) -> None:
    """ValueError names the first tensor with NaN or infinity."""
    for key, value in state.items():
        if not value.isfinite().all():
            raise ValueError(f"{key[:100]} holds NaN or infinity")

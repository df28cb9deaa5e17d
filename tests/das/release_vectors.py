"""The release's layouts and units (recorded vectors) in ours: a test helper.

A recorded person is 63 numbers [cx, cy, normalised root depth, (u, v, dz) x 15, visibility x 15], in px and cm; without
any dz the release takes the person for one annotated in 2D. With a mean focal length of 1 px the two root depths agree
when Z_mm = 10 x normalised depth: the release learns 20 x normalised depth, we 2 x Z_mm / focal.
"""

import re

import numpy as np
import torch

from das.head import LevelOutput
from das.model import HeadOutput
from das.recursive_update import UpdateState
from das.sample import Batch

J = 15


def flow_weights(golden, flow):
    with np.load(golden / "model" / "A_real_nvp.npz") as vectors:
        prefix = f"sd/{flow}."
        return {k[len(prefix) :]: torch.from_numpy(vectors[k]) for k in vectors.files if k.startswith(prefix)}


def from_base(flow, z):
    """Samples of a flow, the inverse of ``to_base``: z (N, dim) of the standard normal -> x (N, dim)."""
    x = z
    for mask, s, t in zip(flow.mask, flow.s, flow.t, strict=True):
        kept, free = mask * x, 1 - mask
        x = kept + free * (x * s(kept).exp() + t(kept))
    return x


def load_flows(criterion, golden, supervise_initial):
    """The release's flow3d belongs to the initial prediction, or to the only one where just one is supervised."""
    plain = "initial" if supervise_initial else "updated"
    names = {f"{plain}_3d": "flow3d", f"{plain}_2d": "flow2d"}
    if supervise_initial:
        names |= {"updated_3d": "flow3d_update", "updated_2d": "flow2d_update"}
    assert set(names) == set(criterion.flows)
    for ours, theirs in names.items():
        criterion.flows[ours].load_state_dict(flow_weights(golden, theirs))


def numbered(vectors, stem):
    """Arrays named stem0, stem1, ... in order."""
    found = [m for m in (re.fullmatch(re.escape(stem) + r"(\d+)", k) for k in vectors.files) if m]
    return [vectors[m.group()] for m in sorted(found, key=lambda m: int(m.group(1)))]


def batch_of(people, height, width):
    """A batch without pixels from one array (n, 63) per image."""
    b, n = len(people), max(len(p) for p in people)
    poses = torch.zeros(b, n, 63)
    mask = torch.zeros(b, n, dtype=torch.bool)
    for i, p in enumerate(people):
        poses[i, : len(p)], mask[i, : len(p)] = torch.from_numpy(p), True
    uvd = poses[..., 3:48].unflatten(-1, (J, 3))
    root_depth = 10 * poses[..., 2]
    return Batch(
        keys=[f"recorded/{i}" for i in range(b)],
        images=torch.zeros(b, 3, height, width, dtype=torch.uint8),
        sizes=torch.tensor([[height, width]]).repeat(b, 1),
        K=torch.eye(3).repeat(b, 1, 1),
        distortion=torch.zeros(b, 5),
        joints_uv=uvd[..., :2],
        joints_depth=root_depth[..., None] + 10 * uvd[..., 2],
        visible=poses[..., 48:] > 0,
        root_uv=poses[..., :2],
        root_depth=root_depth,
        has_depth=(uvd[..., 2] != 0).any(-1),
        person_mask=mask,
        masked=torch.zeros(b, 0, 4),
    )


def scatter(values, index, shape):
    """Dense maps (B, C, h, w) of zeros with values (n, C) at flat indices (image, row, column)."""
    b, c, h, w = shape
    dense = torch.zeros(b * h * w, c)
    dense[torch.from_numpy(index).long()] = torch.from_numpy(values)
    return dense.view(b, h, w, c).permute(0, 3, 1, 2).contiguous()


def head_output(cls, centerness, pose, updated):
    """From training-mode maps per level: (B, 1, h, w) twice, (B, 93, h, w) and (B, 45, h, w)."""
    levels = [
        LevelOutput(c, e, p[:, :3], p[:, 3:48].unflatten(1, (J, 3)), p[:, 48:].unflatten(1, (J, 3)))
        for c, e, p in zip(cls, centerness, pose, strict=True)
    ]
    return HeadOutput(levels, [UpdateState("none", u.unflatten(1, (J, 3))) for u in updated])

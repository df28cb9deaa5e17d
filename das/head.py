"""The head: three towers over every pyramid level, shared by all levels, and what they predict.

Layout, sizes and initial values are the release's (facts the paper leaves open). Differences are switches:
without norm the blocks are convolution and ReLU, and the towers' deformable convolutions can be plain ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from das.deform_conv import DeformConv

PRIOR_CONFIDENCE = 0.01
"""Center confidence of every point at the start (focal loss, Lin et al., ICCV 2017)."""


@dataclass
class LevelOutput:
    """Predictions of one pyramid level, in network units, float32; the same in training and test.

    Attributes:
        confidence: (B, 1, h, w) logits of the center confidence (Eq. 1).
        centerness: (B, 1, h, w) logits.
        root: (B, 3, h, w) root - point (u, v) in strides, raw root depth (Eq. 2).
        joints: (B, J, 3, h, w) initial offsets: u, v in strides, z in joint depth units; root z is exactly 0.
        raw_sigma: (B, J, 3, h, w) scale of each offset before its sigmoid, root z exactly 1; or None.
    """

    confidence: Tensor
    centerness: Tensor
    root: Tensor
    joints: Tensor
    raw_sigma: Tensor | None


class ConvBlock(nn.Module):
    """Convolution (plain or deformable), group norm if wanted, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        norm: bool = True,
        deformable: bool = False,
        bias: bool = True,
    ):
        """``bias`` is for a block with norm; without norm there always is one."""
        super().__init__()
        bias = bias or not norm
        self.conv: nn.Conv2d | DeformConv
        if deformable:
            self.conv = DeformConv(in_channels, out_channels, bias)
        else:
            self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
            init_small(self.conv)
        if not norm:  # nothing restores the scale: the release's spread would fade through the blocks
            nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        # Groups of one channel could not be normalised on a level of a single cell.
        groups = 32 if out_channels % 32 == 0 else out_channels // 2
        self.gn = nn.GroupNorm(groups, out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h, w)."""
        x = self.conv(x)
        return F.relu(x if self.gn is None else self.gn(x), inplace=True)


def init_small(layer: nn.Conv2d) -> None:
    """The release's start of plain convolutions: weights N(0, 0.01), biases 0."""
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def predict(layer: nn.Conv2d, features: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, D, h, w) by the layer in at least float32, also under autocast.

    A root depth of 40 units is known to 0.25 in bfloat16, which would be centimetres.
    """
    with torch.autocast(features.device.type, enabled=False):
        return layer(features.to(torch.promote_types(features.dtype, torch.float32)))


class Branch(nn.Module):
    """A 3x3 block and a 1x1 convolution with the prediction."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, norm: bool):
        super().__init__()
        self.block = ConvBlock(in_channels, channels, norm=norm)
        self.out = nn.Conv2d(channels, out_channels, 1)
        init_small(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h, w), float32."""
        return predict(self.out, self.block(x))


class Head(nn.Module):
    """Towers for confidence, root (with centerness) and pose; a branch per output; 4 scalars per level."""

    def __init__(
        self,
        joints: int,
        root: int,
        levels: int,
        in_channels: int,
        channels: int,
        branch_channels: int,
        centerness_channels: int,
        norm: bool = True,
        deformable: bool = True,
        sigma: bool = True,
    ):
        super().__init__()
        self.n_joints, self.root_joint = joints, root

        def tower() -> nn.Sequential:
            return nn.Sequential(
                ConvBlock(in_channels, channels, norm=norm),
                ConvBlock(channels, channels, norm=norm, deformable=deformable),
            )

        def branch(out_channels: int, hidden: int = branch_channels) -> Branch:
            return Branch(channels, hidden, out_channels, norm)

        self.confidence_tower, self.root_tower, self.pose_tower = tower(), tower(), tower()
        self.confidence = branch(1)
        self.centerness = branch(1, centerness_channels)
        self.root_xy, self.root_depth = branch(2), branch(1)
        self.joints = branch(3 * joints)
        self.sigma = branch(3 * joints) if sigma else None
        # Per level: factors of root xy, root depth, joint uv, joint z. Sigma and the logits have none.
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(4)) for _ in range(levels))
        assert self.confidence.out.bias is not None
        nn.init.constant_(self.confidence.out.bias, -math.log((1 - PRIOR_CONFIDENCE) / PRIOR_CONFIDENCE))

    def forward(self, x: Tensor, level: int, want_sigma: bool = False) -> tuple[LevelOutput, Tensor]:
        """Pyramid map (B, C, h, w) of a level -> its predictions, the pose tower's features (B, D, h, w)."""
        root_features, pose_features = self.root_tower(x), self.pose_tower(x)
        scale = self.scales[level]
        root = (self.root_xy(root_features) * scale[0], self.root_depth(root_features) * scale[1])
        joints = self.joints(pose_features).unflatten(1, (self.n_joints, 3))
        joints = joints * torch.stack((scale[2], scale[2], scale[3]))[:, None, None]
        raw_sigma = None
        if want_sigma:
            assert self.sigma is not None, "this model was built without sigma"
            raw_sigma = self._with_root_z(self.sigma(pose_features).unflatten(1, (self.n_joints, 3)), 1.0)
        output = LevelOutput(
            confidence=self.confidence(self.confidence_tower(x)),
            centerness=self.centerness(root_features),
            root=torch.cat(root, dim=1),
            joints=self._with_root_z(joints, 0.0),
            raw_sigma=raw_sigma,
        )
        return output, pose_features

    def _with_root_z(self, joints: Tensor, value: float) -> Tensor:
        """(B, J, 3, h, w) with the root's z replaced: it is the origin of joint depth."""
        keep = torch.ones(self.n_joints, 3, 1, 1, dtype=torch.bool, device=joints.device)
        keep[self.root_joint, 2] = False
        return joints.where(keep, value)

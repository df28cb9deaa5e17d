"""People to network units and back: the only place where depth is normalised.

Two quantities leave the network. The root: its image offset from the feature point in strides, and its depth divided
by the focal length, because an object at twice the distance seen through twice the focal length looks the same
(Section 3.4). The joints: their image offsets in strides, and their metric depth relative to the root.

Frames: everything in pixels belongs to the network input; depths are Z in mm in the camera frame. The focal length is
``mean_focal`` of the network input's K, which carries every resize, so no scale factor appears anywhere else. An image
flip does not change Z: what is decoded from a flipped image with its own K is the scene itself, un-mirrored, while
the joint names were swapped by the flip.
"""

from __future__ import annotations

import torch
from torch import Tensor

from das.config import DASConfig


class PoseCodec:
    """``encode`` and ``decode`` are inverse to each other for all quantities that the variant predicts."""

    def __init__(self, config: DASConfig) -> None:
        self.origin = config.offset_origin
        self.root_index = config.skeleton.root_index
        self.root_depth_scale = config.root_depth_scale
        self.joint_depth_unit = config.joint_depth_unit
        self.predicts_root_uv = config.regress_root_xy

    def encode(
        self,
        joints_uv: Tensor,
        joints_depth: Tensor,
        root_uv: Tensor,
        root_depth: Tensor,
        points: Tensor,
        stride: Tensor,
        focal: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Targets of P feature points, in network units.

        Args:
            joints_uv: (P, J, 2) px.
            joints_depth: (P, J) mm.
            root_uv: (P, 2) px.
            root_depth: (P,) mm.
            points: (P, 2) feature points, px.
            stride: (P,) px of the feature point's level.
            focal: (P,) mean focal length of the network input, px.

        Returns:
            root: (P, 3), (root - point) / stride and scale x Z / focal (Eq. 2).
            joints: (P, J, 3), offsets from the point or from the root in strides, and (Z_joint - Z_root) / unit
                (Eq. 3 with origin root).
        """
        root = torch.cat(
            [(root_uv - points) / stride[:, None], (self.root_depth_scale * root_depth / focal)[:, None]], dim=-1
        )
        origin = points if self.origin == "pixel" else root_uv
        offsets = (joints_uv - origin[:, None]) / stride[:, None, None]
        depth = (joints_depth - root_depth[:, None]) / self.joint_depth_unit
        return root, torch.cat([offsets, depth[..., None]], dim=-1)

    def decode(
        self, root: Tensor, joints: Tensor, points: Tensor, stride: Tensor, focal: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Inverse of ``encode``: joints_uv (P, J, 2) px, joints_depth (P, J) mm, root_uv (P, 2) px, root_depth (P,) mm.

        Measured from the root, the root joint's own offset is 0 by definition: it is neither learned nor read. A
        variant that learns no root offset (the release) has its root where its root joint is.
        """
        root_depth = root[:, 2] * focal / self.root_depth_scale
        root_uv = points + root[:, :2] * stride[:, None]
        offsets = joints[..., :2] * stride[:, None, None]
        if self.origin == "root":
            is_root = torch.arange(joints.shape[1], device=joints.device) == self.root_index
            offsets = offsets.masked_fill(is_root[:, None], 0.0)
            joints_uv = root_uv[:, None] + offsets
        else:
            joints_uv = points[:, None] + offsets
        if not self.predicts_root_uv:
            root_uv = joints_uv[:, self.root_index]
        joints_depth = root_depth[:, None] + joints[..., 2] * self.joint_depth_unit
        return joints_uv, joints_depth, root_uv, root_depth

    def decode_sigma(self, sigma: Tensor, joints_depth: Tensor, stride: Tensor, focal: Tensor) -> Tensor:
        """Scales of ``joints`` in mm along the camera's axes.

        An image offset of a pixel is Z / focal mm at depth Z; the doubt about Z itself is that of the third axis.

        Args:
            sigma: (P, J, 3) scales in network units.
            joints_depth: (P, J) mm, from ``decode``.
            stride: (P,) px of the feature point's level.
            focal: (P,) mean focal length of the network input, px.

        Returns:
            (P, J, 3) mm.
        """
        mm_per_stride = joints_depth.abs() * (stride / focal)[:, None]
        return torch.cat([sigma[..., :2] * mm_per_stride[..., None], sigma[..., 2:] * self.joint_depth_unit], dim=-1)

"""DAS (Wang et al., CVPR 2022): backbone, feature pyramid, head and recursive update in one forward pass.

The forward pass is the same in training and test, uses every parameter, and stays in network units; the codec
converts them. Positions are cells: cell (y, x) of the level with stride s is pixel (x s + s // 2, y s + s
// 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from das.backbone import BACKBONES
from das.config import DASConfig
from das.fpn import FPN
from das.head import Head, LevelOutput
from das.loss import POSE_LOSSES, Likelihood
from das.recursive_update import INITIAL_GAIN, RecursiveUpdate, UpdateState

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass
class HeadOutput:
    """All predictions of a batch; both lists have one entry per pyramid level, finest first."""

    levels: list[LevelOutput]
    updates: list[UpdateState]


class DAS(nn.Module):
    """The network of a ``DASConfig``."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: DASConfig):
        super().__init__()
        self.config = config
        c, joints, root = config.fpn_channels, config.n_joints, config.skeleton.root_index
        self.backbone = BACKBONES[config.backbone](config.backbone_width, config.mspn_stages)
        self.fpn = FPN(self.backbone.channels[1:], c, len(config.strides), config.fpn_norm)
        self.head = Head(
            joints=joints,
            root=root,
            levels=len(config.strides),
            in_channels=c,
            channels=c,
            branch_channels=c,
            centerness_channels=c // 4,
            norm=config.head_norm,
            deformable=config.tower_deformable,
            sigma=isinstance(POSE_LOSSES[config.pose_likelihood], Likelihood),
        )
        self.update = RecursiveUpdate(
            kind=config.update,
            layers=config.layers,
            samples=config.update_samples,
            joints=joints,
            in_channels=c,
            channels=c,
            norm=config.head_norm,
            root=root,
        )
        if not config.regress_root_xy:
            # No loss reaches it (release); trainable, it would keep DDP waiting for its gradient.
            self.head.root_xy.requires_grad_(False)
        # Not part of the state dict: constants, and checkpoints then hold exactly what was learned.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def normalize(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 RGB, sizes (B, 2) int (height, width) -> float32 input of ``forward``.

        Exactly 0 outside each size, whatever the padding holds: the mean colour.
        """
        rows = torch.arange(images.shape[2], device=images.device)[:, None] < sizes[:, 0, None, None, None]
        columns = torch.arange(images.shape[3], device=images.device) < sizes[:, 1, None, None, None]
        normalised = images.to(self.mean.dtype, copy=True).sub_(self.mean).div_(self.std)
        return normalised.masked_fill_(~(rows & columns), 0.0)

    def forward(self, images: Tensor, want_sigma: bool = False) -> HeadOutput:
        """Normalised images (B, 3, H, W), H and W multiples of 32 -> predictions of every level.

        Raises:
            ValueError: sigma is wanted from a model without it, one whose pose loss is no likelihood ("l1").
        """
        if want_sigma and self.head.sigma is None:
            raise ValueError(f"want_sigma with pose_likelihood = {self.config.pose_likelihood!r}, wanted rle")
        output = HeadOutput(levels=[], updates=[])
        for level, features in enumerate(self.fpn(self.backbone(images))):
            prediction, pose_features = self.head(features, level, want_sigma)
            output.levels.append(prediction)
            output.updates.append(self.update(pose_features, prediction.joints))
        return output

    def set_priors(self, mean_root: Tensor, mean_offsets: Tensor) -> None:
        """Initialises a new model to predict the mean root (3,) and the mean pose (J, 3), both in network units.

        They become the biases of the last convolutions: a root depth of dozens of units, as in small images with short
        focal lengths, would otherwise take many steps of the learning rate. An untrained update changes a constant map
        by a known factor per layer (``INITIAL_GAIN``); the bias is the mean pose divided by it, so that the updated
        offsets start at the mean, whatever the update.
        """
        for name, value, wanted in (
            ("mean_root", mean_root, (3,)),
            ("mean_offsets", mean_offsets, (self.config.n_joints, 3)),
        ):
            if tuple(value.shape) != wanted:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, wanted {wanted}")
        gain = mean_offsets.new_tensor(INITIAL_GAIN[self.config.update]) ** self.config.layers  # (3,)
        with torch.no_grad():
            for out, value in (
                (self.head.root_xy.out, mean_root[:2]),
                (self.head.root_depth.out, mean_root[2:]),
                (self.head.joints.out, mean_offsets / gain),
            ):
                assert out.bias is not None
                out.bias.copy_(value.flatten())


def channels_last(module: nn.Module) -> None:
    """Stores convolution weights channels last, which is faster in low precision; results do not change."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

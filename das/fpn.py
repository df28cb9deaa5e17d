"""Feature pyramid (Lin et al., CVPR 2017) over a backbone's maps at strides 8, 16 and 32."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

LATERALS = 3
"""Backbone maps that enter: strides 8, 16, 32."""


class ConvBlock(nn.Module):
    """Convolution and, if wanted, batch norm; no activation. With a norm the convolution has no bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, norm: bool):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h / stride, w / stride)."""
        x = self.conv(x)
        return x if self.bn is None else self.bn(x)


class FPN(nn.Module):
    """Laterals, top-down addition, output convolutions; stride-2 convolutions for levels beyond stride 32."""

    def __init__(self, in_channels: Sequence[int], channels: int, levels: int, norm: bool):
        """``in_channels`` of strides 8, 16, 32; ``levels`` outputs from stride 8 on."""
        super().__init__()
        if len(in_channels) != LATERALS:
            raise ValueError(f"FPN in_channels = {in_channels}, wanted the channels of strides 8, 16 and 32")
        self.lateral_convs = nn.ModuleList(ConvBlock(c, channels, 1, 1, norm) for c in in_channels)
        self.fpn_convs = nn.ModuleList(
            ConvBlock(channels, channels, 3, 1 if level < LATERALS else 2, norm) for level in range(levels)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps at strides 8, 16, 32 -> (B, channels, h, w) per level, finest first."""
        merged = [lateral(x) for lateral, x in zip(self.lateral_convs, maps, strict=True)]
        for fine, coarse in ((1, 2), (0, 1)):
            up = F.interpolate(merged[coarse], merged[fine].shape[2:], mode="nearest")
            merged[fine] = merged[fine] + up
        out: list[Tensor] = []
        for level, convolution in enumerate(self.fpn_convs):
            if level < LATERALS:
                out.append(convolution(merged[level]))
            else:
                # As in the release, a ReLU precedes every extra level but the first.
                out.append(convolution(out[-1] if level == LATERALS else F.relu(out[-1])))
        return out

"""Modulated deformable convolution (DCNv2; Zhu et al., CVPR 2019) in plain torch.

Each of the 9 taps of a 3x3 kernel reads the input bilinearly at its own place moved by a learned displacement,
zero outside, times a learned mask in (0, 1). As many taps are read together as `AT_ONCE` values allow: all 9 on
small maps, where a GPU would otherwise wait for the many small operations to be issued, and few on large ones, so
that the textbook column matrix of 9 maps never takes gigabytes. For the backward pass the taps are read again
(checkpointing): what stays in memory is the input, the places and the masks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from das.grid import sampling_grid

AT_ONCE = 2**26
AT_ONCE_CPU = 2**22
"""Most values that are read from the input at once, 4 bytes each; on a CPU, what its caches hold is faster."""


def deform_conv(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """3x3 modulated deformable convolution, stride 1, padding 1, one deformable group.

    Args:
        x: (B, C, h, w).
        offset: (B, 18, h, w) displacement of each tap in cells: (dy, dx) pairs, taps row by row.
        mask: (B, 9, h, w) factor of each tap.
        weight: (D, C, 3, 3).
        bias: (D,).

    Returns:
        (B, D, h, w), in the dtype that convolution gives. The reading is float32 also under autocast.
    """
    if weight.shape[2:] != (3, 3):
        raise ValueError(f"deform_conv weight has shape {tuple(weight.shape)}, wanted (D, C, 3, 3)")
    # bfloat16 would round the places themselves to whole cells on maps wider than 256.
    full = torch.promote_types(x.dtype, torch.float32)
    x, offset, mask = x.to(full), offset.to(full), mask.to(full)
    grid, kernel = _places(offset), weight.flatten(2)
    exporting = torch.compiler.is_exporting()
    most = AT_ONCE_CPU if x.device.type == "cpu" else AT_ONCE
    at_once = 9 if exporting else min(9, max(1, most // max(1, x.numel())))
    out = None
    for first in range(0, 9, at_once):
        taps = slice(first, first + at_once)
        arguments = (x, grid[:, taps], mask[:, taps], kernel[..., taps])
        if torch.is_grad_enabled() and not exporting:
            part = checkpoint(_read, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            part = _read(*arguments)
        out = part if out is None else out + part
    assert out is not None
    return out if bias is None else out + bias[:, None, None].to(out.dtype)


def _places(offset: Tensor) -> Tensor:
    """Displacements (B, 18, h, w) in cells -> the grid (B, 9, h, w, 2) of where each tap reads."""
    height, width = offset.shape[2:]
    # Each of the 3 rows or columns of taps starts one cell later than the one before.
    y = torch.arange(-1, height + 1, device=offset.device, dtype=offset.dtype).unfold(0, height, 1)  # (3, h)
    x = torch.arange(-1, width + 1, device=offset.device, dtype=offset.dtype).unfold(0, width, 1)  # (3, w)
    dy, dx = offset.unflatten(1, (3, 3, 2)).unbind(3)  # (B, 3, 3, h, w), in the order of the weights
    return sampling_grid(x[:, None] + dx, y[:, None, :, None] + dy, height, width).flatten(1, 2)


def _read(x: Tensor, grid: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """T taps: (B, C, h, w) read at (B, T, h, w, 2), times mask (B, T, h, w) and weight (D, C, T), summed over both."""
    values = F.grid_sample(x, grid.flatten(1, 2), padding_mode="zeros", align_corners=False)
    values = values.unflatten(2, grid.shape[1:3]) * mask[:, None]
    return F.conv2d(values.flatten(1, 2), weight.flatten(1)[..., None, None])


class DeformConv(nn.Module):
    """DCNv2 layer: a plain 3x3 convolution gives the displacements and, by a sigmoid, the masks."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.conv_offset = nn.Conv2d(in_channels, 27, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The release's start: uniform +-1/sqrt(fan in); displacements small, but not exactly 0."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        nn.init.normal_(self.conv_offset.weight, std=0.01)
        assert self.conv_offset.bias is not None
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h, w)."""
        offset, mask = self.conv_offset(x).split((18, 9), dim=1)
        return deform_conv(x, offset, mask.sigmoid(), self.weight, self.bias)

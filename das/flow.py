"""RealNVP (Dinh et al., ICLR 2017): the learned density G of the standardised residual (Eq. 8-9).

Six affine couplings. The masks and the sizes of the nets are the release's, and so are the parameter names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

COUPLINGS = 6
HIDDEN = 64


class RealNVP(nn.Module):
    """A density over R^dim with an exact inverse; dim is 2 (image plane) or 3 (with depth).

    Everything is computed in float32 (or the input's wider type), also under autocast.
    """

    mask: Tensor

    def __init__(self, dim: int, small_init: bool = False):
        """``small_init`` starts near the standard normal; else Linear's default, as in the release."""
        super().__init__()
        if dim not in (2, 3):
            raise ValueError(f"RealNVP dim = {dim}, wanted 2 or 3")
        first = [0.0, 1.0] if dim == 2 else [0.0, 0.0, 1.0]
        masks = [first, [1 - m for m in first]] * (COUPLINGS // 2)
        self.register_buffer("mask", torch.tensor(masks))  # (6, dim); 1 = passes through unchanged
        self.t = nn.ModuleList(_net(dim) for _ in range(COUPLINGS))
        self.s = nn.ModuleList(_net(dim, nn.Tanh()) for _ in range(COUPLINGS))
        if small_init:
            for layer in (*self.t.modules(), *self.s.modules()):
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight, gain=0.01)
                    nn.init.zeros_(layer.bias)

    def log_prob(self, x: Tensor) -> Tensor:
        """(N, dim) -> (N,) log density."""
        z, log_det = self.to_base(x)
        return -0.5 * z.square().sum(1) - 0.5 * math.log(2 * math.pi) * z.shape[1] + log_det

    def to_base(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Density direction: x (N, dim) -> z (N, dim) of the standard normal base, log |det dz/dx| (N,)."""
        with torch.autocast(x.device.type, enabled=False):
            z = x.to(torch.promote_types(x.dtype, torch.float32))
            log_det = z.new_zeros(len(z))
            for i in reversed(range(COUPLINGS)):
                kept, free = self.mask[i] * z, 1 - self.mask[i]
                s = self.s[i](kept) * free
                z = kept + free * (z - self.t[i](kept)) * (-s).exp()
                log_det = log_det - s.sum(1)
            return z, log_det


def _net(dim: int, *last: nn.Module) -> nn.Sequential:
    """Perceptron of widths dim, 64, 64, dim with leaky ReLU."""
    layers: list[nn.Module] = [
        nn.Linear(dim, HIDDEN),
        nn.LeakyReLU(inplace=True),
        nn.Linear(HIDDEN, HIDDEN),
        nn.LeakyReLU(inplace=True),
        nn.Linear(HIDDEN, dim),
    ]
    return nn.Sequential(*layers, *last)

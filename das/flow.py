"""RealNVP (Dinh et al., ICLR 2017): the learned density G of the standardised residual (Eq. 8-9).

Six affine couplings. The masks and the sizes of the nets are the release's, and so are the parameter names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        return log_densities([self], x)[0]

    def to_base(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Density direction: x (N, dim) -> z (N, dim) of the standard normal base, log |det dz/dx| (N,)."""
        z, log_det = _to_base([self], x)
        return z[0], log_det[0]


def log_densities(flows: Sequence[RealNVP], x: Tensor) -> Tensor:
    """Log densities (F, N) of F flows, each of the first ``dim`` columns of x (N, at least dim).

    All are computed together: nets of 64 units are so small that a GPU would mostly wait for the next of thousands.
    """
    z, log_det = _to_base(flows, x)
    constants = z.new_tensor([-0.5 * math.log(2 * math.pi) * flow.mask.shape[1] for flow in flows])
    return -0.5 * z.square().sum(2) + constants[:, None] + log_det


def _to_base(flows: Sequence[RealNVP], x: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals x (N, D) -> z (F, N, D), 0 beyond a flow's own dimensions, and log |det dz/dx| (F, N)."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        z = torch.stack([F.pad(x[:, : flow.mask.shape[1]], (0, x.shape[1] - flow.mask.shape[1])) for flow in flows])
        scales = []
        for (w1, b1), (w2, b2), (w3, b3) in reversed(list(zip(*_stacked(flows, x.shape[1]), strict=True))):
            hidden = F.leaky_relu(torch.baddbmm(b1, torch.cat((z, z)), w1.mT), inplace=True)
            hidden = F.leaky_relu(torch.baddbmm(b2, hidden, w2.mT), inplace=True)
            minus_t, minus_s = torch.baddbmm(b3, hidden, w3.mT).chunk(2)
            scales.append(minus_s.tanh())
            z = (z + minus_t) * scales[-1].exp()
        return z, torch.stack(scales).sum((0, 3))


def _stacked(flows: Sequence[RealNVP], dim: int) -> list[list[tuple[Tensor, Tensor]]]:
    """Weights (2F, out, in) and biases (2F, 1, out) of the t nets and then the s nets, by layer and coupling.

    What a coupling's mask lets pass is cut from the last layer, what it changes from the first, and all flows get
    ``dim`` dimensions: there shift and scale are 0 then. The last layer's sign is turned, as the density direction
    needs -t and -s alone.
    """
    masks = torch.stack([F.pad(flow.mask, (0, dim - flow.mask.shape[1]), value=1.0) for flow in flows], 1).repeat(
        1, 2, 1
    )
    layers = []
    for place in (0, 2, 4):
        weights, biases = [], []
        for nets in [flow.t for flow in flows] + [flow.s for flow in flows]:
            linear = [net[place] for net in nets if isinstance(net, nn.Sequential)]
            weight, bias = (torch.stack([getattr(layer, name) for layer in linear]) for name in ("weight", "bias"))
            pad_in, pad_out = dim - weight.shape[2] if place == 0 else 0, dim - weight.shape[1] if place == 4 else 0
            weights.append(F.pad(weight, (0, pad_in, 0, pad_out)) if pad_in or pad_out else weight)
            biases.append(F.pad(bias, (0, pad_out)) if pad_out else bias)
        weight, bias = torch.stack(weights, 1), torch.stack(biases, 1)  # (6, 2F, out, in), (6, 2F, out)
        if place == 0:
            weight = weight * masks[:, :, None]
        elif place == 4:
            minus = masks - 1
            weight, bias = weight * minus[..., None], bias * minus
        layers.append(list(zip(weight.unbind(), bias[:, :, None].unbind(), strict=True)))
    return layers


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

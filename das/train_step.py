"""Model and criterion in one module: what data parallelism wraps and what a training loop calls.

One optimiser step over any number of workers and accumulation steps is:

    totals = sum of step.counts(part) over all parts of the global batch     # known before any forward pass
    for every part:  (scale * step(part, totals)["loss"]).backward()

Losses are this part's sums over the totals, so gradients ADD over parts. DistributedDataParallel averages gradients
over workers instead: there ``scale`` is the number of workers, elsewhere 1.

A part without people, or with 2D people only, still gives every parameter, flows included, a gradient of exactly 0,
because its sums run over no points. So DDP never waits for a missing gradient and need not search for unused
parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from das.config import DASConfig
from das.criterion import Criterion
from das.model import DAS
from das.sample import Batch


class TrainStep(nn.Module):
    """DAS with its criterion."""

    def __init__(self, config: DASConfig) -> None:
        super().__init__()
        self.model = DAS(config)
        self.criterion = Criterion(config)
        self.want_sigma = self.model.head.sigma is not None

    def counts(self, batch: Batch) -> Tensor:
        """(4,) float64, on the CPU: positives, images, positives with depth, supervised joints; from targets alone."""
        return self.criterion.counts(batch)

    def forward(self, batch: Batch, totals: Tensor) -> dict[str, Tensor]:
        """Losses of one part of the global batch.

        Args:
            batch: the part.
            totals: (4,) ``counts`` of the whole global batch.

        Returns:
            ``loss``: scalar, weighted (Eq. 10), to be differentiated; and detached and unweighted cls, centerness,
            root, pose, nll_sigma, nll_prior, nll_flow. Each is this part's share: added over all parts it is the
            loss of the global batch.
        """
        images = self.model.normalize(batch.images, batch.sizes)
        sums = self.criterion(self.model(images, want_sigma=self.want_sigma), batch)
        losses = self.criterion.losses(sums, totals)
        return {name: value if name == "loss" else value.detach() for name, value in losses.items()}


def require_finite(numbers: dict[str, Tensor], keys: list[str]) -> None:
    """Raises where a loss or the gradient is NaN or infinite.

    It copies ``numbers`` to the CPU, which waits for the GPU: call it where they are read anyway.

    Args:
        numbers: scalars by name: losses, or the norm of the gradient.
        keys: of the samples that gave them.

    Raises:
        FloatingPointError: if any is infinite or NaN; names the samples and every number.
    """
    if not torch.stack([value.detach() for value in numbers.values()]).isfinite().all().item():
        listed = ", ".join(f"{name} {float(value.detach()):g}" for name, value in numbers.items())
        raise FloatingPointError(f"not finite: {listed}, on samples {', '.join(keys)}")

"""From predictions and people to losses: assignment, targets, and the terms of Eq. 10 summed over all levels.

The flows belong to the criterion: only training needs them, so a model for prediction does not contain them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from das.assign import (
    IMAGES,
    POSITIVES,
    POSITIVES_WITH_DEPTH,
    SUPERVISED_JOINTS,
    Targets,
    assign,
    supervised_predictions,
    targets_of,
)
from das.config import DASConfig
from das.flow import RealNVP, log_densities
from das.loss import (
    POSE_LOSSES,
    PoseLoss,
    Regression,
    centerness_loss,
    focal_loss,
    root_depth_loss,
    root_uv_loss,
)
from das.model import HeadOutput
from das.recursive_update import FeaturePoints, update_at
from das.sample import Batch


class Criterion(nn.Module):
    """Sums of all losses of a batch, the counts that divide them, and the weighted objective.

    Attributes:
        predictions: which joint offsets are supervised: updated, initial or both.
        flows: learned densities by prediction and dimension (``updated_2d``, ``initial_3d``, ...), only those that the
            variant trains.
    """

    def __init__(self, config: DASConfig) -> None:
        super().__init__()
        self.config = config
        self.predictions = supervised_predictions(config)
        self.pose_loss = POSE_LOSSES[config.pose_likelihood]
        self.flows = nn.ModuleDict()
        if not isinstance(self.pose_loss, Regression):
            for prediction in self.predictions:
                for dim in (2, 3):
                    self.flows[f"{prediction}_{dim}d"] = RealNVP(dim, small_init=self.pose_loss.small_flows)

    def flow(self, prediction: str, dim: int) -> RealNVP:
        """The density of one prediction's residuals in 2 (u, v) or 3 dimensions."""
        flow = self.flows[f"{prediction}_{dim}d"]
        assert isinstance(flow, RealNVP)
        return flow

    def _densities(self, prediction: str, residuals: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities (M,) of residuals (M, 3) of one prediction, in u, v and in all dimensions."""
        plane, space = log_densities([self.flow(prediction, dim) for dim in (2, 3)], residuals)
        return plane, space

    def targets(self, batch: Batch) -> Targets:
        """The targets that came with the batch; for a batch without any they are made here."""
        if batch.targets is not None:
            return batch.targets
        return targets_of(batch, assign(batch, self.config), self.config)

    def counts(self, batch: Batch) -> Tensor:
        """(4,) float64, on the CPU: positives, images, positives with depth, supervised joints; from targets alone."""
        return self.targets(batch).counts

    def forward(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Sums over this batch, without weights: cls, centerness, root_uv, root_depth, pose and its parts nll_*.

        Everything is float32, under autocast too.
        """
        with torch.autocast(batch.images.device.type, enabled=False):
            targets = self.targets(batch)
            confidence = torch.cat([level.confidence.flatten(1) for level in output.levels], 1)
            sums = {"cls": focal_loss(confidence.float(), targets.positive, targets.counted)[0]}

            cells = targets.cells
            centerness = _read([level.centerness for level in output.levels], cells)[:, 0]  # (P,)
            root = _read([level.root for level in output.levels], cells)  # (P, 3)
            sums["centerness"], _ = centerness_loss(centerness, targets.centerness)
            sums["root_depth"], _ = root_depth_loss(
                root[:, 2], targets.root[:, 2], targets.has_depth, self.config.root_depth_loss
            )
            sums["root_uv"] = centerness.new_zeros(())
            if self.config.regress_root_xy:
                sums["root_uv"], _ = root_uv_loss(root[:, :2], targets.root[:, :2])

            losses = self._pose_losses(output, cells, targets)
            for name in ("nll_sigma", "nll_prior", "nll_flow"):
                sums[name] = torch.stack([getattr(loss, name) for loss in losses]).sum()
            sums["pose"] = torch.stack([loss.total for loss in losses]).sum()
        return sums

    def _pose_losses(self, output: HeadOutput, cells: list[FeaturePoints], targets: Targets) -> list[PoseLoss]:
        """One pose loss for each supervised prediction; all share one sigma."""
        offsets = {"initial": _read([level.joints for level in output.levels], cells)}  # (P, J, 3)
        if "updated" in self.predictions:
            updated = [update_at(state, points) for state, points in zip(output.updates, cells, strict=True)]
            offsets["updated"] = torch.cat(updated).float()
        supervised, has_z = targets.supervised, targets.has_z
        if isinstance(self.pose_loss, Regression):
            return [self.pose_loss.loss(offsets[p], targets.joints, supervised, has_z) for p in self.predictions]

        raw = [level.raw_sigma for level in output.levels if level.raw_sigma is not None]
        assert len(raw) == len(output.levels), "a likelihood needs the model's sigma: forward(..., want_sigma=True)"
        # A depth without a target is treated as the root's: offset 0, target 0, raw sigma 1.
        in_depth = torch.stack([torch.ones_like(has_z), torch.ones_like(has_z), has_z], dim=-1)  # (P, J, 3)
        sigma = torch.where(in_depth, _read(raw, cells), 1.0).sigmoid() + self.config.sigma_floor
        target = targets.joints.where(in_depth, 0.0)
        return [
            self.pose_loss.loss(
                offsets[p].where(in_depth, 0.0),
                target,
                sigma,
                supervised,
                has_z,
                partial(self._densities, p),
            )
            for p in self.predictions
        ]

    def losses(self, sums: dict[str, Tensor], totals: Tensor) -> dict[str, Tensor]:
        """Eq. 10, from the sums of one part and the counts of the whole global batch.

        Args:
            sums: what ``forward`` returned for a part of the batch.
            totals: (4,) ``counts``, added over all workers and accumulation steps.

        Returns:
            cls, centerness, root, pose and its parts nll_sigma, nll_prior, nll_flow without weights, and their
            weighted sum ``loss``. Added over all parts they are the losses of the global batch.
        """
        # From the CPU. A copy that is waited for would wait for all that the GPU has to do.
        count = totals.to(sums["cls"], non_blocking=True)
        at_least_one = count.clamp(min=1)
        named = {
            "cls": sums["cls"] / (count[POSITIVES] + count[IMAGES]),
            "centerness": sums["centerness"] / at_least_one[POSITIVES],
            "root": sums["root_uv"] / at_least_one[POSITIVES] + sums["root_depth"] / at_least_one[POSITIVES_WITH_DEPTH],
        }
        for name in ("pose", "nll_sigma", "nll_prior", "nll_flow"):
            named[name] = sums[name] / at_least_one[SUPERVISED_JOINTS]
        if not self.config.background_without_people:
            named["cls"] = named["cls"] * (count[POSITIVES] > 0)
        loss = (
            named["cls"]
            + self.config.centerness_weight * named["centerness"]
            + self.config.root_weight * named["root"]
            + self.config.pose_weight * named["pose"]
        )
        return {"loss": loss, **named}


def _read(maps: list[Tensor], cells: list[FeaturePoints]) -> Tensor:
    """Values of maps (B, ..., h, w), one per level, at the cells of each: (P, ...) float32 over all levels."""
    return torch.cat([m[c.image, ..., c.y, c.x] for m, c in zip(maps, cells, strict=True)]).float()

"""From predictions and people to losses: assignment, targets, and the terms of Eq. 10 summed over all levels.

The flows belong to the criterion: only training needs them, so a model for prediction does not contain them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from das.assign import Positives, assign, masked_points
from das.camera import mean_focal
from das.codec import PoseCodec
from das.config import DASConfig
from das.flow import RealNVP
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

# What the four entries of ``Criterion.counts`` hold.
POSITIVES, IMAGES, POSITIVES_WITH_DEPTH, SUPERVISED_JOINTS = range(4)


@dataclass
class Targets:
    """Targets of the P positives of all levels, in network units.

    Attributes:
        centerness: (P,). root: (P, 3). joints: (P, J, 3). All as ``PoseCodec.encode`` makes them.
        has_depth: (P,) bool, the person is annotated in 3D.
        supervised: (P, J) bool, the joint has a target. has_z: (P, J) bool, a target in depth too.
    """

    centerness: Tensor
    root: Tensor
    joints: Tensor
    has_depth: Tensor
    supervised: Tensor
    has_z: Tensor


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
        self.codec = PoseCodec(config)
        self.predictions = ["updated"] if config.layers else ["initial"]
        if config.layers and config.supervise_initial:
            self.predictions.append("initial")
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

    def counts(self, batch: Batch) -> Tensor:
        """(4,) float64: positives, images, positives with depth, supervised joints; from targets alone.

        A joint counts once for each supervised prediction.
        """
        targets = self.targets(batch, assign(batch, self.config))
        counts = torch.zeros(4, dtype=torch.float64, device=batch.images.device)
        counts[POSITIVES] = len(targets.root)
        counts[IMAGES] = len(batch.keys)
        counts[POSITIVES_WITH_DEPTH] = targets.has_depth.sum()
        counts[SUPERVISED_JOINTS] = len(self.predictions) * targets.supervised.sum()
        return counts

    def targets(self, batch: Batch, positives: list[Positives]) -> Targets:
        """Targets of all positives, level after level in the order of ``positives``."""
        image = torch.cat([p.cells.image for p in positives])
        person = torch.cat([p.person for p in positives])
        points = torch.cat([p.points for p in positives])
        stride = torch.cat([p.centerness.new_full((len(p.person),), s) for p, s in zip(positives, self.config.strides)])
        root, joints = self.codec.encode(
            batch.joints_uv[image, person],
            batch.joints_depth[image, person],
            batch.root_uv[image, person],
            batch.root_depth[image, person],
            points,
            stride,
            mean_focal(batch.K)[image],
        )
        has_depth, supervised = batch.has_depth[image, person], batch.visible[image, person]
        has_z = has_depth[:, None].expand_as(supervised)
        is_root = torch.arange(joints.shape[1], device=joints.device) == self.codec.root_index
        # The root's own depth offset is 0 by definition. The release adds its constant likelihood, ours does not.
        if isinstance(self.pose_loss, Regression) or not self.pose_loss.root_depth:
            has_z = has_z & ~is_root
        # With offsets from the root, the root's own image offset is 0 by definition too. Its sigma would shrink to the
        # floor, and its gradients (1 / sigma) would exceed all others.
        if self.config.offset_origin == "root":
            supervised = supervised & ~is_root
        centerness = torch.cat([p.centerness for p in positives])
        return Targets(centerness, root, joints, has_depth, supervised, has_z)

    def forward(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Sums over this batch, without weights: cls, centerness, root_uv, root_depth, pose and its parts nll_*.

        Everything is float32, under autocast too.
        """
        with torch.autocast(batch.images.device.type, enabled=False):
            positives = assign(batch, self.config)
            targets = self.targets(batch, positives)
            confidence, is_positive = [], []
            for level, positive in zip(output.levels, positives, strict=True):
                mask = torch.zeros_like(level.confidence[:, 0], dtype=torch.bool)
                mask[tuple(positive.cells)] = True
                is_positive.append(mask.flatten(1))
                confidence.append(level.confidence.flatten(1))
            positive_points = torch.cat(is_positive, 1)
            counted = positive_points | ~torch.cat(masked_points(batch, self.config), 1)
            sums = {"cls": focal_loss(torch.cat(confidence, 1).float(), positive_points, counted)[0]}

            cells = [p.cells for p in positives]
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
                self.flow(p, 2),
                self.flow(p, 3),
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
        count = totals.to(sums["cls"])
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

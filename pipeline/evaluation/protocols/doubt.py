"""Coverage of the calibrated doubt (das/uncertainty.py) over the people whom the strict protocol pairs.

Beside it stands what the likelihood's own scale would promise without a calibration, and how large the radii are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from das.metrics.bootstrap import Clusters, Interval, Ratio, interval
from das.metrics.coverage import laplace_radius, residuals
from das.metrics.tables import per_frame
from das.skeleton import Skeleton
from das.uncertainty import LEVELS, ROOT, joint_groups
from pipeline.evaluation.scored import Scored
from pipeline.infra.text_tables import Table, ends_as_metrics

SHOWN = (0.5, 0.8, 0.9, 0.95)
"""Probabilities of the table and of the metrics."""


@dataclass(frozen=True)
class DoubtSums:
    """What is kept of some images, by cell; a column for each of G groups, the roots' last.

    Attributes:
        inside: for each of ``LEVELS``, errors within the calibrated radius over all.
        raw: the same for the radius that the likelihood's own scale promises; the roots have none, and count none.
        radius: mean calibrated radius of probability 0.9, mm.
    """

    inside: list[Ratio]
    raw: list[Ratio]
    radius: Ratio

    def all_joints(self, ratio: Ratio) -> Ratio:
        """The same over all groups of joints, without the roots."""
        return Ratio(ratio.numerator[:, :-1].sum(axis=1), ratio.denominator[:, :-1].sum(axis=1))

    def curve(self, ratios: list[Ratio]) -> list[float]:
        """Share over all joints for each of ``LEVELS``."""
        return [self.all_joints(ratio).value for ratio in ratios]


def group_names(skeleton: Skeleton) -> tuple[str, ...]:
    """Names of the G groups, in the order of the columns."""
    return (*dict.fromkeys(group for group in joint_groups(skeleton) if group is not None), ROOT)


def doubt_sums(scored: Scored) -> DoubtSums | None:
    """What is kept of these images; None for predictions without a calibration or without scales."""
    calibration, root = scored.provenance.calibration, scored.skeleton.root_indices
    if calibration is None or scored.people.scales is None:
        return None
    found = residuals(scored.truth, scored.people, scored.strict, root)
    frame, frames = scored.truth.frame[scored.strict.found], len(scored.records)
    groups = joint_groups(scored.skeleton)
    names = group_names(scored.skeleton)
    columns = np.array([[group == name for group in groups] for name in names], np.float64).T  # (J, G)
    ratio = found.errors / found.scales

    def by_cell(joints: np.ndarray, roots: np.ndarray, counted: np.ndarray, counted_roots: np.ndarray) -> Ratio:
        sides = []
        for of_joints, of_roots in ((np.where(counted, joints, 0.0), roots), (counted, counted_roots)):
            values = of_joints.astype(np.float64) @ columns
            values[:, -1] = of_roots
            sides.append(per_frame(values, frame, frames))
        return scored.by_cell(Ratio(*sides))

    all_roots, no_roots = np.ones(len(frame)), np.zeros(len(frame))
    inside, raw = [], []
    for level in LEVELS:
        units = np.array([0.0 if group is None else calibration.radius(group, level) for group in groups])
        roots = found.root_errors <= found.root_scales * calibration.radius(ROOT, level)
        inside.append(by_cell(ratio <= units, roots, found.counted, all_roots))
        raw.append(by_cell(ratio <= laplace_radius(level), no_roots, found.counted, no_roots))
    radii = calibration.joint_radii(found.scales, scored.skeleton, 0.9)
    root_radii = found.root_scales * calibration.radius(ROOT, 0.9)
    known = found.counted & np.isfinite(radii)
    known_roots = np.isfinite(root_radii)
    radius = by_cell(radii, np.where(known_roots, root_radii, 0.0), known, known_roots)
    return DoubtSums(inside, raw, radius)


def doubt_numbers(sums: DoubtSums, skeleton: Skeleton, clusters: Clusters) -> tuple[dict[str, float], Table]:
    """Metrics named strict/coverage_90 and so on, of all joints and of each group, and the table."""
    metrics: dict[str, float] = {}
    rows: dict[str, list[float | Interval]] = {}
    inside, raw = ([ratios[LEVELS.index(level)] for level in SHOWN] for ratios in (sums.inside, sums.raw))
    by_group = dict(zip(group_names(skeleton), zip(*(r.columns() for r in (*inside, *raw, sums.radius))), strict=True))
    everything = tuple(sums.all_joints(ratio) for ratio in (*inside, *raw, sums.radius))
    for name, ratios in {"all joints": everything, **by_group}.items():
        shares = [interval(ratio, clusters, (0.0, 1.0)) for ratio in ratios[: len(SHOWN)]]
        radius = interval(ratios[-1], clusters, (0.0, np.inf))
        rows[name] = [*shares, *(ratio.value for ratio in ratios[len(SHOWN) : -1]), radius]
        of = "" if name == "all joints" else f"/{name}"
        metrics[f"strict/p90_mm{of}"] = radius.value
        for level, share in zip(SHOWN, shares, strict=True):
            metric = f"strict/coverage_{100 * level:.0f}{of}"
            metrics |= {metric: share.value} if of else ends_as_metrics(metric, share)
    columns = [(f"{100 * level:.0f} %", ".3f") for level in SHOWN]
    columns += [(f"raw {100 * level:.0f} %", ".3f") for level in SHOWN]
    title = "doubt: share of joints within their radius of each probability, and of the likelihood's own (raw)"
    return metrics, Table.of("strict_doubt", title, [*columns, ("p90 mm", ".0f")], rows, detail=True)

"""The strict protocol on prepared data: overall, and by activity, sequence, joint and subset of people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from das.metrics.bootstrap import Clusters, Interval, Ratio, interval
from das.metrics.operating_points import OperatingPoint, matches_gained, points_of
from das.metrics.root_precision import average_precision, near_roots
from das.metrics.strict import Strict, only_ignored
from das.metrics.tables import NOT_COUNTED, distances
from pipeline.evaluation.protocols.doubt import DoubtSums, doubt_numbers, doubt_sums
from pipeline.evaluation.scored import Scored, Setting
from pipeline.evaluation.subsets import TITLES, all_subsets, occluded_joints
from pipeline.infra.text_tables import Numbers, Table, ends_as_metrics

CURVE = np.arange(0.0, 301.0, 5.0)
"""Thresholds in mm of the page's PCK curves."""
_AP_RADIUS = 250.0  # mm
_COLUMNS = {
    "people": ("people", ".0f"),
    "mpjpe": ("MPJPE mm", ".1f"),
    "baseline_mpjpe": ("mean pose mm", ".1f"),
    "mpjpe_over_baseline": ("ratio", ".3f"),
    "mpjpe_with_misses": ("with misses mm", ".1f"),
    "recall": ("recall", ".3f"),
    "precision": ("precision", ".3f"),
    "f1": ("F1", ".3f"),
    "root_error": ("root error mm", ".1f"),
    "pa_mpjpe": ("PA-MPJPE mm", ".1f"),
    "pck_150mm": ("PCK 150 mm", ".3f"),
}
_ROOT_COLUMNS = {
    "root_error": ("root error mm", ".1f"),
    "root_depth_error": ("depth error mm", ".1f"),
    "recall": ("recall", ".3f"),
}
_JOINT_COLUMNS = {
    "mpjpe": ("MPJPE mm", ".1f"),
    "baseline_mpjpe": ("mean pose mm", ".1f"),
    "pck_150mm": ("PCK 150 mm", ".3f"),
}
_SHARES = ("recall", "precision", "f1", "pck_150mm")
_OF_PREDICTIONS = ("precision", "f1")  # a false positive belongs to no annotated person, so to no subset of them
_GROUP_METRICS = ("mpjpe", "recall", "precision", "root_error")
# Metrics whose 95 % interval is logged too.
_WITH_INTERVALS = ("mpjpe", "mpjpe_with_misses", "recall", "precision", "f1", "root_error", "pa_mpjpe", "pck_150mm")


@dataclass(frozen=True)
class Candidates:
    """P candidates of all images, 15 bytes each: what rankings by score need.

    Attributes:
        scores: (P,). cell: (P,) of the candidate's image.
        right: (P,) bool, from ``near_roots``. gained: (P,) bool, from ``matches_gained``.
        ignored: (P,) bool, from ``only_ignored``.
    """

    scores: np.ndarray
    cell: np.ndarray
    right: np.ndarray
    gained: np.ndarray
    ignored: np.ndarray

    @classmethod
    def of(cls, scored: Scored) -> Candidates:
        """Those of some images."""
        given = (scored.truth, scored.candidates, scored.skeleton.root_indices)
        return cls(
            scores=scored.candidates.scores,
            cell=scored.cell[scored.candidates.frame].astype(np.int32),
            right=near_roots(*given, radius=_AP_RADIUS),
            gained=matches_gained(*given),
            ignored=only_ignored(*given),
        )

    def average_precision(self, people: int, cells: np.ndarray) -> float:
        """Average precision of roots in some cells, (C,) bool, in which this many people count."""
        here = cells[self.cell] & (self.right | ~self.ignored)
        return average_precision(self.right[here], self.scores[here], people)

    def operating_points(self, people: int) -> list[OperatingPoint]:
        """As ``das.metrics.operating_points.operating_points``, given how many people count."""
        return points_of(self.gained[~self.ignored], self.scores[~self.ignored], people)


@dataclass(frozen=True)
class StrictSums:
    """What the strict protocol keeps of some images.

    Attributes:
        scores: from ``Strict.scores``, by cell. joints: from ``Strict.joint_scores``, by cell, a column for each joint.
        subsets: ``scores`` of people, by kind and name of the subset (subsets.py).
        visibility: ``scores`` over visible and over occluded joints.
        occluded: (1,) how many scored joints are labelled as occluded.
        near: (1, 4, n) joints nearer than each of ``CURVE``, measured as ``joint_errors`` lists. of: (1, 4) joints.
        candidates: what rankings need.
        doubt: how the calibrated doubt covers; None without one.
    """

    scores: dict[str, Ratio]
    joints: dict[str, Ratio]
    subsets: dict[str, dict[str, dict[str, Ratio]]]
    visibility: dict[str, dict[str, Ratio]]
    occluded: np.ndarray
    near: np.ndarray
    of: np.ndarray
    candidates: Candidates
    doubt: DoubtSums | None

    @property
    def people(self) -> int:
        """People who count."""
        return int(self.scores["recall"].denominator.sum())

    def numbers(self) -> dict[str, float]:
        """As ``Strict.numbers``, of all images."""
        return {
            **{name: score.value for name, score in self.scores.items()},
            "people": float(self.people),
            "matched": float(self.scores["recall"].numerator.sum()),
            "predictions": float(self.scores["precision"].denominator.sum()),
        }


def strict_sums(scored: Scored) -> StrictSums:
    """What the strict protocol keeps of these images."""
    records, result, truth = scored.records, scored.strict, scored.truth

    def scores(part: Strict) -> dict[str, Ratio]:
        found = part.scores(truth, scored.people, len(records))
        return {name: scored.by_cell(score) for name, score in found.items()}

    occluded = occluded_joints(records, truth, scored.skeleton)
    errors = joint_errors(scored)
    joints = result.joint_scores(truth, len(records))
    return StrictSums(
        scores=scores(result),
        joints={name: scored.by_cell(score) for name, score in joints.items()},
        subsets={
            kind: {name: scores(result.of(people=people)) for name, people in parts.items()}
            for kind, parts in all_subsets(records, truth, scored.skeleton).items()
        },
        visibility={
            "visible": scores(result.of(joints=~occluded)),
            "occluded": scores(result.of(joints=occluded)),
        },
        occluded=np.array([occluded.sum()]),
        near=np.array([[np.searchsorted(np.sort(found), CURVE, side="left") for found in errors]]),
        of=np.array([[len(found) for found in errors]]),
        candidates=Candidates.of(scored),
        doubt=doubt_sums(scored),
    )


def joint_errors(scored: Scored) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Errors of joints in mm, measured in four ways.

    Those of matched people root-aligned, those of all people (infinite where one was missed), those of matched people
    in the camera frame, and those of the mean pose on matched people, none where it is not known.
    """
    result = scored.strict
    found = result.scored & result.found[:, None]
    counted = result.scored & (result.match != NOT_COUNTED)[:, None]
    absolute = np.full(result.errors.shape, np.inf)
    absolute[result.found] = distances(
        scored.people.joints_cam[result.match[result.found]], scored.truth.joints_cam[result.found]
    )
    return (
        result.errors[found],
        np.where(found, result.errors, np.inf)[counted],
        absolute[found],
        result.baseline_errors[found & np.isfinite(result.baseline_errors)],
    )


def strict_numbers(sums: StrictSums, setting: Setting) -> list[Numbers]:
    """Metrics, tables and scores named strict/... and baseline/...; one entry, since the protocol fits all 3D data."""
    scores, clusters, numbers = sums.scores, setting.cells.clusters, sums.numbers()
    metrics = {f"strict/{name}": value for name, value in numbers.items() if not name.startswith("baseline_")}
    metrics |= {f"baseline/{name}": numbers[f"baseline_{name}"] for name in ("mpjpe", "mpjpe_with_misses")}
    metrics["strict/threshold"] = setting.threshold
    for name in _WITH_INTERVALS:
        metrics |= ends_as_metrics(f"strict/{name}", _interval(name, scores[name], clusters))

    groups = setting.cells.groups()
    tables: list[Table] = []
    for kind, names in groups.items():
        rows = {"all": _row(scores, clusters)}
        for name in sorted(np.unique(names).tolist(), key=natural_order):
            here = names == name
            part = {n: score.where(here) for n, score in scores.items()}
            rows[name] = _row(part, clusters.where(here))
            metrics |= {f"strict/{n}/{name}": part[n].value for n in _GROUP_METRICS}
            metrics[f"baseline/mpjpe/{name}"] = part["baseline_mpjpe"].value
        title = f"strict protocol by {kind}, people above score {setting.threshold:.3g}"
        tables.append(Table.of(f"strict_{kind}", title, list(_COLUMNS.values()), rows, detail=len(tables) > 0))

    joints = _joints(sums, setting)
    metrics |= {f"strict/joint_mpjpe/{name}": row[0] for name, row in joints.rows.items()}
    root = _roots(sums, setting, next(iter(groups.values())))
    metrics["strict/root_ap_250mm"] = root.rows["all"][0]
    subsets = _subsets(sums, clusters)
    for table in subsets:
        kind = table.name.removeprefix("strict_")
        metrics |= {f"strict/mpjpe/{kind}/{name}": row[1] for name, row in table.rows.items()}
    if sums.doubt is not None:
        more, doubt = doubt_numbers(sums.doubt, setting.provenance.skeleton, clusters)
        metrics, subsets = metrics | more, [doubt, *subsets]
    return [Numbers(metrics, (*tables, joints, root, *subsets), {f"strict/{n}": score for n, score in scores.items()})]


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sorting key that puts TS2 before TS10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _row(
    scores: Mapping[str, Ratio], clusters: Clusters, columns: Sequence[str] = tuple(_COLUMNS)
) -> list[float | Interval]:
    people = float(scores["recall"].denominator.sum())
    return [people, *(_interval(name, scores[name], clusters) for name in columns if name != "people")]


def _interval(name: str, score: Ratio, clusters: Clusters) -> Interval:
    return interval(score, clusters, (0.0, 1.0) if name in _SHARES else (0.0, np.inf))


def _joints(sums: StrictSums, setting: Setting) -> Table:
    columns = {name: sums.joints[name].columns() for name in _JOINT_COLUMNS}
    rows = {
        joint: [_interval(name, column[i], setting.cells.clusters) for name, column in columns.items()]
        for i, joint in enumerate(setting.provenance.skeleton.joints)
        if columns["mpjpe"][i].denominator.any()
    }
    title = "strict protocol by joint, over matched people"
    return Table.of("strict_joints", title, list(_JOINT_COLUMNS.values()), rows)


def _roots(sums: StrictSums, setting: Setting, groups: np.ndarray) -> Table:
    """Position of roots: average precision within 25 cm, which needs no threshold, and errors in mm."""
    scores, clusters = sums.scores, setting.cells.clusters
    rows: dict[str, list[float | Interval]] = {}
    for name in ["all", *sorted(np.unique(groups).tolist(), key=natural_order)]:
        here = np.ones(len(groups), bool) if name == "all" else groups == name
        people = int(scores["recall"].where(here).denominator.sum())
        errors = (_interval(n, scores[n].where(here), clusters.where(here)) for n in _ROOT_COLUMNS)
        rows[name] = [sums.candidates.average_precision(people, here), *errors]
    least = setting.provenance.least_score
    title = f"root position: AP of roots within 25 cm over all candidates above score {least:.3g}"
    columns = [("AP 25 cm", ".3f"), *_ROOT_COLUMNS.values()]
    return Table.of("strict_roots", title, columns, rows, detail=True)


def _subsets(sums: StrictSums, clusters: Clusters) -> list[Table]:
    """Tables by kind of person, and over visible and over occluded joints; none of them has a precision."""
    shown = [name for name in _COLUMNS if name not in _OF_PREDICTIONS]
    columns = [_COLUMNS[name] for name in shown]
    tables = []
    for kind, parts in sums.subsets.items():
        found = {name: part for name, part in parts.items() if part["recall"].denominator.any()}
        if len(found) > 1:
            rows = {name: _row(part, clusters, shown) for name, part in found.items()}
            tables.append(Table.of(f"strict_{kind}", f"strict protocol by {TITLES[kind]}", columns, rows, detail=True))
    if sums.occluded.any():
        rows = {name: _row(part, clusters, shown) for name, part in sums.visibility.items()}
        title = "strict protocol over joints that are visible or labelled as occluded"
        tables.append(Table.of("strict_visibility", title, columns, rows, detail=True))
    return tables

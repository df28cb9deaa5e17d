"""The strict protocol on prepared data: overall, and by activity, sequence, joint and subset of people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from das.metrics.bootstrap import Clusters, Interval, Ratio, interval
from das.metrics.strict import Strict, only_ignored
from das.metrics.tables import NOT_COUNTED, Predictions, Truth, by_group, root_average_precision
from pipeline.data.record import Record
from pipeline.evaluation.scored import Scored
from pipeline.evaluation.subsets import TITLES, occluded_joints, people_subsets
from pipeline.infra.text_tables import Numbers, Table, ends_as_metrics

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


def strict_numbers(scored: Scored) -> list[Numbers]:
    """Metrics, tables and scores named strict/... and baseline/...; one entry, since the protocol fits all 3D data."""
    result, truth, people, clusters = scored.strict, scored.truth, scored.people, scored.clusters
    images = len(scored.records)
    numbers = result.numbers()
    scores = result.scores(truth, people, images)
    metrics = {f"strict/{name}": value for name, value in numbers.items() if not name.startswith("baseline_")}
    metrics |= {f"baseline/{name}": numbers[f"baseline_{name}"] for name in ("mpjpe", "mpjpe_with_misses")}
    metrics["strict/threshold"] = scored.threshold
    for name in _WITH_INTERVALS:
        metrics |= ends_as_metrics(f"strict/{name}", _interval(name, scores[name], clusters))

    groups = image_groups(scored.records)
    tables: list[Table] = []
    counts = np.bincount(truth.frame[result.match != NOT_COUNTED], minlength=images)
    for kind, names in groups.items():
        rows = {"all": _row(scores, clusters, counts)}
        for name in sorted(np.unique(names).tolist(), key=natural_order):
            here = names == name
            part = {n: score.where(here) for n, score in scores.items()}
            rows[name] = _row(part, clusters.where(here), counts[here])
            metrics |= {f"strict/{n}/{name}": part[n].value for n in _GROUP_METRICS}
            metrics[f"baseline/mpjpe/{name}"] = part["baseline_mpjpe"].value
        title = f"strict protocol by {kind}, people above score {scored.threshold:.3g}"
        tables.append(Table.of(f"strict_{kind}", title, list(_COLUMNS.values()), rows, detail=len(tables) > 0))

    joints = _joints(scored)
    metrics |= {f"strict/joint_mpjpe/{name}": row[0] for name, row in joints.rows.items()}
    root = _roots(scored, scores, next(iter(groups.values())))
    metrics["strict/root_ap_250mm"] = root.rows["all"][0]
    subsets = _subsets(scored)
    for table in subsets:
        kind = table.name.removeprefix("strict_")
        metrics |= {f"strict/mpjpe/{kind}/{name}": row[1] for name, row in table.rows.items()}
    return [Numbers(metrics, (*tables, joints, root, *subsets), {f"strict/{n}": score for n, score in scores.items()})]


def image_groups(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Group names (F,) of the images by kind: activities (unless all are sequences), and sequences."""
    sequences = np.array([record.sequence for record in records])
    activities = np.array([record.activity for record in records])
    if (activities != sequences).any() and (activities != "").any():
        return {"activities": np.where(activities == "", "no activity", activities), "sequences": sequences}
    return {"sequences": sequences}


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sorting key that puts TS2 before TS10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _row(scores: Mapping[str, Ratio], clusters: Clusters, counts: np.ndarray) -> list[float | Interval]:
    shown = (name for name in _COLUMNS if name != "people")
    return [float(counts.sum()), *(_interval(name, scores[name], clusters) for name in shown)]


def _interval(name: str, score: Ratio, clusters: Clusters) -> Interval:
    return interval(score, clusters, (0.0, 1.0) if name in _SHARES else (0.0, np.inf))


def _joints(scored: Scored) -> Table:
    scores = scored.strict.joint_scores(scored.truth, len(scored.records))
    columns = {name: scores[name].columns() for name in _JOINT_COLUMNS}
    rows = {
        joint: [_interval(name, column[i], scored.clusters) for name, column in columns.items()]
        for i, joint in enumerate(scored.skeleton.joints)
        if columns["mpjpe"][i].denominator.any()
    }
    title = "strict protocol by joint, over matched people"
    return Table.of("strict_joints", title, list(_JOINT_COLUMNS.values()), rows)


def _roots(scored: Scored, scores: Mapping[str, Ratio], groups: np.ndarray) -> Table:
    """Position of roots: average precision within 25 cm, which needs no threshold, and errors in mm."""
    truth, candidates, clusters = scored.truth, scored.candidates, scored.clusters
    root = scored.skeleton.root_indices

    def average_precision(people: Truth, found: Predictions) -> float:
        return root_average_precision(people, found, root, ignored=only_ignored(people, found, root))

    precision = {"all": average_precision(truth, candidates)}
    precision |= by_group(average_precision, truth, candidates, groups)
    rows: dict[str, list[float | Interval]] = {}
    for name in ["all", *sorted(precision.keys() - {"all"}, key=natural_order)]:
        here = np.ones(len(groups), bool) if name == "all" else groups == name
        errors = (_interval(n, scores[n].where(here), clusters.where(here)) for n in _ROOT_COLUMNS)
        rows[name] = [precision[name], *errors]
    title = (
        f"root position: AP of roots within 25 cm over all candidates above score {scored.provenance.least_score:.3g}"
    )
    columns = [("AP 25 cm", ".3f"), *_ROOT_COLUMNS.values()]
    return Table.of("strict_roots", title, columns, rows, detail=True)


def _subsets(scored: Scored) -> list[Table]:
    """Tables by kind of person, and over visible and over occluded joints; none of them has a precision."""
    records, truth, result, skeleton = scored.records, scored.truth, scored.strict, scored.skeleton
    columns = [column for name, column in _COLUMNS.items() if name not in _OF_PREDICTIONS]

    def row(part: Strict) -> list[float | Interval]:
        scores = part.scores(truth, scored.people, len(records))
        shown = (name for name in _COLUMNS if name not in ("people", *_OF_PREDICTIONS))
        return [float(part.people), *(_interval(name, scores[name], scored.clusters) for name in shown)]

    tables = []
    for kind, parts in people_subsets(records, truth, skeleton).items():
        rows = {name: row(result.of(people=of)) for name, of in parts.items()}
        tables.append(Table.of(f"strict_{kind}", f"strict protocol by {TITLES[kind]}", columns, rows, detail=True))
    occluded = occluded_joints(records, truth, skeleton)
    if occluded.any():
        rows = {"visible": row(result.of(joints=~occluded)), "occluded": row(result.of(joints=occluded))}
        title = "strict protocol over joints that are visible or labelled as occluded"
        tables.append(Table.of("strict_visibility", title, columns, rows, detail=True))
    return tables

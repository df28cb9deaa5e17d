"""The published protocols of CMU Panoptic, on prepared data in its layout: the DAS release's and SMAP's."""

from __future__ import annotations

import numpy as np

from das.metrics.bootstrap import Interval, Ratio, interval
from das.metrics.panoptic import PanopticRelease, activity_mean, panoptic_smap, release_by_activity, smap_scale
from das.metrics.tables import MISSED, Predictions
from das.skeleton import PANOPTIC15
from pipeline.evaluation.ground_truth import in_panoptic_layout, panoptic_truth, pinhole_predictions, smap_truth
from pipeline.evaluation.scored import Scored
from pipeline.infra.text_tables import Numbers, Table, ends_as_metrics

_RELEASE_COLUMNS = (
    ("MPJPE mm", ".1f"),
    ("mean pose mm", ".1f"),
    ("frames", ".0f"),
    ("people", ".0f"),
    ("without candidate", ".0f"),
)
_SMAP_COLUMNS = {
    "mpjpe": ("MPJPE mm", ".1f"),
    "mpjpe_absolute": ("absolute mm", ".1f"),
    "pck": ("PCK 15 cm", ".3f"),
    "pck_absolute": ("absolute PCK", ".3f"),
    "recall": ("recall", ".3f"),
}


def _fits(scored: Scored) -> bool:
    """Whether the rows are in Panoptic's layout and the predictions in the joints of its evaluators."""
    return scored.skeleton.joints == PANOPTIC15.joints and all(map(in_panoptic_layout, scored.records))


def panoptic_release_numbers(scored: Scored) -> list[Numbers]:
    """The evaluator released with DAS, by activity; empty for other data or joints.

    Both sides are pinhole back-projections of distorted pixels. It chooses among the candidates above the
    architecture's threshold, not the model's own.
    """
    if not _fits(scored):
        return []
    records, provenance, clusters = scored.records, scored.provenance, scored.clusters
    candidates = pinhole_predictions(scored.release_candidates, records)
    given = panoptic_truth(records)
    rest = (given.activity, given.R, given.joints_cam, given.known)
    results = release_by_activity(given.truth, candidates, *rest)
    baseline = {name: np.nan for name in results}
    baseline_mean = np.nan
    if provenance.mean_pose is not None:
        frames = np.unique(given.truth.frame)
        # One mean pose per frame suffices: the protocol aligns roots and matches with replacement.
        poses = np.broadcast_to(np.array(provenance.mean_pose), (len(frames), 15, 3))
        found = release_by_activity(given.truth, Predictions(frames, poses, np.ones(len(frames))), *rest)
        baseline, baseline_mean = {name: result.mpjpe for name, result in found.items()}, activity_mean(found)
    metrics = {"baseline/panoptic_release_mpjpe": baseline_mean}
    rows: dict[str, list[float | Interval]] = {}
    columns = {name: result.score(len(records)) for name, result in results.items()}
    for name, result in results.items():
        metrics[f"panoptic_release/mpjpe/{name}"] = result.mpjpe
        metrics[f"baseline/panoptic_release_mpjpe/{name}"] = baseline[name]
        here = given.activity == name
        rows[name] = [
            interval(columns[name].where(here), clusters.where(here), (0.0, np.inf)),
            baseline[name],
            *_counts(result),
        ]
    mean = Ratio(*(np.stack([getattr(c, side) for c in columns.values()], axis=1) for side in _SIDES))
    found_mean = interval(mean, clusters, (0.0, np.inf))
    metrics |= ends_as_metrics("panoptic_release/mpjpe", found_mean)
    total = np.sum([_counts(result) for result in results.values()], axis=0).tolist()
    rows["mean"] = [found_mean, baseline_mean, *total]
    title = (
        "panoptic-release by activity (optimistic: the nearest of up to 100 candidates above score "
        f"{provenance.release_threshold:g}, with replacement; given for comparison, decides no promotion)"
    )
    table = Table.of("panoptic_release", title, _RELEASE_COLUMNS, rows)
    return [Numbers(metrics, (table,), {"panoptic_release/mpjpe": mean})]


_SIDES = ("numerator", "denominator")


def _counts(result: PanopticRelease) -> list[float]:
    return [float(len(result.frames)), float(result.frame_people.sum()), float((result.match == MISSED).sum())]


def panoptic_smap_numbers(scored: Scored) -> list[Numbers]:
    """SMAP's evaluator (Zhen et al. 2020) on people above the model's threshold; empty for other data or joints."""
    if not _fits(scored):
        return []
    records, people, clusters = scored.records, scored.people, scored.clusters
    truth, known = smap_truth(records)
    scale = np.array([smap_scale(record.width, record.height) for record in records])
    scores = panoptic_smap(truth, people, scale, known=known).scores(truth, len(records))
    activity = np.array([record.activity or "no activity" for record in records])
    metrics: dict[str, float] = {}
    rows = {}
    for name in ("all", *np.unique(activity).tolist()):
        here = np.ones(len(records), bool) if name == "all" else activity == name
        rows[name] = [
            interval(scores[n].where(here), clusters.where(here), (0.0, np.inf if n.startswith("mpjpe") else 1.0))
            for n in _SMAP_COLUMNS
        ]
        for n, found in zip(_SMAP_COLUMNS, rows[name], strict=True):
            where = f"panoptic_smap/{n}" if name == "all" else f"panoptic_smap/{n}/{name}"
            metrics |= ends_as_metrics(where, found) if name == "all" else {where: found.value}
    title = "panoptic-smap by activity (one-to-one by 2D root within 30 px; missed people lower only recall)"
    table = Table.of("panoptic_smap", title, list(_SMAP_COLUMNS.values()), rows)
    return [Numbers(metrics, (table,), {f"panoptic_smap/{name}": score for name, score in scores.items()})]

"""The published protocols of CMU Panoptic, on prepared data in its layout: the DAS release's and SMAP's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from das.metrics.bootstrap import Interval, Ratio, interval
from das.metrics.panoptic import PanopticRelease, panoptic_release, panoptic_smap, smap_scale, world_poses
from das.metrics.tables import Predictions, Truth
from das.skeleton import PANOPTIC15
from pipeline.evaluation.ground_truth import in_panoptic_layout, panoptic_truth, pinhole_predictions, smap_truth
from pipeline.evaluation.scored import Scored, Setting
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


# ---- the DAS release ----


@dataclass(frozen=True)
class Unpredicted:
    """People whom the release scores by the mean pose of their activity, which is known after the last image.

    That are those of frames without any candidate; N people, 0.8 kB each.

    Attributes:
        frame: (N,) place among all images. cell: (N,) of the image.
        joints_cam: (N, 15, 3) mm and scored: (N, 15) bool, from ``release_truth``.
        R: (N, 3, 3) world to camera.
    """

    frame: np.ndarray
    cell: np.ndarray
    joints_cam: np.ndarray
    scored: np.ndarray
    R: np.ndarray

    def by_mean_pose(self, people: np.ndarray, world_mean: np.ndarray) -> tuple[PanopticRelease, np.ndarray]:
        """The result for some of the people, (N,) bool, and the cell of each of its frames."""
        frames, first, frame = np.unique(self.frame[people], return_index=True, return_inverse=True)
        truth = Truth(frame, self.joints_cam[people], self.scored[people])
        nobody = Predictions(np.zeros(0, np.int64), np.zeros((0, 15, 3)), np.zeros(0))
        return panoptic_release(truth, nobody, world_mean, self.R[people][first]), self.cell[people][first]


@dataclass(frozen=True)
class ReleaseSums:
    """What the release's protocol keeps of some images.

    Attributes:
        mpjpe: by cell, of frames with candidates. crowd: by cell, people for each of those frames that has people who
            count.
        baseline: ``mpjpe`` of the mean pose of the training data, by cell; empty where that is not known.
        activity: (A,) names; of these poses: (A, 15, 3) sum and known: (A, 15) number of the people's root-aligned
            joints in world axes.
        unpredicted: people of the other frames.
    """

    mpjpe: Ratio
    crowd: Ratio
    baseline: dict[str, Ratio]
    activity: np.ndarray
    poses: np.ndarray
    known: np.ndarray
    unpredicted: Unpredicted


def release_sums(scored: Scored) -> ReleaseSums | None:
    """What the release's protocol keeps of these images; None for other data or joints."""
    if not _fits(scored):
        return None
    images, given = len(scored.records), panoptic_truth(scored.records)
    candidates = pinhole_predictions(scored.release_candidates, scored.records)
    assert given.truth.ignore is not None
    used = ~given.truth.ignore
    truth, cam, known = given.truth.where(used), given.joints_cam[used], given.known[used]
    R, activity = given.R[truth.frame], given.activity[truth.frame]
    names = np.unique(activity)
    groups = [activity == name for name in names]
    poses = [world_poses(cam[here], known[here], R[here]) for here in groups]

    left = ~np.isin(truth.frame, candidates.frame)
    found = panoptic_release(truth.where(~left), candidates, np.zeros((15, 3)), given.R)
    left &= truth.counted(PANOPTIC15.root_indices)
    baseline = {}
    if scored.provenance.mean_pose is not None:
        frames = np.unique(truth.frame)
        # One mean pose per frame suffices: the protocol aligns roots and matches with replacement.
        pose = np.broadcast_to(np.array(scored.provenance.mean_pose), (len(frames), 15, 3))
        posed = panoptic_release(truth, Predictions(frames, pose, np.ones(len(frames))), np.zeros((15, 3)), given.R)
        baseline["mpjpe"] = scored.by_cell(posed.score(images))
    return ReleaseSums(
        mpjpe=scored.by_cell(found.score(images)),
        crowd=scored.by_cell(
            Ratio(*(np.bincount(found.frames, x, images) for x in (found.frame_people, np.ones(len(found.frames)))))
        ),
        baseline=baseline,
        activity=names,
        poses=np.array([above for above, _ in poses]).reshape(-1, 15, 3),
        known=np.array([below for _, below in poses]).reshape(-1, 15),
        unpredicted=Unpredicted(
            frame=scored.first + truth.frame[left],
            cell=scored.cell[truth.frame[left]],
            joints_cam=truth.joints_cam[left],
            scored=truth.scored[left],
            R=R[left],
        ),
    )


def release_numbers(sums: ReleaseSums, setting: Setting) -> list[Numbers]:
    """The evaluator released with DAS, by activity.

    Both sides are pinhole back-projections of distorted pixels. It chooses among the candidates above the
    architecture's threshold, not the model's own.
    """
    cells = setting.cells
    clusters, names = cells.clusters, np.unique(cells.activity).tolist()
    above, people, frames = sums.mpjpe.numerator.copy(), sums.mpjpe.denominator.copy(), sums.crowd.denominator.copy()
    missed = np.zeros(len(names))
    for i, name in enumerate(names):
        of, here = sums.activity == name, cells.activity[sums.unpredicted.cell] == name
        world_mean = sums.poses[of].sum(axis=0) / np.maximum(sums.known[of].sum(axis=0), 1)[:, None]
        found, cell = sums.unpredicted.by_mean_pose(here, world_mean)
        missed[i] = here.sum()
        np.add.at(above, cell, found.frame_people * found.frame_mpjpe)
        np.add.at(people, cell, found.frame_people)
        np.add.at(frames, cell, 1)
    score = Ratio(above, people)
    baseline = sums.baseline.get("mpjpe")
    metrics: dict[str, float] = {"baseline/panoptic_release_mpjpe": np.nan}
    rows: dict[str, list[float | Interval]] = {}
    counted = np.zeros((len(names), 3))  # frames, people, and those without a candidate
    for i, name in enumerate(names):
        here = cells.activity == name
        part = score.where(here)
        posed = np.nan if baseline is None else baseline.where(here).value
        metrics[f"panoptic_release/mpjpe/{name}"] = part.value
        metrics[f"baseline/panoptic_release_mpjpe/{name}"] = posed
        counted[i] = frames[here].sum(), people[here].sum(), missed[i]
        rows[name] = [interval(part, clusters.where(here), (0.0, np.inf)), posed, *counted[i].tolist()]
    # The paper's mean: the plain one of the activities' numbers.
    mean = score.mean_over(cells.activity)
    found_mean = interval(mean, clusters, (0.0, np.inf))
    metrics["baseline/panoptic_release_mpjpe"] = float(
        np.mean([metrics[f"baseline/panoptic_release_mpjpe/{name}"] for name in names])
    )
    metrics |= ends_as_metrics("panoptic_release/mpjpe", found_mean)
    rows["mean"] = [found_mean, metrics["baseline/panoptic_release_mpjpe"], *counted.sum(axis=0).tolist()]
    title = (
        "panoptic-release by activity (optimistic: the nearest of up to 100 candidates above score "
        f"{setting.provenance.release_threshold:g}, with replacement; given for comparison, decides no promotion)"
    )
    table = Table.of("panoptic_release", title, _RELEASE_COLUMNS, rows)
    return [Numbers(metrics, (table,), {"panoptic_release/mpjpe": mean})]


# ---- SMAP ----


def smap_sums(scored: Scored) -> dict[str, Ratio] | None:
    """What SMAP's protocol keeps of these images: its scores by cell; None for other data or joints."""
    if not _fits(scored):
        return None
    truth, known = smap_truth(scored.records)
    scale = np.array([smap_scale(record.width, record.height) for record in scored.records])
    scores = panoptic_smap(truth, scored.people, scale, known=known).scores(truth, len(scored.records))
    return {name: scored.by_cell(score) for name, score in scores.items()}


def smap_numbers(scores: Mapping[str, Ratio], setting: Setting) -> list[Numbers]:
    """SMAP's evaluator (Zhen et al. 2020) on people above the model's threshold."""
    clusters, activity = setting.cells.clusters, setting.cells.activity
    metrics: dict[str, float] = {}
    rows = {}
    for name in ("all", *np.unique(activity).tolist()):
        here = np.ones(len(activity), bool) if name == "all" else activity == name
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

"""From annotations and predictions to numbers under every protocol that fits the data.

The protocols themselves are functions on arrays in das/. Here rows become their tables (which people, which joints,
which pixels), groups are formed, and results get the names that they have in MLflow, reports and tables:

    strict/...             ours, for all data in 3D; decides promotions
    baseline/...           the training split's mean pose in the place of every prediction, under the same protocol
    panoptic_release/...   the evaluator released with DAS on Panoptic, per activity; optimistic by construction
    mupots_release/...     the evaluator released with DAS on MuPoTS-3D, percent, per sequence
    mupots_release_mended/...   the same with every bone's own parent

Where the model knows the images from its training, every name and table begins with ``train-fit``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from das.metrics import MISSED, Predictions, Truth, by_group, mean_per_joint, root_aligned, root_of
from das.predictor import Prediction
from das.protocols_mupots import COLUMNS, Mupots, mupots_release
from das.protocols_panoptic import activity_mean, annotated, release_by_activity, release_truth
from das.skeleton import COCO19, MPI15, MUPOTS17, PANOPTIC15, Skeleton, conversion, skeleton_named
from das.strict import Strict, strict
from das.transforms import inside
from pipeline.annotations import Annotations, check_joints
from pipeline.predictions import Origin, PredictionSet
from pipeline.schema import UNLABELLED, Record
from pipeline.tables import Table

TRAIN_FIT = "train-fit"
"""What marks numbers that were measured on training data."""

# Sources in Panoptic's layout, on which its released evaluator is defined.
_PANOPTIC_SOURCES = ("panoptic", "synthetic")
# The release drops people with fewer annotated joints.
_LEAST_JOINTS = 3

_STRICT_COLUMNS = {
    "people": ("people", ".0f"),
    "mpjpe": ("MPJPE mm", ".1f"),
    "baseline_mpjpe": ("mean pose mm", ".1f"),
    "mpjpe_over_baseline": ("ratio", ".3f"),
    "recall": ("recall", ".3f"),
    "precision": ("precision", ".3f"),
    "root_error": ("root error mm", ".1f"),
    "pa_mpjpe": ("PA-MPJPE mm", ".1f"),
    "pck_150mm": ("PCK 150 mm", ".3f"),
}
_GROUP_METRICS = ("mpjpe", "recall", "precision", "root_error")


@dataclass(frozen=True)
class Sheet:
    """What predictions are worth.

    Attributes:
        threshold: people above this score count in the strict protocol.
        truth, people, strict: its two tables and its result, person by person; frame i is the i-th image.
        metrics: every number by name. tables: the same and more, to read.
    """

    threshold: float
    truth: Truth
    people: Predictions
    strict: Strict
    metrics: dict[str, float]
    tables: tuple[Table, ...]


def score(annotations: Annotations, predictions: PredictionSet, threshold: float | None = None) -> Sheet:
    """Scores one set of predictions for exactly these images under every protocol that fits them.

    Args:
        annotations: the images.
        predictions: for all of them; joined by key.
        threshold: score threshold of the strict protocol; None takes the model's own.

    Raises:
        ValueError: predictions for other data, images without joints in 3D or without the model's root, nobody who
            can be scored, or a threshold below the scores that were kept.
    """
    origin, records = predictions.origin, annotations.records
    if origin.data_fingerprint != annotations.fingerprint:
        found, wanted = origin.data_fingerprint[:12], annotations.fingerprint[:12]
        raise ValueError(f"the predictions are for data {found}, but {annotations.name} has fingerprint {wanted}")
    threshold = origin.score_threshold if threshold is None else threshold
    if threshold < origin.least_score:
        raise ValueError(f"threshold = {threshold:g}, wanted at least {origin.least_score:g}: others were not kept")
    check_joints(annotations, origin.skeleton)
    truth = strict_truth(records, origin.skeleton)
    if not truth.counted(origin.skeleton.root_indices).any():
        raise ValueError(f"{annotations.name}: nobody in {len(records)} images can be scored: no root is visible")

    everyone = predictions.table(annotations.keys)
    people = everyone.where(everyone.scores > threshold)
    result, metrics, tables = _strict(records, truth, people, origin, threshold)
    candidates = everyone.where(everyone.scores > origin.release_threshold)
    for more_metrics, more_tables in (
        _panoptic_release(records, candidates, origin),
        _mupots_release(records, candidates, origin),
    ):
        metrics |= more_metrics
        tables += more_tables
    if origin.train_fit:
        metrics = {f"{TRAIN_FIT}/{name}": value for name, value in metrics.items()}
        tables = [replace(t, name=f"{TRAIN_FIT}_{t.name}", title=f"{TRAIN_FIT}: {t.title}") for t in tables]
    return Sheet(threshold, truth, people, result, metrics, tuple(tables))


# ---- strict ----


def _strict(
    records: Sequence[Record], truth: Truth, people: Predictions, origin: Origin, threshold: float
) -> tuple[Strict, dict[str, float], list[Table]]:
    skeleton = origin.skeleton
    taught = np.array([joint not in origin.unsupervised_joints for joint in skeleton.joints])
    protocol = partial(strict, root=skeleton.root_indices, mean_pose=np.array(origin.mean_pose), taught=taught)
    result = protocol(truth, people)
    numbers = result.numbers()
    metrics = {f"strict/{name}": value for name, value in numbers.items() if name != "baseline_mpjpe"}
    metrics |= {"strict/threshold": threshold, "baseline/mpjpe": numbers["baseline_mpjpe"]}

    sequences = np.array([record.sequence for record in records])
    activities = np.array([record.activity for record in records])
    groupings = {"sequences": sequences}
    if (activities != sequences).any() and (activities != "").any():
        groupings = {"activities": np.where(activities == "", "no activity", activities), **groupings}
    tables: list[Table] = []
    for kind, names in groupings.items():
        results = by_group(protocol, truth, people, names)
        groups = {name: results[name].numbers() for name in sorted(results, key=_natural)}
        for group, values in groups.items():
            metrics |= {f"strict/{name}/{group}": values[name] for name in _GROUP_METRICS}
            metrics[f"baseline/mpjpe/{group}"] = values["baseline_mpjpe"]
        title = f"strict protocol by {kind}, people above score {threshold:.3g}"
        everyone = {"all": numbers, **groups}
        shown = {row: [values[name] for name in _STRICT_COLUMNS] for row, values in everyone.items()}
        tables.append(Table(f"strict_{kind}", title, tuple(_STRICT_COLUMNS.values()), shown, detail=len(tables) > 0))

    joints = np.stack(
        [
            result.joint_mpjpe(),
            mean_per_joint(result.baseline_errors, result.scored & result.found[:, None]),
            result.joint_pck(),
        ],
        axis=1,
    )
    rows = {name: joints[i].tolist() for i, name in enumerate(skeleton.joints) if not np.isnan(joints[i]).all()}
    metrics |= {f"strict/joint_mpjpe/{name}": row[0] for name, row in rows.items()}
    columns = (("MPJPE mm", ".1f"), ("mean pose mm", ".1f"), ("PCK 150 mm", ".3f"))
    tables.append(Table("strict_joints", "strict protocol by joint, over matched people", columns, rows))
    return result, metrics, tables


def strict_truth(records: Sequence[Record], skeleton: Skeleton) -> Truth:
    """People of images in the joints that the model predicts, for the strict protocol; frame i is records[i].

    Scored are labelled joints (occluded ones included) inside the image, what training supervises. People without
    joints or that the source does not stand behind are ignored: neither to be found nor to be punished.

    Raises:
        ValueError: if an image has no 3D joints; names its key.
    """
    frame, cam, uv, scored, bbox, ignore = [], [], [], [], [], []
    for i, record in enumerate(records):
        if record.joints_cam is None:
            raise ValueError(f"{record.key}: 2D annotations only, the strict protocol needs joints_cam")
        index = np.array(conversion(skeleton_named(record.skeleton), skeleton).index)
        labelled = (record.state > UNLABELLED) & inside(record.joints_uv, record.height, record.width)
        frame.append(np.full(len(record), i))
        cam.append(record.joints_cam[:, index])
        uv.append(record.joints_uv[:, index])
        scored.append(labelled[:, index] & (index >= 0))
        bbox.append(record.bbox)
        ignore.append(record.ignore | ~record.valid)
    return Truth(
        frame=_rows(frame, ()),
        joints_cam=_rows(cam, (len(skeleton), 3)),
        scored=_rows(scored, (len(skeleton),)),
        joints_uv=_rows(uv, (len(skeleton), 2)),
        bbox=_rows(bbox, (4,)),
        ignore=_rows(ignore, ()),
    )


def predicted(predictions: Iterable[Prediction], n_joints: int) -> Predictions:
    """People predicted on images, one Prediction per image; frame i is the i-th."""
    people = [p.people for p in predictions]
    return Predictions(
        frame=_rows([np.full(len(p.scores), i) for i, p in enumerate(people)], ()),
        joints_cam=_rows([p.joints_cam for p in people], (n_joints, 3)),
        scores=_rows([p.scores for p in people], ()),
        joints_uv=_rows([p.joints_uv for p in people], (n_joints, 2)),
    )


# ---- panoptic-release ----


@dataclass(frozen=True)
class PanopticTruth:
    """What ``panoptic_release`` takes besides predictions; T people in F images.

    Attributes:
        truth: the release's ground truth.
        joints_cam: (T, 15, 3) mm, true camera-space joints, and known: (T, 15) bool: of its mean pose.
        R: (F, 3, 3) world to camera. activity: (F,) names.
    """

    truth: Truth
    joints_cam: np.ndarray
    known: np.ndarray
    R: np.ndarray
    activity: np.ndarray


def panoptic_truth(records: Sequence[Record]) -> PanopticTruth:
    """Rows in Panoptic's layout as the release annotates them; frame i is records[i].

    A joint is known above confidence 0.1, joint 1 only where it is the head top (mpi15); it is scored when it is
    also inside the image. Ground truth is the distorted pixel, back-projected by the pinhole alone.
    """
    parts, cam, known, R = [], [], [], []
    for i, record in enumerate(records):
        assert record.joints_cam is not None and record.confidence is not None and record.K is not None
        native = skeleton_named(record.skeleton)
        index = np.array(conversion(native, PANOPTIC15).index)
        joints_cam = record.joints_cam[:, index].astype(np.float64)
        here = annotated(record.confidence[:, index], np.full(len(record), native == MPI15))
        parts.append(
            release_truth(
                frame=np.full(len(record), i),
                joints_uv=record.joints_uv[:, index].astype(np.float64),
                depth=joints_cam[..., 2],
                K=np.broadcast_to(record.K, (len(record), 3, 3)),
                # Joints that the lens cannot image have no pixel: the source leaves them unlabelled.
                known=here & (record.state[:, index] > UNLABELLED),
                width=record.width,
                height=record.height,
                ignore=record.ignore | ~record.valid | (here.sum(axis=1) < _LEAST_JOINTS),
            )
        )
        cam.append(joints_cam)
        known.append(here)
        R.append(record.R)
    truth = Truth(
        frame=_rows([part.frame for part in parts], ()),
        joints_cam=_rows([part.joints_cam for part in parts], (15, 3)),
        scored=_rows([part.scored for part in parts], (15,)),
        ignore=_rows([part.ignore for part in parts if part.ignore is not None], ()),
    )
    activity = np.array([record.activity or "no activity" for record in records])
    return PanopticTruth(truth, _rows(cam, (15, 3)), _rows(known, (15,)), np.array(R), activity)


def _panoptic_release(
    records: Sequence[Record], candidates: Predictions, origin: Origin
) -> tuple[dict[str, float], list[Table]]:
    """Numbers and table of ``panoptic-release``; empty where the rows are not in Panoptic's layout."""
    if origin.skeleton.joints != PANOPTIC15.joints or not all(map(_in_panoptic_layout, records)):
        return {}, []
    given = panoptic_truth(records)
    rest = (given.activity, given.R, given.joints_cam, given.known)
    frames = np.unique(given.truth.frame)
    standing = np.broadcast_to(np.array(origin.mean_pose), (len(frames), 15, 3))
    results = release_by_activity(given.truth, candidates, *rest)
    baseline = release_by_activity(given.truth, Predictions(frames, standing, np.ones(len(frames))), *rest)
    metrics = {
        "panoptic_release/mpjpe": activity_mean(results),
        "baseline/panoptic_release_mpjpe": activity_mean(baseline),
    }
    rows = {}
    for name, found in results.items():
        metrics[f"panoptic_release/mpjpe/{name}"] = found.mpjpe
        metrics[f"baseline/panoptic_release_mpjpe/{name}"] = baseline[name].mpjpe
        counts = (len(found.frames), found.frame_people.sum(), (found.match == MISSED).sum())
        rows[name] = [found.mpjpe, baseline[name].mpjpe, *map(float, counts)]
    means = [activity_mean(results), activity_mean(baseline)]
    rows["mean"] = [*means, *np.sum([row[2:] for row in rows.values()], axis=0).tolist()]
    title = (
        "panoptic-release by activity (optimistic: the nearest of up to 100 candidates above score "
        f"{origin.release_threshold:g}, with replacement; beside the strict protocol, decides nothing)"
    )
    columns = (
        ("MPJPE mm", ".1f"),
        ("mean pose mm", ".1f"),
        ("frames", ".0f"),
        ("people", ".0f"),
        ("without candidate", ".0f"),
    )
    return metrics, [Table("panoptic_release", title, columns, rows)]


def _in_panoptic_layout(record: Record) -> bool:
    annotated_so = record.skeleton in (COCO19.name, MPI15.name) and record.confidence is not None
    return record.source in _PANOPTIC_SOURCES and annotated_so and record.R is not None


# ---- mupots-release ----


def mupots_truth(records: Sequence[Record]) -> Truth:
    """Valid people of MuPoTS-3D with annot3 as ground truth; all joints count; frame i is records[i]."""
    frame, cam = [], []
    for i, record in enumerate(records):
        assert record.joints_cam is not None
        use = record.valid & ~record.ignore
        frame.append(np.full(use.sum(), i))
        cam.append(record.joints_cam[use])
    joints_cam = _rows(cam, (17, 3))
    return Truth(_rows(frame, ()), joints_cam, np.ones(joints_cam.shape[:2], bool))


def _mupots_release(
    records: Sequence[Record], candidates: Predictions, origin: Origin
) -> tuple[dict[str, float], list[Table]]:
    """Numbers and tables of ``mupots-release``; empty for other rows, or a model without all 17 joints."""
    index = np.array(conversion(origin.skeleton, MUPOTS17).index)
    if (index < 0).any() or any(record.skeleton != MUPOTS17.name for record in records):
        return {}, []
    truth = mupots_truth(records)
    if not len(truth):
        return {}, []
    sequence = np.array([record.sequence for record in records])
    found = replace(candidates, joints_cam=candidates.joints_cam[:, index], joints_uv=None)
    # The baseline stands where people are: what it scores is a pose, and no place.
    root = MUPOTS17.root_indices
    mean = root_aligned(np.array(origin.mean_pose)[None, index], root)
    standing = Predictions(truth.frame, mean + root_of(truth.joints_cam, root)[:, None], np.ones(len(truth)))

    metrics: dict[str, float] = {}
    tables = []
    for name, bug in (("mupots_release", True), ("mupots_release_mended", False)):
        every = mupots_release(truth, found, sequence, everyone=True, parent_bug=bug)
        matched = mupots_release(truth, found, sequence, everyone=False, parent_bug=bug)
        baseline = mupots_release(truth, standing, sequence, everyone=True, parent_bug=bug)
        metrics |= _mupots_metrics(name, every, matched)
        metrics[f"baseline/{name}_pck_rel_all"] = baseline.relative.mean_pck
        tables += _mupots_tables(name, every, matched, baseline)
    return metrics, tables


def _mupots_metrics(name: str, every: Mupots, matched: Mupots) -> dict[str, float]:
    metrics = {}
    for mode, result in (("all", every), ("matched", matched)):
        for kind, scores in (("rel", result.relative), ("abs", result.absolute)):
            metrics[f"{name}/pck_{kind}_{mode}"] = scores.mean_pck
            for sequence, row in zip(scores.sequences, scores.pck, strict=True):
                metrics[f"{name}/pck_{kind}_{mode}/{sequence}"] = float(row[-1])
    return metrics


def _mupots_tables(name: str, every: Mupots, matched: Mupots, baseline: Mupots) -> list[Table]:
    parts = [every.relative, every.absolute, matched.relative, matched.absolute, baseline.relative]
    total = [scores.pck[:, -1] for scores in parts]
    counts = [every.relative.people, matched.relative.people]
    rows = {str(s): [float(c[i]) for c in (*total, *counts)] for i, s in enumerate(every.relative.sequences)}
    rows = {s: rows[s] for s in sorted(rows, key=_natural)}
    rows["mean"] = [*(scores.mean_pck for scores in parts), *(float(c.sum()) for c in counts)]
    parents = "with its bone parents" if name == "mupots_release" else "with every bone's own parent"
    title = f"mupots-release {parents}, PCK at 150 mm in percent"
    columns = [(c, ".1f") for c in ("rel all", "abs all", "rel matched", "abs matched", "mean pose rel all")]
    by_sequence = Table(name, f"{title}, by sequence", (*columns, ("people", ".0f"), ("matched", ".0f")), rows)
    measured = [scores.pck[scores.people > 0] for scores in parts]
    by_joint = {
        column: [float(pck[:, i].mean()) if len(pck) else np.nan for pck in measured]
        for i, column in enumerate(COLUMNS)
    }
    title = f"{title}, by joint, mean of sequences"
    return [by_sequence, Table(f"{name}_joints", title, columns, by_joint, detail=True)]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorting key by which TS2 stands before TS10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _rows(parts: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(parts) if len(parts) else np.zeros((0, *shape))

"""The page of one evaluation: headline, published results beside ours, curves, breakdowns, people in 3D, runtime.

Numbers of a train-fit evaluation are marked in every heading; protocols that choose among candidates by the truth are
marked optimistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from das.metrics.tables import NOT_COUNTED, distances
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.benchmark.latency import Runtime
from pipeline.evaluation.frame_choice import chosen_frames, frame_errors
from pipeline.evaluation.predictions_file import Origin
from pipeline.evaluation.report.page import Comparison, beside
from pipeline.evaluation.report.published import TABLE_2, TABLE_3, UNKNOWN
from pipeline.evaluation.report.runtime import RuntimeSection, runtime_section
from pipeline.evaluation.report.scene import scene_of
from pipeline.evaluation.score import TRAIN_FIT, Sheet
from pipeline.infra.html.charts import Dot, Line, dot_chart, line_chart
from pipeline.infra.html.page import Chart, Grid, Note, Number, grid_of, meaning_of_intervals, render_page, shown
from pipeline.infra.html.pictures import data_uri

MOST_PICTURES = 24
"""Frames that a page holds, the worst first; all others stay in the evaluation's folder."""

OPTIMISTIC = {
    "panoptic_release": "takes the nearest of up to 100 candidates for every person, with replacement, wherever they "
    "stand; the best of 20 random poses of other people already has a third of the mean pose's error",
    "mupots_release": "takes the nearest prediction for every person, with replacement, after moving it to the true "
    "depth; extra and misplaced people cost nothing",
}
"""Protocols, by the start of their names, that flatter a model, and how."""

_LONG = 24  # rows above which a table is folded


@dataclass(frozen=True)
class Breakdown:
    """One table of the evaluation; ``long`` ones are folded. ``note`` says what its intervals promise."""

    title: str
    note: str
    grid: Grid
    optimistic: bool
    long: bool


@dataclass(frozen=True)
class Picture:
    """One frame: what it is, its key, its error in mm, and the overlay as data."""

    label: str
    key: str
    error: float
    uri: str


@dataclass(frozen=True)
class EvaluationPage:
    """What templates/evaluation.html lays out; ``mark`` is empty or says train-fit."""

    title: str
    subtitle: str
    mark: str
    protocol: str
    numbers: Sequence[Number]
    comparisons: Sequence[Comparison]
    charts: Sequence[Chart]
    tables: Sequence[Breakdown]
    scene: Mapping[str, Any]
    pictures: Sequence[Picture]
    frames_note: str
    runtime: RuntimeSection | None
    facts: Mapping[str, str]


def evaluation_page(
    name: str,
    model: str,
    annotations: Annotations,
    sheet: Sheet,
    origin: Origin,
    pictures: Mapping[str, bytes],
    runtime: Runtime | None,
    run: str | None,
) -> str:
    """One HTML file that needs nothing else.

    Args:
        name: of the evaluation.
        model: as the user named it.
        annotations: the images.
        sheet: their scores.
        origin: of the predictions.
        pictures: JPEG overlays by file name, from ``overlays``.
        runtime: what was measured, if it was.
        run: id of the MLflow run; None where there is none.
    """
    records = annotations.records
    places = _places(annotations, sheet, pictures)
    errors = frame_errors(sheet, len(records))
    scene = scene_of(places, annotations, sheet, origin)
    page = EvaluationPage(
        title=f"{annotations.name}: {name}",
        subtitle=f"{model}, {len(records)} images, {sheet.strict.people} people",
        mark=TRAIN_FIT if origin.train_fit else "",
        protocol=(
            f"Strict protocol: people above score {sheet.threshold:.3g} are paired one-to-one with the truth by the "
            "distance of their roots in the image. Error, recall and precision belong together: a model that finds "
            "fewer people can have the smaller error on those it finds."
        ),
        numbers=_headline(sheet, origin),
        comparisons=[*_beside_table_2(annotations, sheet, origin), *_beside_table_3(annotations, sheet, origin)],
        charts=[_pck_chart(sheet), _joint_chart(sheet, origin)],
        tables=[
            Breakdown(
                title=t.title,
                note=meaning_of_intervals(t),
                grid=grid_of(t),
                optimistic=_optimistic(t.name, t.title),
                long=len(t.rows) > _LONG,
            )
            for t in sheet.tables
        ],
        scene=scene,
        pictures=[
            Picture(_label(file), records[at].key, float(errors[at]), data_uri(pictures[file]))
            for file, at in places.items()
        ],
        frames_note=_frames_note(len(places), len(pictures)),
        runtime=None if runtime is None else runtime_section(runtime),
        facts={
            "evaluation": name,
            "MLflow run": run or "none",
            "model": model,
            "model fingerprint": origin.model_fingerprint,
            "data": ", ".join(annotations.folders),
            "data fingerprint": origin.data_fingerprint,
            "joint set": origin.skeleton.name,
            "never taught": ", ".join(origin.unsupervised_joints) or "none",
            "score threshold": f"{sheet.threshold:.4g} (strict), {origin.release_threshold:.4g} (release protocols)",
            "code": origin.code_version,
        },
    )
    return render_page("pipeline.evaluation.report", "evaluation.html", page)


# ---- numbers ----


def _headline(sheet: Sheet, origin: Origin) -> list[Number]:
    """What a reader wants first, with intervals where the sheet has them."""
    n = sheet.strict.numbers()

    def number(label: str, name: str, form: str, unit: str, *notes: str) -> Number:
        low, high = (_metric(sheet, origin, f"strict/{name}_{end}") for end in ("low", "high"))
        found = "" if np.isnan(low) else f"95 %: {low:{form}} to {high:{form}}"
        return Number(label, shown(n[name], form), unit, "; ".join(note for note in (found, *notes) if note))

    pose = f"mean pose of the training data: {shown(n['baseline_mpjpe'], '.1f')} mm"
    return [
        number("MPJPE, root-aligned", "mpjpe", ".1f", "mm", pose),
        number("recall", "recall", ".3f", "", f"{n['matched']:.0f} of {n['people']:.0f} people found"),
        number("precision", "precision", ".3f", "", f"{n['predictions']:.0f} predictions"),
        number("root position error", "root_error", ".0f", "mm", f"depth: {shown(n['root_depth_error'], '.0f')} mm"),
        number("PCK at 150 mm", "pck_150mm", ".3f", "", "of matched people's joints"),
        number("PA-MPJPE", "pa_mpjpe", ".1f", "mm", "after similarity alignment"),
    ]


def _metric(sheet: Sheet, origin: Origin, name: str) -> float:
    return sheet.metrics.get(f"{TRAIN_FIT}/{name}" if origin.train_fit else name, UNKNOWN)


def _optimistic(name: str, title: str) -> bool:
    return "optimistic" in title or name.removeprefix(f"{TRAIN_FIT}_").startswith(tuple(OPTIMISTIC))


def _sources(annotations: Annotations) -> set[str]:
    return {manifest.source for manifest in annotations.manifests}


def _about_ours(annotations: Annotations, source: str, wanted: str) -> Note:
    """What our rows were measured on, and whether that is what the table was."""
    images = f"{len(annotations.records):,} images"
    if _sources(annotations) == {source}:
        return Note(f"Our rows: {images} of {annotations.name}; the table: {wanted}.")
    return Note(f"Our rows: {images} of {annotations.name}, which are not {wanted}. Same protocol, other data.",
                "not comparable")  # fmt: skip


def _beside_table_2(annotations: Annotations, sheet: Sheet, origin: Origin) -> list[Comparison]:
    """Table 2 and the released evaluator's numbers; none where that does not fit the data."""
    if np.isnan(_metric(sheet, origin, "panoptic_release/mpjpe")):
        return []
    activities = [name for name, _ in TABLE_2.columns[:-1]]
    ours = {}
    for row, metric in (
        ("this model", "panoptic_release/mpjpe"),
        ("mean pose of its training data", "baseline/panoptic_release_mpjpe"),
    ):
        numbers = [_metric(sheet, origin, f"{metric}/{activity}") for activity in activities]
        # A mean over other activities than the table's would look like theirs and is none.
        mean = UNKNOWN if np.isnan(numbers).any() else _metric(sheet, origin, metric)
        ours[row] = (*numbers, mean)
    wanted = "CMU Panoptic's 9,600 frames of four activities"
    notes = [
        _about_ours(annotations, "panoptic", wanted),
        Note(f"The protocol {OPTIMISTIC['panoptic_release']}.", "optimistic"),
    ]
    return [beside("table-2", TABLE_2, ours, notes)]


def _beside_table_3(annotations: Annotations, sheet: Sheet, origin: Origin) -> list[Comparison]:
    """Table 3 and every MuPoTS protocol's numbers; none where those do not fit the data."""
    mark = f"{TRAIN_FIT}/" if origin.train_fit else ""
    names = [name.removeprefix(mark) for name in sheet.metrics]
    protocols = [name.split("/")[0] for name in names if name.startswith("mupots_") and name.endswith("/pck_rel_all")]
    if not protocols:
        return []
    ours = {
        f"this model, {protocol.replace('_', '-')}, {mode}": tuple(
            _metric(sheet, origin, f"{protocol}/pck_{kind}_{mode}") for kind in ("rel", "abs")
        )
        for protocol in protocols
        for mode in ("all", "matched")
    }
    for protocol in protocols:
        baseline = _metric(sheet, origin, f"baseline/{protocol}_pck_rel_all")
        if not np.isnan(baseline):
            ours[f"mean pose of its training data, {protocol.replace('_', '-')}"] = (baseline, UNKNOWN)
    notes = [
        _about_ours(annotations, "mupots", "the 20 sequences of MuPoTS-3D"),
        Note(f"mupots-release {OPTIMISTIC['mupots_release']}.", "optimistic"),
    ]
    return [beside("table-3", TABLE_3, ours, notes)]


# ---- charts ----


def pck_lines(sheet: Sheet, thresholds: Sequence[float]) -> list[Line]:
    """Percent of joints closer than each threshold (mm), for four meanings of close."""
    result = sheet.strict
    found = result.scored & result.found[:, None]
    everyone = result.scored & (result.match != NOT_COUNTED)[:, None]
    absolute = np.full(result.errors.shape, np.inf)
    absolute[result.found] = distances(
        sheet.people.joints_cam[result.match[result.found]], sheet.truth.joints_cam[result.found]
    )

    def curve(errors: np.ndarray, counted: np.ndarray) -> list[float]:
        if not counted.any():
            return [UNKNOWN] * len(thresholds)
        errors = np.sort(errors[counted])
        return (100 * np.searchsorted(errors, thresholds, side="left") / len(errors)).tolist()

    lines = [
        Line("root-aligned", "c1", curve(result.errors, found)),
        Line("misses are wrong", "c2", curve(np.where(found, result.errors, np.inf), everyone)),
        Line("in camera space", "c3", curve(absolute, found)),
    ]
    # Another group's predictions come without their training data's mean pose.
    posed = found & np.isfinite(result.baseline_errors)
    return [*lines, Line("mean pose", "c4", curve(result.baseline_errors, posed))] if posed.any() else lines


def _pck_chart(sheet: Sheet) -> Chart:
    """Those lines over 0 to 300 mm."""
    title, thresholds = "PCK over threshold", np.arange(0.0, 301.0, 5.0).tolist()
    svg = line_chart(title, thresholds, pck_lines(sheet, thresholds), "threshold, mm", "correct joints, %", 100.0)
    caption = (
        "Share of joints closer than the threshold, over matched people. With misses, joints of people who were not "
        "found are wrong at every threshold. In camera space nothing is aligned: where the person stands counts."
    )
    return Chart("pck", title, svg, caption)


def _joint_chart(sheet: Sheet, origin: Origin) -> Chart:
    """Error of each joint, beside the mean pose's."""
    result = sheet.strict
    found = result.scored & result.found[:, None]
    rows = {}
    for i, joint in enumerate(origin.skeleton.joints):
        if found[:, i].any():
            errors, pose = result.errors[found[:, i], i], result.baseline_errors[found[:, i], i]
            dots = (Dot("mean pose", "c4", float(pose.mean())), Dot("this model", "c1", float(errors.mean())))
            rows[joint] = tuple(dot for dot in dots if np.isfinite(dot.value))
    title = "Error by joint"
    caption = "Mean root-aligned error over matched people; a root that is itself a joint has none."
    return Chart("joints", title, dot_chart(title, rows, "mm"), caption)


# ---- frames ----


def _places(annotations: Annotations, sheet: Sheet, pictures: Mapping[str, bytes]) -> dict[str, int]:
    """Picture's file name -> frame, of those that the page holds, the worst first."""
    spread = sum(not _is_worst(file) for file in pictures)
    frames = chosen_frames(annotations, sheet, spread, len(pictures) - spread)
    assert set(frames) == set(pictures), "pictures are drawn from the same choice"
    order = sorted(frames, key=lambda file: (not _is_worst(file), file))
    return {file: frames[file] for file in order[:MOST_PICTURES]}


def _is_worst(file: str) -> bool:
    return file.startswith("worst_")


def _label(file: str) -> str:
    kind, number = file.split("_")[:2]
    return f"{'worst' if kind == 'worst' else 'sample'} {int(number) + 1}"


def _frames_note(shown_: int, all_: int) -> str:
    """How the frames were chosen."""
    left_out = f" {all_ - shown_} more are in the evaluation's folder." if all_ > shown_ else ""
    return (
        "The frames with the largest mean error, and samples spread evenly over the data; the number is the frame's "
        "mean joint error, where a missed person costs what the mean pose would, or a point in the person's middle "
        f"where nobody knows a mean pose.{left_out}"
    )

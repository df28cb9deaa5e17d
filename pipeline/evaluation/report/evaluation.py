"""The page of one evaluation: headline, published tables with ours, curves, breakdowns, people in 3D, runtime.

Every heading of a train-fit evaluation is marked as such. Protocols that choose among candidates by the ground truth
are marked optimistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from das.uncertainty import LEVELS
from pipeline.evaluation.benchmark.runtime import Runtime
from pipeline.evaluation.frame_choice import chosen_frames
from pipeline.evaluation.protocols.strict import CURVE, StrictSums
from pipeline.evaluation.protocols.table import PROTOCOLS
from pipeline.evaluation.report.page import Comparison, comparisons
from pipeline.evaluation.report.published import UNKNOWN
from pipeline.evaluation.report.runtime import RuntimeSection, runtime_section
from pipeline.evaluation.report.scene import scene_of
from pipeline.evaluation.score import ProtocolResults
from pipeline.evaluation.train_overlap import TRAIN_FIT
from pipeline.infra.html.charts import Dot, Line, dot_chart, line_chart
from pipeline.infra.html.page import Chart, Grid, Number, grid_of, meaning_of_intervals, render_page, shown
from pipeline.infra.html.pictures import data_uri

MOST_PICTURES = 24
"""Largest number of frames on a page, the worst first; the others are only in the evaluation's folder."""

_MOST_POINTS = 400  # of a curve; more cannot be seen
_LONG = 24  # rows above which a table is folded


@dataclass(frozen=True)
class Breakdown:
    """One table of the evaluation; ``long`` ones are folded. ``note`` explains its intervals."""

    title: str
    note: str
    grid: Grid
    optimistic: bool
    long: bool


@dataclass(frozen=True)
class Picture:
    """One frame: its label, its key, its error in mm, and the overlay as a data URI."""

    label: str
    key: str
    error: float
    uri: str


@dataclass(frozen=True)
class EvaluationPage:
    """The content of templates/evaluation.html; ``mark`` is train-fit or empty."""

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
    results: ProtocolResults,
    pictures: Mapping[str, bytes],
    runtime: Runtime | None,
    run: str | None,
) -> str:
    """The page as one HTML file that loads no other file.

    Args:
        name: of the evaluation.
        model: as the user named it.
        results: of all protocols.
        pictures: JPEG overlays by file name, from ``overlays``.
        runtime: what was measured, if it was.
        run: id of the MLflow run; None where there is none.
    """
    setting, provenance, annotations = results.setting, results.setting.provenance, results.annotations
    keys, chosen = annotations.keys, _chosen(results, pictures)
    places = sorted({*chosen.values()})
    page = EvaluationPage(
        title=f"{annotations.name}: {name}",
        subtitle=f"{model}, {setting.images} images, {results.strict.people} people",
        mark=TRAIN_FIT if provenance.train_fit else "",
        protocol=(
            f"Strict protocol: people above score {setting.threshold:.3g} are paired one-to-one with the truth by the "
            "distance of their roots in the image. Read error, recall and precision together: a model that finds "
            "fewer people can have a smaller error on those that it finds. F1 is the harmonic mean of the two."
        ),
        numbers=_headline(results),
        comparisons=comparisons(annotations, _unmarked(results)),
        charts=[
            _pck_chart(results.strict),
            _joint_chart(results),
            *_threshold_chart(results),
            *_doubt_chart(results.strict),
        ],
        tables=[
            Breakdown(
                title=t.title,
                note=meaning_of_intervals(t),
                grid=grid_of(t),
                optimistic=_optimistic(t.name),
                long=len(t.rows) > _LONG,
            )
            for t in results.tables
        ],
        scene=scene_of({file: places.index(at) for file, at in chosen.items()}, results.scored(places)),
        pictures=[
            Picture(_label(file), keys[at], float(results.errors[at]), data_uri(pictures[file]))
            for file, at in chosen.items()
        ],
        frames_note=_frames_note(len(chosen), len(pictures)),
        runtime=None if runtime is None else runtime_section(runtime),
        facts={
            "evaluation": name,
            "MLflow run": run or "none",
            "model": model,
            "model fingerprint": provenance.model_fingerprint,
            "data": ", ".join(annotations.folders),
            "data fingerprint": provenance.data_fingerprint,
            "joint set": provenance.skeleton.name,
            "never supervised": ", ".join(provenance.unsupervised_joints) or "none",
            "score threshold": (
                f"{setting.threshold:.4g} (strict), {provenance.release_threshold:.4g} (release protocols)"
            ),
            "code": provenance.code_version,
        },
    )
    return render_page("pipeline.evaluation.report", "evaluation.html", page)


# ---- numbers ----


def _headline(results: ProtocolResults) -> list[Number]:
    """The strict protocol's main numbers, with their intervals."""
    n, metrics = results.strict.numbers(), _unmarked(results)

    def number(label: str, name: str, form: str, unit: str, *notes: str) -> Number:
        low, high = (metrics.get(f"strict/{name}_{end}", UNKNOWN) for end in ("low", "high"))
        found = "" if np.isnan(low) else f"95 %: {low:{form}} to {high:{form}}"
        return Number(label, shown(n[name], form), unit, "; ".join(note for note in (found, *notes) if note))

    pose = f"mean pose of the training data: {shown(n['baseline_mpjpe'], '.1f')} mm"
    return [
        number("MPJPE, root-aligned", "mpjpe", ".1f", "mm", pose),
        number("recall", "recall", ".3f", "", f"{n['matched']:.0f} of {n['people']:.0f} people found"),
        number("precision", "precision", ".3f", "", f"{n['predictions']:.0f} predictions"),
        number("F1", "f1", ".3f", "", f"people above score {results.setting.threshold:.3g}"),
        number("root position error", "root_error", ".0f", "mm", f"depth: {shown(n['root_depth_error'], '.0f')} mm"),
        number("PCK at 150 mm", "pck_150mm", ".3f", "", "of matched people's joints"),
        number("PA-MPJPE", "pa_mpjpe", ".1f", "mm", "after similarity alignment"),
    ]


def _unmarked(results: ProtocolResults) -> dict[str, float]:
    """The metrics by their names without the train-fit mark."""
    return {name.removeprefix(f"{TRAIN_FIT}/"): value for name, value in results.metrics.items()}


def _optimistic(table: str) -> bool:
    """Whether a table, by its name, is of a protocol that makes errors look smaller than they are."""
    names = tuple(protocol.name for protocol in PROTOCOLS if protocol.optimistic)
    return table.removeprefix(f"{TRAIN_FIT}_").startswith(names)


# ---- charts ----


def pck_lines(sums: StrictSums) -> list[Line]:
    """Percent of joints closer to their ground truth than each threshold of ``CURVE``, measured in four ways."""
    near, of = sums.near.sum(axis=0), sums.of.sum(axis=0)
    curves = np.where(of[:, None] > 0, 100 * near / np.maximum(of, 1)[:, None], UNKNOWN).tolist()
    lines = [
        Line("root-aligned", "c1", curves[0]),
        Line("misses are wrong", "c2", curves[1]),
        Line("in camera space", "c3", curves[2]),
    ]
    # Predictions of other groups come without a mean pose of their training data.
    return [*lines, Line("mean pose", "c4", curves[3])] if of[3] else lines


def _pck_chart(sums: StrictSums) -> Chart:
    """Those lines over 0 to 300 mm."""
    title = "PCK over threshold"
    svg = line_chart(title, CURVE.tolist(), pck_lines(sums), "threshold, mm", "correct joints, %", 100.0)
    caption = (
        "Share of joints closer than the threshold, over matched people. With misses, joints of people who were not "
        "found are wrong at every threshold. In camera space nothing is aligned: the root's error counts too."
    )
    return Chart("pck", title, svg, caption)


def threshold_lines(sums: StrictSums) -> tuple[list[float], list[Line]]:
    """Scores, rising, and the percentages that the candidates of at least this score give; empty without any."""
    points = sums.candidates.operating_points(sums.people)
    points = points[:: -max(1, len(points) // _MOST_POINTS)]  # the lowest first
    lines = [
        Line("recall", "c1", [100 * point.recall for point in points]),
        Line("precision", "c2", [100 * point.precision for point in points]),
        Line("F1", "c3", [100 * point.f1 for point in points]),
    ]
    return [point.score for point in points], lines


def _threshold_chart(results: ProtocolResults) -> list[Chart]:
    """Recall, precision and F1 over the score threshold; none without candidates."""
    x, lines = threshold_lines(results.strict)
    if not x:
        return []
    title = "Recall and precision over score threshold"
    least, chosen = results.setting.provenance.least_score, results.setting.threshold
    caption = (
        f"What the people above each threshold would give on these images; candidates above {least:.3g} are kept. The "
        f"numbers of this page are at {chosen:.3g}, which was chosen on val by the best F1 unless another was asked "
        "for. The best threshold here is no better choice: it would be chosen by the images that it is judged on."
    )
    return [Chart("thresholds", title, line_chart(title, x, lines, "score threshold", "%", 100.0), caption)]


def _doubt_chart(sums: StrictSums) -> list[Chart]:
    """Share of joints within their radius over the probability that the radius promises; none without doubt."""
    if sums.doubt is None or not sums.scores["recall"].numerator.any():
        return []
    title, x = "Coverage of the model's doubt", [100 * level for level in LEVELS]
    lines = [
        Line("calibrated", "c1", [100 * share for share in sums.doubt.curve(sums.doubt.inside)]),
        Line("raw sigma", "c2", [100 * share for share in sums.doubt.curve(sums.doubt.raw)]),
        Line("promised", "c3", x),
    ]
    caption = (
        "Share of joints, over matched people, that lie within the radius of each probability about their predicted "
        "place, relative to the root. Radii are calibrated on val; raw are those of the likelihood's own scale."
    )
    svg = line_chart(title, x, lines, "promised, %", "within, %", 100.0)
    return [Chart("doubt", title, svg, caption)]


def _joint_chart(results: ProtocolResults) -> Chart:
    """Error of each joint, and that of the mean pose."""
    errors, pose = (results.strict.joints[name].columns() for name in ("mpjpe", "baseline_mpjpe"))
    rows = {}
    for joint, error, posed in zip(results.setting.provenance.skeleton.joints, errors, pose, strict=True):
        dots = (Dot("mean pose", "c4", posed.value), Dot("this model", "c1", error.value))
        if error.denominator.any():
            rows[joint] = tuple(dot for dot in dots if np.isfinite(dot.value))
    title = "Error by joint"
    caption = "Mean root-aligned error over matched people; the root joint itself has none."
    return Chart("joints", title, dot_chart(title, rows, "mm"), caption)


# ---- frames ----


def _chosen(results: ProtocolResults, pictures: Mapping[str, bytes]) -> dict[str, int]:
    """Picture's file name -> index of the frame, for the pictures on the page, the worst first."""
    spread = sum(not _is_worst(file) for file in pictures)
    frames = chosen_frames(results.errors, results.annotations.keys, spread, len(pictures) - spread)
    assert set(frames) == set(pictures), "the pictures were chosen from the same results"
    order = sorted(frames, key=lambda file: (not _is_worst(file), file))
    return {file: frames[file] for file in order[:MOST_PICTURES]}


def _is_worst(file: str) -> bool:
    return file.startswith("worst_")


def _label(file: str) -> str:
    kind, number = file.split("_")[:2]
    return f"{'worst' if kind == 'worst' else 'sample'} {int(number) + 1}"


def _frames_note(shown_: int, all_: int) -> str:
    """How the frames were chosen, and what their number means."""
    left_out = f" {all_ - shown_} more are in the evaluation's folder." if all_ > shown_ else ""
    return (
        "The frames with the largest mean error, and samples spread evenly over the data; the number is the frame's "
        "mean joint error, in which a missed person has the error of the mean pose, or of a point in the person's "
        f"middle where no mean pose is known.{left_out}"
    )

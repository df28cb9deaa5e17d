"""The published protocols of MuPoTS-3D: the DAS release's, the toolbox's, and one for predictions already paired.

    mupots_release, mupots_release_mended           the DAS release, and the same with every bone's own parent
    mupots_matlab                                   Moon et al.: univ_annot3, bones rescaled; most published numbers
    mupots_matlab_unscaled                          the same without rescaling
    mupots_matlab_annot3, ..._annot3_unscaled       the same in millimetres
    mupots_paired, mupots_paired_univ               no pairing and no rescaling; annot3 and univ_annot3

Numbers are percent. ``all`` counts missed people as wrong in every joint, ``matched`` leaves them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from das.metrics.bootstrap import Clusters, Interval, Ratio, interval
from das.metrics.mupots import (
    COLUMNS,
    MATLAB_THRESHOLDS,
    RELEASE_THRESHOLDS,
    Mupots,
    mupots_matlab,
    mupots_paired,
    mupots_release,
    occlusion_tables,
)
from das.metrics.tables import Predictions, Truth, root_aligned, root_of
from das.skeleton import MUPOTS17, conversion
from pipeline.data.record import Record
from pipeline.evaluation.ground_truth import GroundTruth, mupots_truth
from pipeline.evaluation.protocols.strict import natural_order
from pipeline.evaluation.scored import Scored
from pipeline.infra.text_tables import Numbers, Table, ends_as_metrics

_ROOT = MUPOTS17.root_indices
# Longer sides of the original images, px: the toolbox pairs people by their pixels, and stored images may be smaller.
_WIDE, _SQUARE = 1920, 2048
_SQUARE_SEQUENCES = tuple(f"TS{i}" for i in range(1, 6))
_PARTS = ("pck_rel", "pck_abs", "auc_rel", "auc_abs")


def mupots_release_numbers(scored: Scored) -> list[Numbers]:
    """The evaluator released with DAS, with its bone parents and with correct ones; empty for other data or joints."""
    if not _fits(scored):
        return []
    truth, _ = mupots_truth(scored.records)
    return [_release(scored, truth, bug) for bug in (True, False)] if len(truth) else []


def mupots_matlab_numbers(scored: Scored) -> list[Numbers]:
    """The toolbox's protocol on every ground truth that the rows have, with bones rescaled and as predicted.

    Empty for other data or joints, as ``mupots_release_numbers``.
    """
    if not _fits(scored):
        return []
    numbers = []
    kinds: list[GroundTruth] = ["annot3"]
    if all(record.joints_cam_univ is not None for record in scored.records):
        kinds = ["univ_annot3", "annot3"]
    for ground_truth in kinds:
        truth, occluded = mupots_truth(scored.records, ground_truth)
        if len(truth):
            numbers += [_matlab(scored, truth, occluded, ground_truth, bones) for bones in (True, False)]
    return numbers


def paired_numbers(
    truth: Mapping[str, Truth], predicted: np.ndarray, found: np.ndarray, sequence: np.ndarray, clusters: Clusters
) -> list[Numbers]:
    """Predictions that come paired with people: no pairing step, no rescaling, 14 joints.

    Args:
        truth: by the name of the ground truth (``annot3``, ``univ_annot3``), the same T people.
        predicted: (T, 17, 3) mm, camera frame; ignored where ``found`` is False.
        found: (T,) bool.
        sequence: (F,) name of every frame's sequence.
        clusters: of the frames.
    """
    numbers = []
    for kind, name in (("annot3", "mupots_paired"), ("univ_annot3", "mupots_paired_univ")):
        if kind in truth:
            true = truth[kind]
            modes = {
                mode: mupots_paired(true.joints_cam, predicted, found, sequence[true.frame], everyone=mode == "all")
                for mode in ("all", "matched")
            }
            title = f"predictions already paired with people, ground truth {kind}, no rescaling, 14 joints"
            numbers.append(_numbers(name, title, modes, true, sequence, MATLAB_THRESHOLDS, clusters))
    return numbers


def _fits(scored: Scored) -> bool:
    """Whether the rows are MuPoTS' and the predictions have all of its 17 joints."""
    lacking = any(at < 0 for at in conversion(scored.skeleton, MUPOTS17).index)
    return not lacking and all(record.skeleton == MUPOTS17.name for record in scored.records)


def _found(scored: Scored) -> Predictions:
    """The candidates in the 17 joints of MuPoTS."""
    return scored.release_candidates.with_joints(list(conversion(scored.skeleton, MUPOTS17).index))


def _sequences(scored: Scored) -> np.ndarray:
    return np.array([record.sequence for record in scored.records])


def _original_scale(records: Sequence[Record]) -> np.ndarray:
    """Pixels of the original image per pixel of the stored one, (F,)."""
    sides = [_SQUARE if record.sequence in _SQUARE_SEQUENCES else _WIDE for record in records]
    return np.array([side / max(record.height, record.width) for side, record in zip(sides, records, strict=True)])


def _release(scored: Scored, truth: Truth, bug: bool) -> Numbers:
    found, sequence, provenance = _found(scored), _sequences(scored), scored.provenance
    name = "mupots_release" if bug else "mupots_release_mended"
    modes = {
        mode: mupots_release(truth, found, sequence, everyone=mode == "all", parent_bug=bug)
        for mode in ("all", "matched")
    }
    baseline = None
    if provenance.mean_pose is not None:
        # Every person gets the mean pose at the true root: the baseline measures poses, not positions.
        index = list(conversion(provenance.skeleton, MUPOTS17).index)
        mean = root_aligned(np.array(provenance.mean_pose)[None, index], _ROOT)
        posed = Predictions(truth.frame, mean + root_of(truth.joints_cam, _ROOT)[:, None], np.ones(len(truth)))
        baseline = mupots_release(truth, posed, sequence, everyone=True, parent_bug=bug)
    parents = "with its bone parents" if bug else "with every bone's own parent"
    title = f"mupots-release {parents}, ground truth annot3"
    return _numbers(name, title, modes, truth, sequence, RELEASE_THRESHOLDS, scored.clusters, baseline)


def _matlab(scored: Scored, truth: Truth, occluded: np.ndarray, ground_truth: GroundTruth, bones: bool) -> Numbers:
    found, sequence, scale = _found(scored), _sequences(scored), _original_scale(scored.records)
    assert found.joints_uv is not None and truth.joints_uv is not None
    found = replace(found, joints_uv=found.joints_uv * scale[found.frame, None, None])
    truth = replace(truth, joints_uv=truth.joints_uv * scale[truth.frame, None, None])
    name = "mupots_matlab" + ("" if ground_truth == "univ_annot3" else "_annot3") + ("" if bones else "_unscaled")
    modes = {
        mode: mupots_matlab(truth, found, sequence, everyone=mode == "all", bones=bones) for mode in ("all", "matched")
    }
    title = f"mupots-matlab, ground truth {ground_truth}, bones {'rescaled' if bones else 'as predicted'}"
    numbers = _numbers(name, title, modes, truth, sequence, MATLAB_THRESHOLDS, scored.clusters)
    if not bones or not occluded.any():
        return numbers
    result = modes["matched"]
    cells = {}
    for row, errors in (("rel", result.relative_errors), ("abs", result.absolute_errors)):
        parts = occlusion_tables(errors, result.counted, occluded)
        cells[row] = [x for part in parts for x in (100 * part.pck, part.mpjpe, float(part.joints))]
    columns = [(f"{c} {kind}", form) for kind in ("visible", "occluded")
               for c, form in (("PCK", ".1f"), ("MPJPE mm", ".1f"), ("joints", ".0f"))]  # fmt: skip
    table = Table.of(
        f"{name}_occlusion", f"{title}: visible and occluded joints of matched people", columns, cells, True
    )
    return replace(numbers, tables=(*numbers.tables, table))


def _numbers(
    name: str,
    title: str,
    modes: Mapping[str, Mupots],
    truth: Truth,
    sequence: np.ndarray,
    thresholds: np.ndarray,
    clusters: Clusters,
    baseline: Mupots | None = None,
) -> Numbers:
    """Metrics and tables of one protocol in its two modes, percent."""
    parts = {
        f"{part}_{mode}": _percent(score)
        for mode, result in modes.items()
        for part, score in result.scores(truth, sequence, thresholds).items()
    }
    names = np.unique(sequence)
    order = sorted(range(len(names)), key=lambda i: natural_order(str(names[i])))
    shown = [f"{part}_{mode}" for mode in ("all", "matched") for part in ("pck_rel", "pck_abs")]
    metrics: dict[str, float] = {}
    for part, score in parts.items():
        metrics |= ends_as_metrics(f"{name}/{part}", _interval(score, clusters))
    for part in shown:
        metrics |= {f"{name}/{part}/{names[i]}": parts[part].columns()[i].value for i in order}

    def counts(i: int | None) -> list[float]:
        columns = (parts[f"pck_rel_{mode}"].denominator for mode in ("all", "matched"))
        return [float((c if i is None else c[:, i]).sum()) for c in columns]

    columns = [(c, ".2f") for c in ("rel all", "abs all", "rel matched", "abs matched")]
    rows: dict[str, list[float | Interval]] = {
        str(names[i]): [*(_interval(parts[part].columns()[i], clusters) for part in shown), *counts(i)] for i in order
    }
    rows["mean"] = [*(_interval(parts[part], clusters) for part in shown), *counts(None)]
    if baseline is not None:
        metrics[f"baseline/{name}_pck_rel_all"] = baseline.relative.mean_pck
        columns.append(("mean pose rel all", ".2f"))
        of = dict(zip(map(str, baseline.relative.sequences), baseline.relative.pck[:, -1].tolist(), strict=True))
        for row in rows:
            rows[row].insert(4, baseline.relative.mean_pck if row == "mean" else of.get(row, np.nan))
    columns += [("people", ".0f"), ("matched", ".0f")]
    sentence = f"{title}: PCK at 150 mm in percent, by sequence"
    by_sequence = Table.of(name, sentence, columns, rows, detail=name.endswith("_unscaled"))
    return Numbers(
        metrics,
        (by_sequence, _by_joint(name, title, modes, parts, clusters)),
        {f"{name}/{p}": s for p, s in parts.items()},
    )


def _by_joint(
    name: str, title: str, modes: Mapping[str, Mupots], parts: Mapping[str, Ratio], clusters: Clusters
) -> Table:
    """PCK and AUC by joint group, mean of sequences; intervals of the total."""
    columns, cells = [], []
    for mode, result in modes.items():
        for kind, scores in (("rel", result.relative), ("abs", result.absolute)):
            for measure, table in (("pck", scores.pck), ("auc", scores.auc)):
                columns.append((f"{measure.upper()} {kind} {mode}", ".2f"))
                measured = table[scores.people > 0]
                means = measured.mean(axis=0).tolist() if len(measured) else [np.nan] * len(COLUMNS)
                total = _interval(parts[f"{measure}_{kind}_{mode}"], clusters)
                cells.append([*means[:-1], total])
    rows = {column: [cell[i] for cell in cells] for i, column in enumerate(COLUMNS)}
    return Table.of(f"{name}_joints", f"{title}: percent by joint, mean of sequences", columns, rows, detail=True)


def _percent(score: Ratio) -> Ratio:
    return Ratio(100 * score.numerator, score.denominator)


def _interval(score: Ratio, clusters: Clusters) -> Interval:
    return interval(score, clusters, (0.0, 100.0))

"""The published protocols of MuPoTS-3D: the DAS release's, the toolbox's, and one for predictions already paired.

    mupots_release, mupots_release_mended           the DAS release, and the same with every bone's own parent
    mupots_matlab                                   Moon et al.: univ_annot3, bones rescaled; most published numbers
    mupots_matlab_unscaled                          the same without rescaling
    mupots_matlab_annot3, ..._annot3_unscaled       the same in millimetres
    mupots_paired, mupots_paired_univ               no pairing and no rescaling; annot3 and univ_annot3

Numbers are percent. ``all`` counts missed people as wrong in every joint, ``matched`` leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from das.metrics.bootstrap import Clusters, Interval, Ratio, interval
from das.metrics.mupots import (
    COLUMNS,
    MATLAB_THRESHOLDS,
    RELEASE_THRESHOLDS,
    Mupots,
    SequenceCounts,
    mupots_matlab,
    mupots_paired,
    mupots_release,
)
from das.metrics.mupots_occlusion import occlusion_sums
from das.metrics.tables import Predictions, Truth, ratio, root_aligned, root_of
from das.skeleton import MUPOTS17, conversion
from pipeline.data.record import Record
from pipeline.evaluation.ground_truth import GroundTruth, mupots_truth
from pipeline.evaluation.protocols.strict import natural_order
from pipeline.evaluation.protocols.sums import Cells
from pipeline.evaluation.scored import Scored, Setting
from pipeline.infra.text_tables import Numbers, Table, ends_as_metrics

_ROOT = MUPOTS17.root_indices
# Longer sides of the original images, px: the toolbox pairs people by their pixels, and stored images may be smaller.
_WIDE, _SQUARE = 1920, 2048
_SQUARE_SEQUENCES = tuple(f"TS{i}" for i in range(1, 6))
_PARTS = ("pck_rel", "pck_abs", "auc_rel", "auc_abs")


@dataclass(frozen=True)
class Mode:
    """What is kept of one mode of a protocol: ``Mupots.shares`` by cell, and ``Mupots.counts``."""

    shares: dict[str, Ratio]
    counts: dict[str, SequenceCounts]


@dataclass(frozen=True)
class MupotsSums:
    """What one variant of a protocol keeps of some images.

    Attributes:
        modes: all people, and matched ones.
        baseline: counts of root-aligned joints of the mean pose; empty where there is none.
        occluded: (1,) how many joints are labelled as occluded.
        occlusion: (1, 2, 3) ``occlusion_sums`` over matched people, root-aligned as ``rel`` and not as ``abs``.
    """

    modes: dict[str, Mode]
    baseline: dict[str, SequenceCounts]
    occluded: np.ndarray
    occlusion: dict[str, np.ndarray]


def release_sums(scored: Scored) -> dict[str, MupotsSums] | None:
    """What the evaluator released with DAS keeps, with its bone parents and with correct ones; None for other data."""
    if not _fits(scored):
        return None
    truth, occluded = mupots_truth(scored.records)
    found, sequence, provenance = _found(scored), _sequences(scored), scored.provenance
    kept = {}
    for name, bug in (("mupots_release", True), ("mupots_release_mended", False)):
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
        kept[name] = _sums(scored, truth, modes, RELEASE_THRESHOLDS, occluded, baseline)
    return kept


def release_numbers(sums: Mapping[str, MupotsSums], setting: Setting) -> list[Numbers]:
    """The evaluator released with DAS; empty without valid people."""
    titles = {"mupots_release": "with its bone parents", "mupots_release_mended": "with every bone's own parent"}
    return [
        _numbers(name, f"mupots-release {titles[name]}, ground truth annot3", kept, setting.cells)
        for name, kept in sums.items()
        if _people(kept)
    ]


def matlab_sums(scored: Scored) -> dict[str, MupotsSums] | None:
    """What the toolbox keeps on every ground truth that all rows have, bones rescaled and as predicted; or None."""
    if not _fits(scored):
        return None
    found, sequence, scale = _found(scored), _sequences(scored), _original_scale(scored.records)
    assert found.joints_uv is not None
    found = replace(found, joints_uv=found.joints_uv * scale[found.frame, None, None])
    kinds: list[GroundTruth] = ["annot3"]
    if all(record.joints_cam_univ is not None for record in scored.records):
        kinds = ["univ_annot3", "annot3"]
    kept = {}
    for kind in kinds:
        truth, occluded = mupots_truth(scored.records, kind)
        assert truth.joints_uv is not None
        truth = replace(truth, joints_uv=truth.joints_uv * scale[truth.frame, None, None])
        for bones in (True, False):
            modes = {
                mode: mupots_matlab(truth, found, sequence, everyone=mode == "all", bones=bones)
                for mode in ("all", "matched")
            }
            kept[_matlab_name(kind, bones)] = _sums(scored, truth, modes, MATLAB_THRESHOLDS, occluded)
    return kept


def matlab_numbers(sums: Mapping[str, MupotsSums], setting: Setting) -> list[Numbers]:
    """The toolbox's protocol; empty without valid people."""
    numbers = []
    kinds: tuple[GroundTruth, ...] = ("univ_annot3", "annot3")
    for kind, bones in product(kinds, (True, False)):
        name = _matlab_name(kind, bones)
        if name not in sums or not _people(sums[name]):
            continue
        title = f"mupots-matlab, ground truth {kind}, bones {'rescaled' if bones else 'as predicted'}"
        found = _numbers(name, title, sums[name], setting.cells)
        if bones and sums[name].occluded.any():
            found = replace(found, tables=(*found.tables, _occlusion(name, title, sums[name])))
        numbers.append(found)
    return numbers


def _matlab_name(kind: GroundTruth, bones: bool) -> str:
    return "mupots_matlab" + ("" if kind == "univ_annot3" else "_annot3") + ("" if bones else "_unscaled")


def _occlusion(name: str, title: str, sums: MupotsSums) -> Table:
    cells = {}
    for row, kept in sums.occlusion.items():
        parts = kept.sum(axis=0)  # visible and occluded joints
        cells[row] = [
            x for near, error, joints in parts for x in (100 * ratio(near, joints), ratio(error, joints), joints)
        ]
    columns = [(f"{c} {kind}", form) for kind in ("visible", "occluded")
               for c, form in (("PCK", ".1f"), ("MPJPE mm", ".1f"), ("joints", ".0f"))]  # fmt: skip
    return Table.of(
        f"{name}_occlusion", f"{title}: visible and occluded joints of matched people", columns, cells, True
    )


def paired_numbers(
    truth: Mapping[str, Truth], predicted: np.ndarray, found: np.ndarray, sequence: np.ndarray, cells: Cells
) -> list[Numbers]:
    """Predictions that come paired with people: no pairing step, no rescaling, 14 joints.

    Args:
        truth: by the name of the ground truth (``annot3``, ``univ_annot3``), the same T people.
        predicted: (T, 17, 3) mm, camera frame; ignored where ``found`` is False.
        found: (T,) bool.
        sequence: (F,) name of every frame's sequence.
        cells: of the frames.
    """
    numbers = []
    for kind, name in (("annot3", "mupots_paired"), ("univ_annot3", "mupots_paired_univ")):
        if kind in truth:
            true = truth[kind]
            modes = {
                mode: mupots_paired(true.joints_cam, predicted, found, sequence[true.frame], everyone=mode == "all")
                for mode in ("all", "matched")
            }
            kept = {
                mode: _kept(result, true, len(sequence), MATLAB_THRESHOLDS, lambda s: s.summed(cells.of, len(cells)))
                for mode, result in modes.items()
            }
            title = f"predictions already paired with people, ground truth {kind}, no rescaling, 14 joints"
            numbers.append(_numbers(name, title, MupotsSums(kept, {}, np.zeros(1), {}), cells))
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


def _sums(
    scored: Scored,
    truth: Truth,
    modes: Mapping[str, Mupots],
    thresholds: np.ndarray,
    occluded: np.ndarray,
    baseline: Mupots | None = None,
) -> MupotsSums:
    matched, images = modes["matched"], len(scored.records)
    errors = {"rel": matched.relative_errors, "abs": matched.absolute_errors}
    return MupotsSums(
        modes={mode: _kept(result, truth, images, thresholds, scored.by_cell) for mode, result in modes.items()},
        baseline={} if baseline is None else {"rel": baseline.counts["rel"]},
        occluded=np.array([occluded.sum()]),
        occlusion={row: occlusion_sums(e, matched.counted, occluded)[None] for row, e in errors.items()},
    )


def _kept(result: Mupots, truth: Truth, images: int, thresholds: np.ndarray, by_cell: Callable[[Ratio], Ratio]) -> Mode:
    shares = result.shares(truth, images, thresholds)
    return Mode({name: by_cell(share) for name, share in shares.items()}, dict(result.counts))


def _people(sums: MupotsSums) -> int:
    """How many people are valid."""
    return int(sums.modes["all"].counts["rel"].people.sum())


def _numbers(name: str, title: str, sums: MupotsSums, cells: Cells) -> Numbers:
    """Metrics and tables of one protocol in its two modes, percent."""
    clusters, sequence = cells.clusters, cells.sequence
    parts = {
        f"{part}_{mode}": _percent(share.mean_over(sequence))
        for mode, kept in sums.modes.items()
        for part, share in kept.shares.items()
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
    if sums.baseline:
        baseline = sums.baseline["rel"].scores()
        metrics[f"baseline/{name}_pck_rel_all"] = baseline.mean_pck
        columns.append(("mean pose rel all", ".2f"))
        of = dict(zip(map(str, baseline.sequences), baseline.pck[:, -1].tolist(), strict=True))
        for row in rows:
            rows[row].insert(4, baseline.mean_pck if row == "mean" else of.get(row, np.nan))
    columns += [("people", ".0f"), ("matched", ".0f")]
    sentence = f"{title}: PCK at 150 mm in percent, by sequence"
    by_sequence = Table.of(name, sentence, columns, rows, detail=name.endswith("_unscaled"))
    return Numbers(
        metrics,
        (by_sequence, _by_joint(name, title, sums.modes, parts, clusters)),
        {f"{name}/{p}": s for p, s in parts.items()},
    )


def _by_joint(
    name: str, title: str, modes: Mapping[str, Mode], parts: Mapping[str, Ratio], clusters: Clusters
) -> Table:
    """PCK and AUC by joint group, mean of sequences; intervals of the total."""
    columns, cells = [], []
    for mode, kept in modes.items():
        for kind, counts in kept.counts.items():
            scores = counts.scores()
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

"""Scores from predictions alone, no model and no cluster: an earlier evaluation's file, or another group's predictions.

    das evaluate --predictions FILE --data PREPARED [--compare OTHER] [--out FOLDER]

With ``out``, tables and numbers are written there; for people in space a page to look at with its pictures, and for
this project's own predictions what promotion reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pipeline.evaluation.annotations import Annotations, read_annotations
from pipeline.evaluation.comparison import compare_models, verdict
from pipeline.evaluation.evaluate import (
    PAGE_FILE,
    PREDICTIONS_FILE,
    REPORT_FILE,
    EvaluateConfig,
    EvaluationResult,
    FlatResult,
    evaluate,
    evaluate_flat,
    images_of,
    is_flat,
    read_predictions,
)
from pipeline.evaluation.external_predictions import is_foreign, read_foreign
from pipeline.evaluation.mupots_paired import score_paired
from pipeline.evaluation.overlays import overlays
from pipeline.evaluation.predictions_file import Origin
from pipeline.evaluation.protocols.coco import score_flat
from pipeline.evaluation.report.evaluation import evaluation_page
from pipeline.evaluation.score import Sheet, score
from pipeline.evaluation.scores import SCORES_FILE, gate_scores
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.files import exists, join, write_bytes, write_json
from pipeline.infra.text_tables import Numbers


@dataclass(frozen=True)
class Rescored:
    """What a predictions file is worth.

    Attributes:
        predictions: the file.
        data: the images, as ``images_of`` tells them.
        numbers: of every protocol that fits; with a comparison, if asked for.
        out: folder or URI of the files; None where nothing was written.
        remarks: sentences for the terminal.
    """

    predictions: str
    data: Mapping[str, Any]
    numbers: Numbers
    out: str | None
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for the report; null where nothing was there to measure."""
        return {
            "predictions": self.predictions,
            "data": self.data,
            "metrics": {name: None if math.isnan(x) else x for name, x in self.numbers.metrics.items()},
            "tables": [table.to_json() for table in self.numbers.tables],
        }

    def summary(self) -> str:
        """Tables and remarks for the terminal."""
        lines = [f"{self.predictions} on {self.data['name']}"]
        lines += [table.text() for table in self.numbers.tables if not table.detail]
        return "\n".join((*lines, *self.remarks, *([self.out] if self.out else [])))


def judge(config: EvaluateConfig) -> EvaluationResult | FlatResult | Rescored:
    """What `das evaluate` does: a model or predictions, on images with depth or without.

    Raises:
        ValueError: from ``evaluate``, ``evaluate_flat`` or ``rescore``.
    """
    if config.predictions is not None:
        return rescore(config)
    if config.data and is_flat([absolute_storage(folder) for folder in config.data]):
        return evaluate_flat(config)
    return evaluate(config)


def rescore(config: EvaluateConfig) -> Rescored:
    """Scores ``config.predictions``, against ``config.compare_models`` too if that is given.

    Raises:
        ValueError: predictions or data that do not exist, are mutilated or do not belong together, or an ``out`` that
            holds an evaluation already; nothing is written.
    """
    assert config.predictions is not None
    out = None if config.out is None else absolute_storage(config.out)
    if out is not None and exists(join(out, REPORT_FILE)):
        raise ValueError(f"{out} holds an evaluation already: choose another --out")
    if is_foreign(config.predictions):
        foreign = read_foreign(config.predictions)
        if foreign.person is not None:
            if config.compare is not None:
                raise ValueError(f"{config.predictions}: predictions that are paired with people cannot be compared")
            numbers = score_paired(foreign, config.data, config.split)
            found = Rescored(config.predictions, {"name": " ".join(config.data)}, numbers, out, ())
            _write(found)
            return found
    folders = [absolute_storage(folder) for folder in config.data]
    annotations = read_annotations(folders, config.split)
    predictions = read_predictions(config.predictions, annotations)
    if is_flat(folders):
        if config.compare is not None:
            raise ValueError("compare: these images are annotated in 2D only, poses in space are compared")
        found = Rescored(config.predictions, images_of(annotations), score_flat(annotations, predictions), out, ())
        _write(found)
        return found
    sheet = score(annotations, predictions, config.threshold)
    remarks = _headline(sheet)
    if config.compare is not None:
        other = read_predictions(config.compare, annotations)
        difference = compare_models(annotations, predictions, other, config.threshold)
        sheet, remarks = sheet.beside(difference), (*remarks, verdict(difference))
    found = Rescored(config.predictions, images_of(annotations), sheet, out, remarks)
    if out is not None:
        _draw(config, out, annotations, sheet, predictions.origin)
        if not is_foreign(config.predictions):  # then the folder holds all that promotion asks for
            predictions.save(join(out, PREDICTIONS_FILE))
            write_json(join(out, SCORES_FILE), gate_scores(sheet, predictions.origin, annotations).to_json())
    _write(found)
    return found


def _headline(sheet: Sheet) -> tuple[str, ...]:
    strict = sheet.strict
    baseline = "" if math.isnan(strict.baseline_mpjpe) else f" (mean pose {strict.baseline_mpjpe:.1f} mm)"
    return (
        f"strict MPJPE {strict.mpjpe:.1f} mm{baseline}, recall {strict.recall:.3f}, "
        f"precision {strict.precision:.3f}, people above score {sheet.threshold:.3g}",
    )


def _draw(config: EvaluateConfig, out: str, annotations: Annotations, sheet: Sheet, origin: Origin) -> None:
    """The page and its pictures, as an evaluation of a model has them; nothing was timed."""
    assert config.predictions is not None
    pictures = overlays(annotations, sheet, origin, config.overlays, config.worst)
    for name, picture in pictures.items():
        write_bytes(join(out, "overlays", name), picture)
    name = config.name or PurePath(config.predictions).stem
    page = evaluation_page(name, config.predictions, annotations, sheet, origin, pictures, None, None)
    write_bytes(join(out, PAGE_FILE), page.encode())


def _write(found: Rescored) -> None:
    """All tables; the report, which says that there is an evaluation, last."""
    if found.out is None:
        return
    for table in found.numbers.tables:
        write_bytes(join(found.out, "tables", f"{table.name}.csv"), table.csv().encode())
    write_json(join(found.out, REPORT_FILE), found.to_json())

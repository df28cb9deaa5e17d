"""Scores of a predictions file, without model and cluster: an earlier evaluation's, or another group's.

    das evaluate --predictions A.parquet --data prepared/panoptic --compare B.parquet --out rescored

With ``out`` the files of steps.py are written there. scores.json, which `das promote` reads, is written for this
project's own predictions only.
"""

from __future__ import annotations

from pathlib import PurePath

from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.comparison import verdict
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.external_predictions import ExternalPredictions, is_external
from pipeline.evaluation.mupots_paired import score_paired
from pipeline.evaluation.result import REPORT_FILE, EvaluationResult
from pipeline.evaluation.steps import (
    Job,
    images_of,
    on_images,
    read_compared,
    read_predictions,
    score_predictions,
    write_report,
)
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.files import exists, join


def rescore(config: EvaluateConfig) -> EvaluationResult:
    """Scores ``config.predictions``, and compares them with ``config.compare`` if that is given.

    Raises:
        ValueError: predictions or data that do not exist, are damaged or do not belong together, or an ``out`` that
            holds an evaluation already; nothing is written.
    """
    where = config.predictions
    assert where is not None
    out = "" if config.out is None else absolute_storage(config.out)
    if out and exists(join(out, REPORT_FILE)):
        raise ValueError(f"{out} holds an evaluation already: choose another --out")
    name, own = config.name or PurePath(where).stem, not is_external(where)
    found = read_predictions(where)  # before the images, which take longer to read
    if isinstance(found, ExternalPredictions) and found.person is not None:
        if config.compare is not None:
            raise ValueError(f"{where}: predictions that are paired with people cannot be compared")
        numbers = score_paired(found, config.data, config.split)
        data = " ".join(config.data)
        return write_report(config, Job(name, where, data, out, _about(where, {"name": data}), False), numbers)
    annotations = read_annotations([absolute_storage(folder) for folder in config.data], config.split)
    predictions = on_images(found, annotations)
    other = read_compared(config, annotations)
    numbers = score_predictions(annotations, predictions, config.threshold, other)
    job = Job(name, where, annotations.name, out, _about(where, images_of(annotations)), promotable=own)
    kept = predictions if own and not annotations.only_2d else None
    remarks = () if other is None else (verdict(numbers),)
    return write_report(config, job, numbers, kept, predictions.quarantine, remarks=remarks)


def _about(predictions: str, data: dict[str, object]) -> dict[str, object]:
    return {"predictions": predictions, "data": data}

"""The three steps of every evaluation: predictions from a file (a model's come from Ray), scores, and the report.

    OUT/predictions.parquet    every candidate of every image (predictions_file.py)
    OUT/scores.json            what promotion decides by (scores.py)
    OUT/report.json            everything in numbers
    OUT/report.html            the same as a page, one file (report/)
    OUT/tables/*.csv           by activity, sequence, joint and protocol
    OUT/overlays/*.jpg         evenly spread frames and those with the largest error

Images annotated in 2D only have COCO's numbers, and neither scores.json nor page and overlays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.benchmark.runtime import Runtime
from pipeline.evaluation.comparison import compare_models
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.external_predictions import ExternalPredictions, is_external, read_external
from pipeline.evaluation.overlays import overlays
from pipeline.evaluation.predictions_file import PREDICTIONS_FILE, Predicted, PredictionFile
from pipeline.evaluation.report.evaluation import evaluation_page
from pipeline.evaluation.result import (
    OVERLAYS_FOLDER,
    PAGE_FILE,
    REPORT_FILE,
    TABLES_FOLDER,
    EvaluationResult,
    strict_headline,
)
from pipeline.evaluation.score import ProtocolResults, score, score_2d
from pipeline.evaluation.scores import SCORES_FILE, gate_scores
from pipeline.evaluation.train_overlap import TRAIN_FIT
from pipeline.infra.files import join, write_bytes, write_json
from pipeline.infra.redaction import redacted_values
from pipeline.infra.text_tables import Numbers

FILES = (SCORES_FILE, REPORT_FILE, PAGE_FILE, PREDICTIONS_FILE, TABLES_FOLDER, OVERLAYS_FOLDER)
"""All that an evaluation writes."""


@dataclass(frozen=True)
class Job:
    """What is evaluated.

    Attributes:
        name: of the evaluation.
        subject: the model or the predictions file, as the user named it.
        data: name of the data, for example panoptic/test.
        out: folder or URI of the files; empty to write none.
        about: the fields of report.json that say what was evaluated.
        promotable: scores.json is written, since the predictions are of a model of this project.
    """

    name: str
    subject: str
    data: str
    out: str
    about: Mapping[str, Any]
    promotable: bool


# ---- read ----


def read_predictions(where: str) -> PredictionFile | ExternalPredictions:
    """A file of this project, or one of the forms that other groups use; ValueError as in the two readers."""
    return read_external(where) if is_external(where) else PredictionFile.open(where)


def on_images(found: PredictionFile | ExternalPredictions, annotations: Annotations) -> Predicted:
    """Predictions for these images.

    Raises:
        ValueError: from ``to_predictions``; predictions that are paired with people, which only a protocol of their own
            can score.
    """
    if isinstance(found, PredictionFile):
        return found
    if found.person is not None:
        raise ValueError(f"{found.where}: predictions that are paired with people (person), wanted unpaired ones")
    return found.to_predictions(annotations)


def read_compared(config: EvaluateConfig, annotations: Annotations) -> Predicted | None:
    """The predictions of ``config.compare``; None if that is not given.

    Raises:
        ValueError: from ``read_predictions`` and ``on_images``; images annotated in 2D only, since poses in 3D are
            compared.
    """
    if config.compare is None:
        return None
    if annotations.only_2d:
        raise ValueError("compare: these images are annotated in 2D only, wanted joints in 3D to compare poses")
    return on_images(read_predictions(config.compare), annotations)


# ---- score ----


def score_predictions(
    annotations: Annotations, predictions: Predicted, threshold: float | None, other: Predicted | None
) -> Numbers:
    """``ProtocolResults`` for images in 3D, with the comparison to ``other`` if given; COCO's numbers for 2D ones.

    Args:
        annotations: the images.
        predictions: for all of them but those in quarantine, which are left out.
        threshold: score threshold of the strict protocol; None takes the model's own.
        other: predictions of another model on the same images, from ``read_compared``.

    Raises:
        ValueError: from ``score``, ``score_2d`` or ``compare_models``.
    """
    scored = annotations.without(predictions.quarantine)
    if annotations.only_2d:
        return score_2d(scored, predictions)
    results = score(scored, predictions, threshold)
    if other is None:
        return results
    return results.with_more(compare_models(annotations, predictions, other, threshold))


# ---- report ----


def images_of(annotations: Annotations) -> dict[str, Any]:
    """The images, for the report; promotion finds the prepared folders by it, unless their addresses hold keys."""
    return {
        "name": annotations.name,
        "folders": annotations.folders,
        "images": len(annotations.index),
        "split_manifests": [manifest.split_manifest for manifest in annotations.manifests],
    }


def write_report(
    config: EvaluateConfig,
    job: Job,
    numbers: Numbers,
    predictions: Predicted | None = None,
    quarantine: Mapping[str, str] | None = None,
    runtime: Runtime | None = None,
    run_id: str = "",
    tracking_uri: str = "",
    remarks: tuple[str, ...] = (),
) -> EvaluationResult:
    """Writes the files to ``job.out`` and returns the result.

    Args:
        config: numbers of pictures.
        job: what was evaluated.
        numbers: from ``score_predictions`` or ``score_paired``; with ``ProtocolResults`` there are page and pictures.
        predictions: saved with the other files; None where they are saved already or are not of this project.
        quarantine: reason by key, of images that could not be predicted; with any, scores.json is not written, because
            a promotion compares models on the same images.
        runtime: what was measured, if it was.
        run_id: MLflow run of the evaluation, if there is one, and
        tracking_uri: its store.
        remarks: further sentences for the terminal.
    """
    metrics = dict(numbers.metrics)
    pictures: dict[str, bytes] = {}
    page, scores = "", None
    headline = _headline(job, metrics)
    if isinstance(numbers, ProtocolResults):
        provenance = numbers.setting.provenance
        scores = gate_scores(numbers.annotations.name, provenance, numbers.strict.numbers())
        headline = strict_headline(scores, numbers.setting.threshold)
        if runtime is not None:
            mark = f"{TRAIN_FIT}/" if provenance.train_fit else ""
            metrics |= {mark + name: value for name, value in runtime.metrics().items()}
        if job.out:
            pictures = overlays(numbers, config.overlays, config.worst)
            page = evaluation_page(job.name, job.subject, numbers, pictures, runtime, run_id or None)
    files: dict[str, bytes] = {f"{TABLES_FOLDER}/{table.name}.csv": table.csv().encode() for table in numbers.tables}
    files |= {f"{OVERLAYS_FOLDER}/{name}": data for name, data in pictures.items()}
    result = EvaluationResult(
        headline=headline,
        metrics=metrics,
        tables=numbers.tables,
        strict_scores=scores,
        out=job.out,
        run_id=run_id,
        tracking_uri=tracking_uri,
        runtime=runtime,
        overlays=tuple(f"{OVERLAYS_FOLDER}/{name}" for name in pictures),
        remarks=remarks,
        quarantine=quarantine or {},
    )
    if job.out:
        if page:
            files[PAGE_FILE] = page.encode()
        for name, data in files.items():
            write_bytes(join(job.out, name), data)
        if predictions is not None:
            predictions.save(join(job.out, PREDICTIONS_FILE))
        if scores is not None and job.promotable and not quarantine:
            write_json(join(job.out, SCORES_FILE), scores.to_json())
        write_json(join(job.out, REPORT_FILE), redacted_values(dict(job.about) | result.to_json()))
    return result


def _headline(job: Job, metrics: Mapping[str, float]) -> str:
    """What was scored on what, with COCO's average precision and recall where they are among the metrics."""
    found = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items() if name.endswith(("/ap", "/ar")))
    return f"{job.subject} on {job.data}" + (f": {found}" if found else "")

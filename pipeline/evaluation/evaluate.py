"""One evaluation on Ray: a checkpoint and a split give predictions, scores under every protocol, pictures, timings.

    OUT/predictions.parquet    every candidate of every image (pipeline/evaluation/predictions_file.py)
    OUT/scores.json            what promotion decides by (gate.Scores)
    OUT/report.json            everything in numbers
    OUT/report.html            the same to look at, in one file (pipeline/report/)
    OUT/tables/*.csv           by activity, sequence, joint and protocol
    OUT/overlays/*.jpg         evenly spread frames and the worst ones

and the same in one MLflow run. `rescore` computes all scores again from the predictions file, without the
model (`das evaluate --predictions`, rescore.py). Of images annotated in 2D alone there are only COCO's numbers, and no
scores.json (``evaluate_flat``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import ray

from das.checkpoint import ModelInfo, load_model
from das.fields import at_least, check_name, check_threshold
from das.model import DAS
from das.skeleton import COCO17
from pipeline.data.manifest import load_manifest
from pipeline.data.splits import Split
from pipeline.evaluation.annotations import Annotations, check_joints, read_annotations
from pipeline.evaluation.benchmark.latency import Runtime
from pipeline.evaluation.comparison import compare_models
from pipeline.evaluation.external_predictions import is_foreign, read_foreign
from pipeline.evaluation.ground_truth import flat_truth
from pipeline.evaluation.inference import predict_split, runtime_on, worker_count
from pipeline.evaluation.overlays import overlays
from pipeline.evaluation.predictions_file import Origin, PredictionSet
from pipeline.evaluation.protocols.coco import score_flat
from pipeline.evaluation.report.evaluation import evaluation_page
from pipeline.evaluation.score import TRAIN_FIT, score
from pipeline.evaluation.scores import SCORES_FILE, Scores, gate_scores
from pipeline.evaluation.train_overlap import is_train_fit
from pipeline.infra.cluster import ClusterConfig, absolute_storage, connect
from pipeline.infra.code_version import code_version
from pipeline.infra.configs import flat as flat_config
from pipeline.infra.files import delete, join, refuse_other, write_bytes, write_json
from pipeline.infra.text_tables import Numbers, Table
from pipeline.models import fingerprint, resolve_model
from pipeline.tracking.tracker import Tracker

PREDICTIONS_FILE, REPORT_FILE, PAGE_FILE = "predictions.parquet", "report.json", "report.html"
_FILES = (SCORES_FILE, REPORT_FILE, PAGE_FILE, PREDICTIONS_FILE, "tables", "overlays")


@dataclass(frozen=True)
class EvaluateConfig:
    """One model judged on one split of prepared data."""

    model: str = ""
    """Checkpoint folder, or a registered model such as models:/das-panoptic@champion."""
    data: tuple[str, ...] = ()
    """Prepared data folders (or URIs), scored together."""
    split: Split = "test"
    """Which of their splits."""
    predictions: str | None = None
    """Instead of a model: predictions of an earlier evaluation, or of another group (docs/evaluation.md)."""
    compare: str | None = None
    """Predictions of another model on the same images; the difference is told with its interval."""
    name: str | None = None
    """Identity of the evaluation: its folder and its MLflow run; by default data, split and the model's hash."""
    out: str | None = None
    """Folder or URI for the results; by default evaluations/NAME in the storage, and for --predictions nowhere."""
    experiment: str = "das"
    """MLflow experiment."""
    threshold: float | None = None
    """Score above which the strict protocol counts a person; by default the model's own, chosen on its val split."""
    allow_overlap: bool = False
    """Score also images that the model was trained on; every number is then marked train-fit and passes no gate."""
    workers: int = 0
    """Predicting processes; 0 takes what the cluster has, less one CPU for reading."""
    gpu: bool = False
    """One GPU for every worker; otherwise CPUs."""
    batch_size: int = 8
    """Images that a worker predicts at once."""
    overlays: int = 8
    """Pictures of evenly spread frames."""
    worst: int = 4
    """Pictures of the frames with the largest error."""
    runtime_images: int = 32
    """Images on which latency and throughput are measured; 0 leaves that out."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where it runs and where results go."""

    def __post_init__(self) -> None:
        if bool(self.model) == (self.predictions is not None):
            raise ValueError(f"model = {self.model!r} and predictions = {self.predictions!r}, wanted one of the two")
        at_least(self, workers=0, batch_size=1, overlays=0, worst=0, runtime_images=0)
        check_threshold(self)
        check_name(self)


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found, and where it lies.

    Attributes:
        out: folder or URI of the files. run_id, tracking_uri: the MLflow run.
        scores: what promotion decides by.
        metrics: every number by its name in MLflow.
        tables: the same, to read.
        runtime: None where it was not measured.
        overlays: pictures, relative to ``out``; the worst frames last.
    """

    out: str
    run_id: str
    tracking_uri: str
    scores: Scores
    metrics: dict[str, float]
    tables: tuple[Table, ...]
    runtime: Runtime | None
    overlays: tuple[str, ...]

    @property
    def scores_file(self) -> str:
        """What `das promote` reads."""
        return join(self.out, SCORES_FILE)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the report; null where nothing was there to measure."""
        return {
            "run_id": self.run_id,
            "tracking_uri": self.tracking_uri,
            "scores": self.scores.to_json(),
            "metrics": {name: None if math.isnan(x) else x for name, x in self.metrics.items()},
            "tables": [table.to_json() for table in self.tables],
            "runtime": None if self.runtime is None else asdict(self.runtime),
            "overlays": list(self.overlays),
        }

    def headline(self) -> str:
        """What counts, in a line or two."""
        scores = self.scores
        warning = f"{TRAIN_FIT}, some of these images may be training data: " if scores.train_fit else ""
        return (
            f"{warning}{scores.split}: strict MPJPE {scores.mpjpe_mm:.1f} mm (mean pose "
            f"{scores.baseline_mpjpe_mm:.1f} mm), recall {scores.recall:.3f}, precision {scores.precision:.3f}"
        )

    def summary(self) -> str:
        """Headline, tables and places for the terminal."""
        r, lines = self.runtime, [self.headline()]
        lines += [table.text() for table in self.tables if not table.detail]
        if r is not None:
            lines.append(
                f"runtime on {r.device} (CPU threads: {r.threads}, input {r.input_size[1]}x{r.input_size[0]}): "
                f"latency {r.latency_ms_median:.1f} ms median, {r.latency_ms_p90:.1f} ms p90 at batch 1; "
                f"{r.images_per_second:.1f} images/s at batch {r.batch_size}; peak memory {r.peak_memory_mb:.0f} MB"
            )
        files = f"{PAGE_FILE}, {SCORES_FILE}, {REPORT_FILE}, {len(self.overlays)} overlays"
        return "\n".join((*lines, f"{self.out} (MLflow run {self.run_id}): {files}"))


def evaluate(config: EvaluateConfig) -> EvaluationResult:
    """Runs one evaluation; the same name continues its MLflow run and replaces its files.

    Raises:
        ValueError: a model, data or resources that do not exist or do not fit together, images that the model was
            trained on, or a name that the evaluation of another model or other data has taken; nothing is written.
    """
    job = _check(config)
    other = None if config.compare is None else read_predictions(config.compare, job.annotations)
    cluster = connect(config.cluster)
    workers = worker_count(config.workers, config.gpu)
    with Tracker.open(cluster.tracking_uri, config.experiment, f"evaluation/{job.name}", job.out) as tracker:
        _introduce(tracker, config, job)
        model = ray.put((job.model, job.info))
        found = _predict(config, job, model, workers)
        sheet = score(job.annotations, found, config.threshold)
        if other is not None:
            sheet = sheet.beside(compare_models(job.annotations, found, other, config.threshold))
        runtime = None
        if config.runtime_images:
            images, size = config.runtime_images, config.batch_size
            runtime = runtime_on(job.annotations, model, images, sheet.threshold, size, config.gpu)
        pictures = overlays(job.annotations, sheet, job.origin, config.overlays, config.worst)
        result = EvaluationResult(
            out=job.out,
            run_id=tracker.handle.run_id,
            tracking_uri=cluster.tracking_uri,
            scores=gate_scores(sheet, job.origin, job.annotations),
            metrics=sheet.metrics | _timings(runtime, job.origin.train_fit),
            tables=sheet.tables,
            runtime=runtime,
            overlays=tuple(f"overlays/{picture}" for picture in pictures),
        )
        page = evaluation_page(
            job.name, config.model, job.annotations, sheet, job.origin, pictures, runtime, result.run_id
        )
        write_bytes(join(job.out, PAGE_FILE), page.encode())
        _write(result, config, job, pictures)
        _log(result.out, result.metrics, tracker)
        tracker.describe(result.headline())
    return result


@dataclass(frozen=True)
class FlatResult:
    """What an evaluation on images without depth found: numbers that no promotion decides by.

    Attributes:
        out: folder or URI of the files. run_id, tracking_uri: the MLflow run.
        numbers: COCO's.
    """

    out: str
    run_id: str
    tracking_uri: str
    numbers: Numbers

    def summary(self) -> str:
        """Tables and places for the terminal."""
        tables = [table.text() for table in self.numbers.tables]
        return "\n".join((*tables, f"{self.out} (MLflow run {self.run_id}): {PREDICTIONS_FILE}, {REPORT_FILE}"))


def evaluate_flat(config: EvaluateConfig) -> FlatResult:
    """One evaluation on images annotated in 2D alone, as COCO's are; otherwise as ``evaluate``.

    Raises:
        ValueError: as ``evaluate``; another joint set than COCO's, or a comparison, which is of poses in space.
    """
    if config.compare is not None:
        raise ValueError("compare: these images are annotated in 2D only, poses in space are compared")
    job = _check(config, flat=True)
    cluster = connect(config.cluster)
    workers = worker_count(config.workers, config.gpu)
    with Tracker.open(cluster.tracking_uri, config.experiment, f"evaluation/{job.name}", job.out) as tracker:
        _introduce(tracker, config, job)
        found = _predict(config, job, ray.put((job.model, job.info)), workers)
        numbers = score_flat(job.annotations, found)
        for table in numbers.tables:
            write_bytes(join(job.out, "tables", f"{table.name}.csv"), table.csv().encode())
        write_json(join(job.out, REPORT_FILE), _about(config, job) | {
            "metrics": {name: None if math.isnan(x) else x for name, x in numbers.metrics.items()},
            "tables": [table.to_json() for table in numbers.tables],
        })  # fmt: skip
        _log(job.out, numbers.metrics, tracker)
        told = (f"{name} {value:.3f}" for name, value in numbers.metrics.items() if name.endswith(("ap", "ar")))
        tracker.describe(f"{job.annotations.name}, annotated in 2D: {', '.join(told)}")
    return FlatResult(job.out, tracker.handle.run_id, cluster.tracking_uri, numbers)


def is_flat(folders: Sequence[str]) -> bool:
    """Whether prepared folders hold nothing but COCO's joint set, which is annotated in 2D alone."""
    joint_sets = {name for folder in folders for name in load_manifest(folder).skeletons}
    return joint_sets == {COCO17.name}


def read_predictions(where: str, annotations: Annotations) -> PredictionSet:
    """Predictions for these images: a file of this project, or the documented form of another group's.

    Raises:
        ValueError: from ``PredictionSet.load`` and ``read_foreign``; predictions that are paired with people, which
            only their own protocol can score.
    """
    if not is_foreign(where):
        return PredictionSet.load(where)
    foreign = read_foreign(where)
    if foreign.person is not None:
        raise ValueError(f"{where}: predictions that are paired with people (person), wanted unpaired ones")
    return foreign.to_predictions(annotations)


# ---- before Ray starts ----


@dataclass(frozen=True)
class _Job:
    """What is evaluated, and under which name."""

    name: str
    out: str
    model: DAS
    info: ModelInfo
    annotations: Annotations
    origin: Origin


def _check(config: EvaluateConfig, flat: bool = False) -> _Job:
    """Everything that can be wrong is looked at before the seconds that Ray takes to start."""
    storage, tracking_uri = config.cluster.locations()
    checkpoint = resolve_model(config.model, tracking_uri)
    model, info = load_model(checkpoint)
    annotations = read_annotations([absolute_storage(folder) for folder in config.data], config.split)
    if flat:
        flat_truth(annotations.records, info.model.skeleton)
    else:
        check_joints(annotations, info.model.skeleton)
    train_fit = is_train_fit(checkpoint, annotations, config.allow_overlap)
    # Below all of these a candidate decides nothing, and decoding and suppressing a hundred of them would take longer
    # than the network.
    thresholds = (info.score_threshold, info.model.score_threshold, config.threshold)
    least = min(threshold for threshold in thresholds if threshold is not None)
    origin = Origin.of(info, fingerprint(checkpoint), annotations.fingerprint, train_fit, least, code_version())
    name = config.name or _default_name(annotations, origin)
    out = absolute_storage(config.out or join(storage, "evaluations", name))
    fingerprints = {what: getattr(origin, what) for what in ("model_fingerprint", "data_fingerprint")}
    refuse_other(join(out, REPORT_FILE), **fingerprints)
    return _Job(name, out, model, info, annotations, origin)


def _default_name(annotations: Annotations, origin: Origin) -> str:
    what = annotations.name.replace("/", "-").replace("+", "-")
    return f"{what}-{origin.model_fingerprint[:8]}-{origin.data_fingerprint[:8]}"


# ---- files and the MLflow run ----


def _introduce(tracker: Tracker, config: EvaluateConfig, job: _Job) -> None:
    """What is evaluated, into the MLflow run."""
    tracker.log_params(flat_config(config))
    tracker.set_tags({"das.model": config.model, "das.model_fingerprint": job.origin.model_fingerprint})
    for manifest, folder in zip(job.annotations.manifests, job.annotations.folders, strict=True):
        tracker.log_dataset(manifest.source, manifest.fingerprint, folder, config.split, manifest.split_manifest)


def _timings(runtime: Runtime | None, train_fit: bool) -> dict[str, float]:
    mark = f"{TRAIN_FIT}/" if train_fit else ""
    return {} if runtime is None else {mark + name: value for name, value in runtime.metrics().items()}


def _write(result: EvaluationResult, config: EvaluateConfig, job: _Job, pictures: Mapping[str, bytes]) -> None:
    """All files but the predictions; the report, which says that there is an evaluation, last."""
    for table in result.tables:
        write_bytes(join(job.out, "tables", f"{table.name}.csv"), table.csv().encode())
    for name, data in pictures.items():
        write_bytes(join(job.out, "overlays", name), data)
    write_json(result.scores_file, result.scores.to_json())
    write_json(join(job.out, REPORT_FILE), _about(config, job) | result.to_json())


def _predict(config: EvaluateConfig, job: _Job, model: ray.ObjectRef, workers: int) -> PredictionSet:
    """The model's people on all images, kept in the folder, from which an earlier evaluation's files are gone."""
    for old in _FILES:
        delete(join(job.out, old))
    found = predict_split(job.annotations, job.origin, model, workers, config.batch_size, config.gpu)
    found.save(join(job.out, PREDICTIONS_FILE))
    return found


def _about(config: EvaluateConfig, job: _Job) -> dict[str, Any]:
    """What was evaluated, for the report."""
    return {"name": job.name, "model": config.model, "data": images_of(job.annotations), **job.origin.to_json()}


def images_of(annotations: Annotations) -> dict[str, Any]:
    """What was evaluated on, for the report; promotion finds the images by it."""
    return {
        "name": annotations.name,
        "folders": annotations.folders,
        "images": len(annotations.records),
        "split_manifests": [manifest.split_manifest for manifest in annotations.manifests],
    }


def _log(out: str, metrics: Mapping[str, float], tracker: Tracker) -> None:
    """Numbers and all files into the MLflow run."""
    tracker.log_metrics(metrics, step=0)
    tracker.log_files(out, _FILES)

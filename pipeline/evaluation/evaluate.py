"""Evaluation of a model on Ray: predictions for a split, their scores, timings, and one MLflow run.

    das evaluate --model runs/panoptic/best --data prepared/panoptic --split val

Predictions are made in parts, which survive an interruption (parts.py). The files are those of steps.py; the MLflow run
holds the same numbers and files. `das evaluate --predictions` computes all scores again from the predictions file,
without the model (rescore.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from das.model_info import ModelInfo, load_info
from pipeline.evaluation.annotations import Annotations, check_coco, check_joints, read_annotations
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.parts import parts_folder
from pipeline.evaluation.predictions_file import PREDICTIONS_FILE, PredictionFile, Provenance
from pipeline.evaluation.protocols.table import HEADLINE
from pipeline.evaluation.result import REPORT_FILE, EvaluationResult
from pipeline.evaluation.score import ProtocolResults
from pipeline.evaluation.steps import FILES, Job, images_of, read_compared, score_predictions, write_report
from pipeline.evaluation.train_overlap import is_train_fit, unchecked
from pipeline.infra.cluster import absolute_storage, connect
from pipeline.infra.code_version import code_version
from pipeline.infra.configs import flat as flat_config
from pipeline.infra.files import delete, join, refuse_other
from pipeline.infra.name_claim import claimed_name
from pipeline.models import fingerprint, resolve_model
from pipeline.tracking.tracker import Tracker


def evaluate(config: EvaluateConfig) -> EvaluationResult:
    """Evaluates ``config.model``; the same name continues its MLflow run and replaces its files.

    An evaluation that was interrupted goes on after its finished parts (parts.py). Images that cannot be predicted are
    in the result's ``quarantine`` and in no number.

    Raises:
        ValueError: a model, data or resources that do not exist or do not fit together, images that the model was
            trained on, or a name that the evaluation of another model or other data has taken or that is being
            evaluated: nothing is written. More than ``config.max_quarantine`` images that cannot be predicted, a shard
            that cannot be read, or an image without a row: finished parts are kept.
    """
    run = _check(config)
    other = read_compared(config, run.annotations)
    # Here: they import Ray and torch, for seconds, and what is refused above needs neither.
    import ray

    from das.checkpoint import load_model
    from pipeline.evaluation.inference import default_cpus, predict_split, runtime_on, worker_count

    network = load_model(run.checkpoint)
    cluster = connect(config.cluster)
    cpus = config.cpus_per_worker or default_cpus(config.gpu)
    workers = worker_count(config.workers, config.gpu, cpus)
    # In the storage, which all nodes reach: --out may be a folder of this machine.
    work = join(cluster.storage, "evaluations", run.job.name)
    identity, parts = f"evaluation/{run.job.name}", parts_folder(work, run.provenance)
    with (
        claimed_name(work, "evaluation"),
        Tracker.open(cluster.tracking_uri, config.experiment, identity, run.job.out) as tracker,
    ):
        _log_inputs(tracker, config, run)
        for old in FILES:
            delete(join(run.job.out, old))
        model = ray.put(network)
        predict_split(run.annotations, run.provenance, model, config, workers, cpus, parts, run.job.out)
        predictions = PredictionFile.open(join(run.job.out, PREDICTIONS_FILE))
        numbers = score_predictions(run.annotations, predictions, config.threshold, other)
        runtime = None
        if config.runtime_images and isinstance(numbers, ProtocolResults):
            images, threshold = config.runtime_images, numbers.setting.threshold
            runtime = runtime_on(numbers.annotations, model, images, threshold, config.batch_size, config.gpu)
        result = write_report(
            config,
            run.job,
            numbers,
            quarantine=predictions.quarantine,
            runtime=runtime,
            run_id=tracker.handle.run_id,
            tracking_uri=cluster.tracking_uri,
            remarks=run.remarks,
        )
        tracker.log_metrics(result.metrics, step=0)
        tracker.log_files(result.out, FILES)
        tracker.describe(result.headline, HEADLINE)
        delete(parts)
    return result


# ---- before Ray starts ----


@dataclass(frozen=True)
class _ModelJob:
    """A job with its checkpoint, which has been checked, and the images."""

    job: Job
    checkpoint: Path
    info: ModelInfo
    annotations: Annotations
    provenance: Provenance
    remarks: tuple[str, ...]


def _check(config: EvaluateConfig) -> _ModelJob:
    """Reads annotations and the model's description, and checks all that can be wrong, before Ray and torch."""
    storage, tracking_uri = config.cluster.locations()
    checkpoint = resolve_model(config.model, tracking_uri)
    info = load_info(checkpoint)
    annotations = read_annotations([absolute_storage(folder) for folder in config.data], config.split)
    if annotations.only_2d:
        check_coco(annotations)
    else:
        check_joints(annotations, info.model.skeleton)
    train_fit = is_train_fit(checkpoint, annotations, config.allow_overlap)
    # No protocol uses candidates below all of these, and decoding and suppressing a hundred of them would take longer
    # than the network.
    thresholds = (info.score_threshold, info.model.score_threshold, config.threshold)
    least = min(threshold for threshold in thresholds if threshold is not None)
    provenance = Provenance.of(info, fingerprint(checkpoint), annotations.fingerprint, train_fit, least, code_version())
    name = config.name or _default_name(annotations, provenance)
    out = absolute_storage(config.out or join(storage, "evaluations", name))
    fingerprints = {what: getattr(provenance, what) for what in ("model_fingerprint", "data_fingerprint")}
    refuse_other(join(out, REPORT_FILE), **fingerprints)
    about = {"name": name, "model": config.model, "data": images_of(annotations), **provenance.to_json()}
    job = Job(name, config.model, annotations.name, out, about, promotable=True)
    remark = unchecked(checkpoint)
    return _ModelJob(job, checkpoint, info, annotations, provenance, (remark,) if remark else ())


def _default_name(annotations: Annotations, provenance: Provenance) -> str:
    what = annotations.name.replace("/", "-").replace("+", "-")
    return f"{what}-{provenance.model_fingerprint[:8]}-{provenance.data_fingerprint[:8]}"


# ---- while it runs ----


def _log_inputs(tracker: Tracker, config: EvaluateConfig, run: _ModelJob) -> None:
    """Settings, model and data into the MLflow run."""
    tracker.log_params(flat_config(config))
    tracker.set_tags({"das.model": config.model, "das.model_fingerprint": run.provenance.model_fingerprint})
    for manifest, folder in zip(run.annotations.manifests, run.annotations.folders, strict=True):
        tracker.log_dataset(manifest.source, manifest.fingerprint, folder, config.split, manifest.split_manifest)

"""One training on Ray: `fit` checks, runs the workers and keeps the best checkpoint; presets name the usual ones."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ray.train import (
    Checkpoint,
    CheckpointConfig,
    DataConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer
from tqdm import tqdm

from das.backbone import BACKBONES
from das.checkpoint import TRAINING_STATE_FILE, WEIGHTS_FILE, ModelInfo, fresh_tensors, load_info, load_tensors
from das.config import DASConfig
from das.model import DAS
from das.recipe import RecipeConfig
from das.skeleton import Skeleton
from pipeline.data.manifest import Manifest, load_manifest
from pipeline.data.ray_rows import read_split
from pipeline.data.record import Record
from pipeline.data.shards import list_shards, read_records
from pipeline.evaluation.ground_truth import strict_truth
from pipeline.evaluation.train_overlap import INDEX_FILE
from pipeline.infra.cluster import absolute_storage, connect, preflight
from pipeline.infra.code_version import code_version
from pipeline.infra.columns import read_columns
from pipeline.infra.configs import flat
from pipeline.infra.files import copy_folder, exists, join, read_json, write_json
from pipeline.tracking.tracker import RunHandle, Tracker
from pipeline.training import optim
from pipeline.training.batches import training_rows
from pipeline.training.config import IngestConfig, ModelChoice, TrainConfig
from pipeline.training.loop import TrainJob, train_loop
from pipeline.training.pose_statistics import pose_statistics

# What picks the best epoch: all people count, a missed one with the error of the mean pose.
SELECT_BY = "val/mpjpe_with_misses"


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves behind.

    Attributes:
        checkpoint: folder of the best checkpoint, storage/name/best.
        run_id: its MLflow run.
        metrics: of that checkpoint.
        finished_before: the training had ended before; nothing was done.
    """

    checkpoint: str
    run_id: str
    metrics: dict[str, Any]
    finished_before: bool

    def summary(self) -> str:
        """A few lines for the terminal."""
        head = "finished before, nothing to do" if self.finished_before else "finished"
        shown = {k: v for k, v in self.metrics.items() if k.startswith("val/") or k in ("epoch", "step")}
        rows = (f"  {name} {value:.4g}" for name, value in sorted(shown.items()))
        return "\n".join((f"training {head}: {self.checkpoint} (MLflow run {self.run_id})", *rows))


def panoptic_presets() -> dict[str, tuple[str, TrainConfig]]:
    """Usual trainings for Panoptic's 15 joints; every field can be changed by a flag."""
    release = TrainConfig(
        model=ModelChoice("release_panoptic"),
        ingest=IngestConfig(recipe="release_panoptic"),
        optim=optim.release(),
        gpu=True,
        workers=4,
    )
    return {
        "release": ("The released architecture, loss, recipe and schedule, its slips included.", release),
        "ours": (
            "The released architecture and loss; recipe and optimisation mended.",
            replace(release, ingest=IngestConfig(recipe="ours_panoptic"), optim=optim.ours()),
        ),
        "paper": (
            "What the paper writes, with its ResNet-50 (Table 1).",
            replace(
                release,
                model=ModelChoice("paper_resnet50"),
                ingest=IngestConfig(recipe="ours_panoptic"),
                optim=optim.ours(),
            ),
        ),
        "small": ("A small model at low resolution, from scratch, on CPUs.", small_training()),
    }


def mupots_presets() -> dict[str, tuple[str, TrainConfig]]:
    """Usual trainings for MuCo and MuPoTS, 21 joints."""
    release = TrainConfig(
        name="das-mupots",
        model=ModelChoice("release_mupots"),
        ingest=IngestConfig(recipe="release_mupots"),
        optim=optim.release(),
        gpu=True,
        workers=4,
    )
    small = small_training()
    return {
        "release": ("The released architecture, loss, recipe and schedule, its slips included.", release),
        "ours": (
            "The released architecture and loss; recipe and optimisation mended.",
            replace(release, ingest=IngestConfig(recipe="ours_mupots"), optim=optim.ours()),
        ),
        "small": (
            "A small model at low resolution, from scratch, on CPUs.",
            replace(
                small,
                name="das-mupots",
                model=ModelChoice("small", joints="muco21"),
                ingest=replace(small.ingest, width=256, height=256),
            ),
        ),
    }


def small_training() -> TrainConfig:
    """Training of the small model at low resolution, from scratch, on CPUs."""
    return TrainConfig(
        model=ModelChoice("small"), ingest=IngestConfig(recipe="small", batch_size=16), optim=optim.small()
    )


def fit(config: TrainConfig, callbacks: Sequence[UserCallback] = (), parent: RunHandle | None = None) -> TrainResult:
    """Runs one training to its end, or continues it, or says that it has ended before.

    Args:
        config: the training.
        callbacks: hear of every report, on the side of the driver.
        parent: the MLflow run of the sweep that this is a trial of.

    Raises:
        ValueError: data, model or resources that do not fit together; a name that another training has taken.
    """
    job = training_job(config)
    cluster = connect(config.cluster)
    folder = join(cluster.storage, config.name)
    if exists(join(folder, "training.json")):
        refuse_another(join(folder, "training.json"), identity(job))
    if exists(join(folder, "finished.json")):
        ended = read_json(join(folder, "finished.json"))
        return TrainResult(join(folder, "best"), ended["run_id"], ended["metrics"], finished_before=True)

    if parent is None:  # a sweep has counted all its trials together
        # Ray Data reads while the workers compute; without a CPU of its own it would wait for them and they for it.
        preflight(config.workers, worker_resources(config), spare_cpus=1.0)
    write_json(join(folder, "training.json"), identity(job))
    with Tracker.open(cluster.tracking_uri, config.experiment, config.name, folder, parent) as tracker:
        tracker.log_params(flat(config))
        for manifest, where in zip(job.manifests, job.config.data, strict=True):
            tracker.log_dataset(manifest.source, manifest.fingerprint, where, "train", manifest.split_manifest)
        trainer = _trainer(replace(job, run=tracker.handle), cluster.storage, callbacks)
        with _progress_bar(tracker, shown=parent is None):
            result = _run(trainer)
        checkpoint, metrics = _best(result)
        with checkpoint.as_directory() as local:
            publish(local, join(folder, "best"), tracker)
        tracker.log_json("best.json", metrics)
    write_json(join(folder, "finished.json"), {"run_id": tracker.handle.run_id, "metrics": metrics})
    return TrainResult(join(folder, "best"), tracker.handle.run_id, metrics, finished_before=False)


def training_job(config: TrainConfig) -> TrainJob:
    """What the workers need, from the prepared data and their manifests; reads every annotation once.

    Raises:
        ValueError: data or initial weights that are missing, broken or do not fit the model.
    """
    if not config.data:
        raise ValueError("data is empty, wanted at least one prepared folder (see `das prepare`)")
    # Workers run in folders of their own.
    config = replace(
        config,
        data=tuple(map(absolute_storage, config.data)),
        val=config.val and absolute_storage(config.val),
        pretrained=config.pretrained and absolute_storage(config.pretrained),
    )
    model, recipe = config.model.build(), config.ingest.build()
    manifests = [load_manifest(data) for data in config.data]
    repeat = config.repeat or (1,) * len(manifests)
    rows = sum(_images(m, "train") * n for m, n in zip(manifests, repeat, strict=True))
    per_step = config.ingest.batch_size * config.ingest.accumulate * config.workers
    if rows < per_step:
        raise ValueError(f"data has {rows} training images, wanted at least one step of {per_step}")
    if config.pretrained is not None and "://" not in config.pretrained:
        _check_pretrained(config.pretrained, model)
    val_keys = _val_keys(config, model.skeleton)
    if val_keys:
        # Val chooses a threshold of the score that ranks people, so that is what prediction must cut.
        model = replace(model, threshold_on="score")
    statistics = pose_statistics(_annotations(config.data, manifests), model.skeleton, recipe)
    info = ModelInfo(
        model=model,
        test_size=recipe.test_size,
        weights="raw" if config.optim.ema_decay is None else "ema",
        score_threshold=model.score_threshold,
        unsupervised_joints=statistics.unsupervised_joints,
        recipe=recipe.to_json(),
        data=_data(manifests, config.pretrained),
        code_version=code_version(),
        mean_pose=tuple(tuple(joint) for joint in statistics.mean_pose.tolist()),
    )
    return TrainJob(config, info, rows, val_keys, _training_index(config.data, config.pretrained), manifests)


def _annotations(folders: Sequence[str], manifests: Sequence[Manifest]) -> Iterator[Record]:
    """All training rows without their images; ValueError where there are not as many as the manifest says."""
    every = sum(_images(manifest, "train") for manifest in manifests)
    bar = tqdm(total=every, unit=" images", desc="read annotations", delay=2)
    for folder, manifest in zip(folders, manifests, strict=True):
        found = 0
        for shard in list_shards(folder, "train"):
            for record in read_records(shard, images=False):
                found += 1
                bar.update()
                yield record
        if found != _images(manifest, "train"):
            wanted = f"{_images(manifest, 'train')} as its manifest says: prepare the data again"
            raise ValueError(f"{folder}: its shards hold {found} training rows, wanted {wanted}")
    bar.close()


def _val_keys(config: TrainConfig, skeleton: Skeleton) -> list[str]:
    """Keys of the val images that are scored, evenly spread over all of them; none without a val split of use.

    Raises:
        ValueError: if ``config.val`` was asked for and is of no use.
    """
    folder = config.val or config.data[0]
    split = sorted(_indexed(folder, "val", "key")) if _images(load_manifest(folder), "val") else []
    chosen = split[:: max(1, -(-len(split) // config.val_images))]
    wanted = set(chosen)
    shards = list_shards(folder, "val") if wanted else []
    records = [r for shard in shards for r in read_records(shard, images=False) if r.key in wanted]
    if any(r.joints_cam is None for r in records):
        fault = "its val split has images annotated in 2D only"
    elif not strict_truth(records, skeleton).counted(skeleton.root_indices).any():
        fault = f"its val split shows nobody with {' and '.join(skeleton.joints[i] for i in skeleton.root_indices)}"
    else:
        return chosen
    if config.val is not None:
        raise ValueError(f"val = {folder}: {fault}, wanted people in 3D")
    if split:
        print(f"{folder}: {fault}; training goes without validation (see --val)", file=sys.stderr)
    return []


def _check_pretrained(path: str, model: DASConfig) -> None:
    """ValueError before anything starts where initial weights are missing or of another architecture."""
    if Path(path).is_dir():
        fresh = fresh_tensors(path, model)
        load_tensors(Path(path) / WEIGHTS_FILE, DAS(model), fresh)
        if fresh:
            layers = dict.fromkeys(name.rsplit(".", 1)[0] for name in fresh)
            print(f"{path} predicts other joints than {model.skeleton.name}: {len(layers)} layers start fresh "
                  f"({', '.join(layers)}), all others from it")  # fmt: skip
    elif not Path(path).is_file():
        raise ValueError(f"pretrained = {path!r} does not exist, wanted a checkpoint folder, a file or a URL")
    elif not BACKBONES[model.backbone].imagenet:
        raise ValueError(f"pretrained = {path!r}: ImageNet files are for ResNets, this backbone is {model.backbone}")


def _data(manifests: Sequence[Manifest], pretrained: str | None) -> dict[str, Any]:
    """What the model will have been trained on: the data of the checkpoint it starts from, then those of its own."""
    mine: dict[str, Any] = {
        "sources": [m.source for m in manifests],
        "fingerprints": [m.fingerprint for m in manifests],
        "terms": [m.terms for m in manifests],
        "split": "train",
    }
    if pretrained is None or not Path(pretrained).is_dir():
        return mine
    theirs = load_info(pretrained).data
    for name in ("sources", "fingerprints", "terms"):
        mine[name] = [*theirs[name], *(value for value in mine[name] if value not in theirs[name])]
    return mine


def _images(manifest: Manifest, split: str) -> int:
    return manifest.splits[split].images if split in manifest.splits else 0


def _training_index(folders: Sequence[str], pretrained: str | None) -> dict[str, list[str]] | None:
    """Keys and image hashes of all that the model will have learned from: what an evaluation must not meet again.

    None where that is not known, because the checkpoint that it starts from does not say.
    """
    index: dict[str, list[str]] = {"key": [], "image_sha256": []}
    if pretrained is not None and Path(pretrained).is_dir():
        if not exists(join(pretrained, INDEX_FILE)):
            print(f"{pretrained} holds no {INDEX_FILE}: what it was trained on is not known, so no evaluation will "
                  "count as one of unseen images")  # fmt: skip
            return None
        index = read_columns(join(pretrained, INDEX_FILE), [*index])
    for folder in folders:
        for name, values in index.items():
            values += _indexed(folder, "train", name)
    return index


def _indexed(folder: str, split: str, name: str) -> list[str]:
    """One column of a prepared folder's index, of one split."""
    columns = read_columns(join(folder, "index.parquet"), ["split", name])
    return [value for found, value in zip(*columns.values(), strict=True) if found == split]


def identity(job: TrainJob) -> dict[str, Any]:
    """What makes two trainings of one name the same: model, recipe, optimisation and data."""
    config = job.config
    return {
        "model": job.info.model.to_json(),
        "recipe": job.info.recipe,
        "optim": asdict(config.optim),
        "data": job.info.data,
        "repeat": list(config.repeat),
        "seed": config.seed,
        "pretrained": config.pretrained,
    }


def refuse_another(path: str, identity: dict[str, Any]) -> None:
    """ValueError naming the first setting in which the run of this name differs from what is asked for."""
    found, wanted = flat(read_json(path)), flat(json.loads(json.dumps(identity)))
    for name in sorted(found | wanted):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{path}: this run has {name} = {found.get(name)!r}, asked for {wanted.get(name)!r}: "
                "resume with the same settings, or choose another --name"
            )


def worker_resources(config: TrainConfig) -> dict[str, float]:
    """What Ray reserves for each training worker."""
    return {"CPU": config.cpus_per_worker, **({"GPU": 1.0} if config.gpu else {})}


def _trainer(job: TrainJob, storage: str, callbacks: Sequence[UserCallback]) -> TorchTrainer:
    """The Ray trainer; the same storage and name continue from the last committed checkpoint."""
    config = job.config
    recipe = RecipeConfig.from_json(job.info.recipe)
    skeleton = job.info.model.skeleton
    datasets = {"train": training_rows(config.data, config.repeat, config.ingest, skeleton, recipe, config.seed)}
    if job.val_keys:
        datasets["val"] = read_split([config.val or config.data[0]], "val")
    select = {"checkpoint_score_attribute": SELECT_BY, "checkpoint_score_order": "min"} if job.val_keys else {}
    return TorchTrainer(
        train_loop,
        train_loop_config={"job": job},
        datasets=datasets,
        dataset_config=DataConfig(datasets_to_split=["train"]),
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.gpu,
            resources_per_worker=worker_resources(config),
        ),
        run_config=RunConfig(
            name=config.name,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.keep, **select),
            callbacks=list(callbacks),
        ),
    )


def _run(trainer: TorchTrainer) -> Any:
    """The training itself; a mistake that only the workers could see, in a row of the data, is raised as such."""
    try:
        return trainer.fit()
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if isinstance(failure, ValueError):
                raise failure from error
        raise


@contextmanager
def _progress_bar(tracker: Tracker, shown: bool) -> Iterator[None]:
    """Shows how far the workers are, as their numbers arrive in MLflow, while the driver waits."""
    if not shown:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        shown = ("train/loss", "val/mpjpe", "val/recall")
        with tqdm(total=100, unit="%", desc="train", delay=2, bar_format="{desc}: {n:.0f}%|{bar}| {postfix}") as bar:
            while not ended.wait(3.0):
                latest = tracker.latest_metrics()
                bar.n = 100 * latest.get("train/done", 0.0)
                bar.set_postfix({name: f"{latest[name]:.4g}" for name in shown if name in latest})

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _best(result: Any) -> tuple[Checkpoint, dict[str, Any]]:
    """The best retained checkpoint by validation, or the last one where there was none, and its metrics."""
    assert result.checkpoint is not None, "every epoch reports a checkpoint"
    scored = [(c, m) for c, m in result.best_checkpoints if SELECT_BY in m]
    if scored:
        return min(scored, key=lambda pair: pair[1][SELECT_BY])
    return result.checkpoint, result.metrics


def publish(local: str, best: str, tracker: Tracker) -> None:
    """Copies a checkpoint to storage/name/best and to the run's artifacts, there without the optimiser's state."""
    copy_folder(local, best)
    for file in sorted(Path(local).iterdir()):
        if file.name != TRAINING_STATE_FILE:
            # Not from `local`, which may be gone when a lost server answers again.
            tracker.log_artifact(join(best, file.name), "checkpoint")

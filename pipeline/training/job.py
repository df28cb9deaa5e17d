"""What the workers of one training need, checked against the prepared data before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from das.model_info import ModelInfo
from das.skeleton import Skeleton
from pipeline.data.data_sets import DataSet, data_set
from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.manifest import INDEX, Manifest, load_manifest
from pipeline.data.pose_statistics import pose_statistics, scorable
from pipeline.data.shards import list_shards, read_records
from pipeline.data.stored_rows import StoredRows, spread
from pipeline.evaluation.train_overlap import TrainingFile, digest_name
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.code_version import code_version
from pipeline.infra.files import exists, join
from pipeline.infra.redaction import redacted
from pipeline.models import in_store, pinned
from pipeline.tracking.tracker import RunHandle
from pipeline.training.config import TrainConfig
from pipeline.training.initial_weights import Parent, check_initial_weights
from pipeline.training.validation import SELECT_BY


@dataclass(frozen=True)
class TrainJob:
    """All that a worker needs beside its rows; it is pickled to every worker.

    Attributes:
        config: the training, its paths absolute.
        info: description of the model, written into every checkpoint.
        train: the training rows of every folder.
        val_rows: the images that are scored after every epoch; empty means no validation.
        trained_on: files for every checkpoint, which say what images it was trained on; None where it is not known.
        manifests: of the training data, one per folder.
        validated_on: source and fingerprint of the data whose val split is scored; None without validation.
        run: the MLflow run that the loop logs to; None until the driver has opened it.
    """

    config: TrainConfig
    info: ModelInfo
    train: list[DataSet]
    val_rows: list[StoredRows]
    trained_on: tuple[TrainingFile, ...] | None
    manifests: list[Manifest]
    validated_on: str | None = None
    run: RunHandle | None = None

    def settings(self) -> dict[str, Any]:
        """What must be equal for a later call of the same name to continue this training, as JSON.

        Model, recipe, optimisation, images of a step, data, seed, initial weights, and how the best epoch is chosen;
        not where it runs. The number of workers may change where batch_size x accumulate x workers stays the same:
        steps are then of as many images as before, and the schedule, which counts steps, goes on where it was.
        """
        return {
            "model": self.info.model.to_json(),
            "recipe": self.info.recipe,
            "optim": asdict(self.config.optim),
            "data": self.info.data,
            "repeat": list(self.config.repeat),
            "seed": self.config.seed,
            "pretrained": self.config.pretrained,
            "batch_size x accumulate x workers": self.config.images_per_step,
            "val": self.validated_on,
            "val_images": self.config.val_images,
            "oks_thresholds": list(self.config.oks_thresholds),
            "select": SELECT_BY if self.val_rows else None,
        }


def training_job(config: TrainConfig) -> TrainJob:
    """The job of a training. Nothing in it, and nothing that is read for it, grows with the training rows.

    Folders of converter versions before 4 have no statistics: of these every annotation is read.

    Raises:
        ValueError: data or initial weights that are missing, broken or do not fit the model.
    """
    if not config.data:
        raise ValueError("data is empty, wanted at least one prepared folder (see `das prepare`)")
    # A worker's current folder is Ray's, so relative paths would mean something else there.
    config = replace(
        config,
        data=tuple(map(absolute_storage, config.data)),
        val=config.val and absolute_storage(config.val),
    )
    config = _absolute_weights(config)
    model, recipe = config.model.build(), config.ingest.build()
    manifests = [load_manifest(data) for data in config.data]
    repeat = config.repeat or (1,) * len(manifests)
    train = [data_set(f, m, "train", n) for f, m, n in zip(config.data, manifests, repeat, strict=True)]
    if (rows := sum(part.rows for part in train)) < config.images_per_step:
        raise ValueError(f"data has {rows} training images, wanted at least one step of {config.images_per_step}")
    parent = check_initial_weights(config.pretrained, model, config.cluster.tracking_uri)
    val, validated = config.val or config.data[0], manifests[0] if config.val is None else load_manifest(config.val)
    val_rows = _val_rows(config, val, validated, model.skeleton)
    if val_rows:
        # Validation chooses a threshold of the ranking score, so prediction must apply it to the same score.
        model = replace(model, threshold_on="score")
    annotated = JointStatistics()
    for folder, manifest in zip(config.data, manifests, strict=True):
        annotated.merge(_statistics(folder, manifest, "train"))
    statistics = pose_statistics(annotated, model.skeleton, recipe)
    info = ModelInfo(
        model=model,
        test_size=recipe.test_size,
        weights="raw" if config.optim.ema_decay is None else "ema",
        score_threshold=model.score_threshold,
        unsupervised_joints=statistics.unsupervised_joints,
        recipe=recipe.to_json(),
        data=_data(manifests, parent),
        code_version=code_version(),
        mean_pose=tuple(tuple(joint) for joint in statistics.mean_pose.tolist()),
        origin=None if parent is None else parent.info.origin,
    )
    validated_on = f"{validated.source} {validated.fingerprint}" if val_rows else None
    trained_on = _trained_on(config.data, manifests, parent)
    return TrainJob(config, info, train, val_rows, trained_on, manifests, validated_on)


def _absolute_weights(config: TrainConfig) -> TrainConfig:
    """The training with an absolute address of its initial weights, which means the same on all machines and later."""
    if config.pretrained is None:
        return config
    if not in_store(config.pretrained):
        return replace(config, pretrained=absolute_storage(config.pretrained))
    _, uri = config.cluster.locations()
    cluster = replace(config.cluster, tracking_uri=uri)
    return replace(config, pretrained=pinned(config.pretrained, uri), cluster=cluster)


def _images(manifest: Manifest, split: str) -> int:
    return manifest.splits[split].images if split in manifest.splits else 0


# ---- validation images ----


def _val_rows(config: TrainConfig, folder: str, manifest: Manifest, skeleton: Skeleton) -> list[StoredRows]:
    """At most ``val_images`` val images, evenly spread over the split; empty if it cannot be scored.

    Args:
        config: number of images, and whether a val split is asked for.
        folder: the prepared folder with the val split.
        manifest: of that folder.
        skeleton: joints that the model predicts.

    Raises:
        ValueError: ``config.val`` is given and its val split cannot be scored.
    """
    images = _images(manifest, "val")
    statistics = _statistics(folder, manifest, "val") if images else JointStatistics()
    if any(found.images_3d < found.images for found in statistics.skeletons.values()):
        fault = "its val split has images annotated in 2D only"
    elif not scorable(statistics, skeleton):
        roots = " and ".join(skeleton.joints[i] for i in skeleton.root_indices)
        fault = f"its val split has no person with a labelled {roots}"
    else:
        return spread(data_set(folder, manifest, "val"), config.val_images)
    if config.val is not None:
        raise ValueError(f"val = {folder}: {fault}, wanted people in 3D")
    if images:
        print(f"{redacted(folder)}: {fault}; training goes without validation (see --val)", file=sys.stderr)
    return []


# ---- training images ----


def _statistics(folder: str, manifest: Manifest, split: str) -> JointStatistics:
    """Statistics of one split: those of the manifest, or of an older folder from its annotations, all of them.

    Raises:
        ValueError: annotations are read, and there are not as many as the manifest says.
    """
    if split not in manifest.splits:
        return JointStatistics()
    stored = JointStatistics.from_json(manifest.splits[split].statistics)
    if stored.skeletons and stored.complete:
        return stored
    images = _images(manifest, split)
    version = f"its manifest, of converter version {manifest.converter_version}, has no statistics"
    print(f"{redacted(folder)}: {version}: reading the annotations of {images} {split} images", file=sys.stderr)
    statistics, found = JointStatistics(), 0
    for shard in list_shards(folder, split):
        for record in tqdm(read_records(shard, images=False), unit=" images", desc="read annotations", delay=2):
            statistics.add(record)
            found += 1
    statistics.flush()
    if found != images:
        wanted = f"{images} as its manifest says: prepare the data again"
        raise ValueError(f"{folder}: its shards hold {found} {split} rows, wanted {wanted}")
    return statistics


def _data(manifests: Sequence[Manifest], parent: Parent | None) -> dict[str, Any]:
    """The data that the model will have been trained on: those of its initial checkpoint, then the training's."""
    data: dict[str, Any] = {
        "sources": [m.source for m in manifests],
        "fingerprints": [m.fingerprint for m in manifests],
        "terms": [m.terms for m in manifests],
        "split": "train",
    }
    if parent is None:
        return data
    earlier = parent.info.data
    for name in ("sources", "fingerprints", "terms"):
        data[name] = [*earlier[name], *(value for value in data[name] if value not in earlier[name])]
    return data


def _trained_on(
    folders: Sequence[str], manifests: Sequence[Manifest], parent: Parent | None
) -> tuple[TrainingFile, ...] | None:
    """Files for every checkpoint, from which evaluation knows all images that the model will have learned from.

    None if that is not known of the initial checkpoint.

    Raises:
        ValueError: a folder has neither digest nor index.
    """
    files: dict[str, TrainingFile] = {}
    if parent is not None:
        if parent.trained_on is None:
            return None
        files = {file.name: file for file in parent.trained_on}
    for folder, manifest in zip(folders, manifests, strict=True):
        digest = manifest.splits["train"].digest if "train" in manifest.splits else ""
        source = join(folder, digest or INDEX)
        if not exists(source):  # said now, not at the end of the first epoch
            raise ValueError(f"{redacted(source)}: no such file, wanted all files of the prepared folder")
        name = digest_name(manifest.fingerprint)
        files[name] = TrainingFile(name, source, of_index=not digest)
    return tuple(files.values())

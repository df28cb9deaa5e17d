"""What the workers of one training need, checked against the prepared data before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from das.model_info import ModelInfo, load_info
from das.skeleton import Skeleton
from pipeline.data.manifest import INDEX, Manifest, load_manifest
from pipeline.data.record import Record
from pipeline.data.shards import list_shards, read_records
from pipeline.evaluation.ground_truth import strict_truth
from pipeline.evaluation.train_overlap import INDEX_FILE
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.code_version import code_version
from pipeline.infra.columns import read_columns
from pipeline.infra.files import exists, join
from pipeline.infra.redaction import redacted
from pipeline.tracking.tracker import RunHandle
from pipeline.training.config import TrainConfig
from pipeline.training.initial_weights import check_initial_weights, is_checkpoint
from pipeline.training.pose_statistics import pose_statistics
from pipeline.training.validation import SELECT_BY


@dataclass(frozen=True)
class TrainJob:
    """All that a worker needs beside its rows; it is pickled to every worker.

    Attributes:
        config: the training, its paths absolute.
        info: description of the model, written into every checkpoint.
        train_rows: rows of one epoch, over all workers.
        val_keys: keys of the images that are scored after every epoch; empty means no validation.
        index: columns key and image_sha256 of all images that the model will have learned from, written into every
            checkpoint; None where they are not known.
        manifests: of the training data, one per folder.
        validated_on: source and fingerprint of the data whose val split is scored; None without validation.
        run: the MLflow run that the loop logs to; None until the driver has opened it.
    """

    config: TrainConfig
    info: ModelInfo
    train_rows: int
    val_keys: list[str]
    index: dict[str, list[str]] | None
    manifests: list[Manifest]
    validated_on: str | None = None
    run: RunHandle | None = None

    def settings(self) -> dict[str, Any]:
        """What must be equal for a later call of the same name to continue this training, as JSON.

        Model, recipe, optimisation, images of a step, data, seed, initial weights, and how the best epoch is chosen;
        not where it runs. The number of workers may change where batch_size x accumulate x workers stays the same:
        steps are then of as many images as before, and the schedule, which counts steps, goes on where it was.
        """
        ingest = self.config.ingest
        return {
            "model": self.info.model.to_json(),
            "recipe": self.info.recipe,
            "optim": asdict(self.config.optim),
            "data": self.info.data,
            "repeat": list(self.config.repeat),
            "seed": self.config.seed,
            "pretrained": self.config.pretrained,
            "batch_size x accumulate x workers": ingest.batch_size * ingest.accumulate * self.config.workers,
            "val": self.validated_on,
            "val_images": self.config.val_images,
            "oks_thresholds": list(self.config.oks_thresholds),
            "select": SELECT_BY if self.val_keys else None,
        }


def training_job(config: TrainConfig) -> TrainJob:
    """The job of a training; reads every annotation of the training data once.

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
        pretrained=config.pretrained and absolute_storage(config.pretrained),
    )
    model, recipe = config.model.build(), config.ingest.build()
    manifests = [load_manifest(data) for data in config.data]
    repeat = config.repeat or (1,) * len(manifests)
    rows = sum(_images(m, "train") * n for m, n in zip(manifests, repeat, strict=True))
    per_step = config.ingest.batch_size * config.ingest.accumulate * config.workers
    if rows < per_step:
        raise ValueError(f"data has {rows} training images, wanted at least one step of {per_step}")
    if config.pretrained is not None:
        check_initial_weights(config.pretrained, model)
    val_keys = _val_keys(config, model.skeleton)
    if val_keys:
        # Validation chooses a threshold of the ranking score, so prediction must apply it to the same score.
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
    validated = load_manifest(config.val or config.data[0]) if val_keys else None
    validated_on = f"{validated.source} {validated.fingerprint}" if validated is not None else None
    index = _training_index(config.data, config.pretrained)
    return TrainJob(config, info, rows, val_keys, index, manifests, validated_on)


def _images(manifest: Manifest, split: str) -> int:
    return manifest.splits[split].images if split in manifest.splits else 0


# ---- validation images ----


def _val_keys(config: TrainConfig, skeleton: Skeleton) -> list[str]:
    """Keys of at most ``val_images`` val images, evenly spread over the sorted split; empty if it cannot be scored.

    Raises:
        ValueError: ``config.val`` is given and its val split cannot be scored.
    """
    folder = config.val or config.data[0]
    split = sorted(_index_column(folder, "val", "key")) if _images(load_manifest(folder), "val") else []
    chosen = split[:: max(1, -(-len(split) // config.val_images))]  # every n-th, n rounded up
    wanted = set(chosen)
    shards = list_shards(folder, "val") if wanted else []
    records = [r for shard in shards for r in read_records(shard, images=False) if r.key in wanted]
    if any(r.joints_cam is None for r in records):
        fault = "its val split has images annotated in 2D only"
    elif not strict_truth(records, skeleton).counted(skeleton.root_indices).any():
        roots = " and ".join(skeleton.joints[i] for i in skeleton.root_indices)
        fault = f"its val split has no person with a labelled {roots}"
    else:
        return chosen
    if config.val is not None:
        raise ValueError(f"val = {folder}: {fault}, wanted people in 3D")
    if split:
        print(f"{redacted(folder)}: {fault}; training goes without validation (see --val)", file=sys.stderr)
    return []


# ---- training images ----


def _annotations(folders: Sequence[str], manifests: Sequence[Manifest]) -> Iterator[Record]:
    """All training rows without their images; ValueError where a folder has not as many as its manifest states."""
    total = sum(_images(manifest, "train") for manifest in manifests)
    bar = tqdm(total=total, unit=" images", desc="read annotations", delay=2)
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


def _data(manifests: Sequence[Manifest], pretrained: str | None) -> dict[str, Any]:
    """The data that the model will have been trained on: those of its initial checkpoint, then the training's."""
    data: dict[str, Any] = {
        "sources": [m.source for m in manifests],
        "fingerprints": [m.fingerprint for m in manifests],
        "terms": [m.terms for m in manifests],
        "split": "train",
    }
    if pretrained is None or not is_checkpoint(pretrained):
        return data
    earlier = load_info(pretrained).data
    for name in ("sources", "fingerprints", "terms"):
        data[name] = [*earlier[name], *(value for value in data[name] if value not in earlier[name])]
    return data


def _training_index(folders: Sequence[str], pretrained: str | None) -> dict[str, list[str]] | None:
    """Columns key and image_sha256 of all images that the model will have learned from.

    Evaluation compares them with its own images. None if the initial checkpoint has no index: what that one was
    trained on is then not known.
    """
    index: dict[str, list[str]] = {"key": [], "image_sha256": []}
    if pretrained is not None and is_checkpoint(pretrained):
        if not exists(join(pretrained, INDEX_FILE)):
            print(
                f"{redacted(pretrained)} holds no {INDEX_FILE}: what it was trained on is not known, so no evaluation "
                "will count as one of unseen images"
            )
            return None
        index = read_columns(join(pretrained, INDEX_FILE), [*index])
    for folder in folders:
        for name, values in index.items():
            values += _index_column(folder, "train", name)
    return index


def _index_column(folder: str, split: str, name: str) -> list[str]:
    """One column of a prepared folder's index, the rows of one split."""
    columns = read_columns(join(folder, INDEX), ["split", name])
    return [value for found, value in zip(*columns.values(), strict=True) if found == split]

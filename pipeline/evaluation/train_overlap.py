"""Whether a model was trained on some of the images that it is evaluated on.

Every checkpoint carries training_index.parquet: keys and image hashes of its training split, and of the images that
the checkpoint it started from was trained on. Equal keys mean the same frame of the same camera; equal hashes the same
picture, possibly under another key.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.evaluation.annotations import Annotations
from pipeline.infra.columns import read_columns
from pipeline.infra.files import exists, join

INDEX_FILE = "training_index.parquet"

TRAIN_FIT = "train-fit"
"""Begins the names of all metrics and tables that were measured on training data."""


def overlap(checkpoint: str | Path, annotations: Annotations) -> str | None:
    """Why scores on these images are not of unseen data, as a sentence; None if no image was trained on."""
    path = join(checkpoint, INDEX_FILE)
    if not exists(path):
        return f"{checkpoint} holds no {INDEX_FILE}: it is not known what the model was trained on"
    index = read_columns(path, ["key", "image_sha256"])
    keys, images = set(index["key"]), set(index["image_sha256"])
    shared = [r.key for r in annotations.records if r.key in keys or r.image_sha256 in images]
    if not shared:
        return None
    return f"the model was trained on {len(shared)} of {len(annotations.records)} images, such as {shared[0]}"


def is_train_fit(checkpoint: str | Path, annotations: Annotations, allow: bool) -> bool:
    """Whether scores on these images have to be marked as train-fit.

    Raises:
        ValueError: they are, and that is not allowed.
    """
    reason = overlap(checkpoint, annotations)
    if reason is not None and not allow:
        raise ValueError(
            f"{annotations.name}: {reason}; wanted images that training has not seen "
            "(--allow-overlap scores them all the same, marked train-fit)"
        )
    return reason is not None

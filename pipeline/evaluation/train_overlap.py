"""Whether a model has seen in training what it is to be judged on.

Every checkpoint carries training_index.parquet: keys and image hashes of its training split, and of what the checkpoint
it started from had learned from. Equal keys are the same frame of the same camera; equal hashes are the same picture,
whatever it is called.
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
    """What speaks against scores on these images, in words; None when the model has seen none of them."""
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
    """Whether scores on these images are to be marked as train-fit.

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

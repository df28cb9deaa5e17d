"""Whether a model was trained on some of the images that it is evaluated on.

Every checkpoint carries a digest (pipeline/data/digest.py) of each data set that it was trained on, and those of the
checkpoint that it started from. Equal keys mean the same frame of the same camera; equal bytes the same picture,
possibly under another key. A digest takes about 10 bytes an image. With 10 million images in it, an evaluation of
10,000 other images is refused wrongly with a chance of 6e-6, and then whenever it is repeated; ``--allow-overlap``
scores it all the same.

Of imported weights (``das.model_info.Origin``) only the splits are known that they were trained on. Images of these
splits count as seen; of all others it is said that their overlap cannot be checked, and they are scored.

Checkpoints of older versions list all keys and hashes (training_index.parquet), which is read too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from das.model_info import load_info
from pipeline.data.digest import found_in, hashes, write_digest_of_index
from pipeline.evaluation.annotations import Annotations
from pipeline.infra.columns import read_columns
from pipeline.infra.files import copy_file, join, names
from pipeline.models import resolve_model

OLD_INDEX = "training_index.parquet"
"""File of keys and image hashes in checkpoints of older versions."""
_DIGEST = "trained_on-{}.parquet"

TRAIN_FIT = "train-fit"
"""Begins the names of all metrics and tables that were measured on training data."""


def digest_name(fingerprint: str) -> str:
    """File, in a checkpoint, of the digest of the data of this fingerprint."""
    return _DIGEST.format(fingerprint[:16])


def training_files(checkpoint: str | Path) -> list[str] | None:
    """Names of the files from which the training images of a checkpoint are known; None if they are not known.

    None of them is of the training that imported weights had before: see ``unchecked``.

    Raises:
        ValueError: no checkpoint.
    """
    held, info = set(names(checkpoint)), load_info(checkpoint)
    digests = {digest_name(fingerprint) for fingerprint in info.data["fingerprints"]}
    if OLD_INDEX in held:  # it covers all data that have no digest
        return [OLD_INDEX, *sorted(digests & held)]
    known = digests or info.origin is not None
    return sorted(digests) if known and digests <= held else None


def overlap(checkpoint: str | Path, annotations: Annotations) -> str | None:
    """Why scores on these images are not of unseen data, as a sentence; None if no image was trained on."""
    files = training_files(checkpoint)
    if files is None:
        return f"{checkpoint} holds no {digest_name('*')} of all its data: what it was trained on is not known"
    wanted = hashes(annotations.keys, annotations.index.sha256)
    seen = np.zeros(len(wanted), bool)
    for name in files:
        path = join(checkpoint, name)
        if name == OLD_INDEX:
            index = read_columns(path, ["key", "image_sha256"])
            keys, images = set(index["key"]), set(index["image_sha256"])
            both = zip(annotations.keys, annotations.index.sha256, strict=True)
            seen |= np.fromiter((key in keys or image in images for key, image in both), bool)
        else:
            seen |= found_in(path, wanted)
    if not seen.any():
        return _within_origin(checkpoint, annotations)
    example = annotations.keys[np.argmax(seen)]
    return f"the model was trained on {seen.sum()} of {len(seen)} images, such as {example}"


def _within_origin(checkpoint: str | Path, annotations: Annotations) -> str | None:
    """Why images are of a split that imported weights were trained on, as a sentence; None if they are not."""
    origin = load_info(checkpoint).origin
    splits = {f"{manifest.source}/{annotations.split}" for manifest in annotations.manifests}
    if origin is None or not (seen := sorted(splits & set(origin.trained_on))):
        return None
    return f"the model comes from {origin.file}, which was trained on {', '.join(seen)}"


def unchecked(checkpoint: str | Path) -> str | None:
    """What cannot be checked of a checkpoint's training images, as a sentence; None if all are known."""
    origin = load_info(checkpoint).origin
    if origin is None:
        return None
    return (
        f"the model comes from {origin.file}, whose owners trained it on {', '.join(origin.trained_on)} and do not say "
        "on which images: that it has seen none of these cannot be checked"
    )


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


# ---- what a training puts into its checkpoints ----


@dataclass(frozen=True)
class TrainingFile:
    """Where one file of a checkpoint comes from.

    Attributes:
        name: in the checkpoint.
        source: the file that is copied, or an index.
        of_index: ``source`` is the index of a prepared folder that has no digest, because it is of an older version.
        store: address of the MLflow store, where ``source`` is the URI of a model in it that holds the file.
    """

    name: str
    source: str
    of_index: bool = False
    store: str | None = None


class TrainingFiles:
    """Copies the same files into many checkpoints; each is fetched, or made, at its first use only."""

    def __init__(self, files: Sequence[TrainingFile]) -> None:
        self.files = files
        self._held = tempfile.TemporaryDirectory()

    def copy_to(self, folder: str | Path) -> None:
        """Copies the files into a local folder.

        Raises:
            ValueError: one cannot be read; names it.
        """
        for file in self.files:
            here = Path(self._held.name) / file.name
            if not here.exists():
                if file.of_index:
                    write_digest_of_index(here, file.source, "train")
                elif file.store is not None:
                    copy_file(resolve_model(file.source, file.store, self._held.name) / file.name, here)
                else:
                    copy_file(file.source, here)
            copy_file(here, Path(folder) / file.name)

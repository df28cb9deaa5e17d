"""The images that predictions are scored on: one split of prepared folders, read without pixels.

Of every image some 300 bytes are held, the ``ImageIndex``. Annotations of people are read when they are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice

import numpy as np

from das.skeleton import COCO17, Skeleton, conversion, skeleton_named
from pipeline.data.data_sets import data_set
from pipeline.data.manifest import Manifest, load_manifest
from pipeline.data.record import Record
from pipeline.data.shards import list_shards, read_records
from pipeline.data.stored_rows import StoredRecords
from pipeline.infra.columns import TEXT


@dataclass(frozen=True)
class ImageIndex:
    """What is known of F images without reading them again.

    Attributes:
        keys, sha256, sources, sequences, activities, skeletons: (F,) texts (``TEXT``).
        frames: (F,) int. posed: (F,) bool, whether the joints are annotated in 3D.
    """

    keys: np.ndarray
    sha256: np.ndarray
    sources: np.ndarray
    sequences: np.ndarray
    activities: np.ndarray
    skeletons: np.ndarray
    frames: np.ndarray
    posed: np.ndarray

    @classmethod
    def of(cls, records: Iterable[Record]) -> ImageIndex:
        """The index of images, each of which is read once, a few at a time."""
        rows, parts = iter(records), []
        while True:
            run = [*islice(rows, _RUN)]
            parts.append(
                cls(
                    keys=np.array([record.key for record in run], TEXT),
                    sha256=np.array([record.image_sha256 for record in run], TEXT),
                    sources=np.array([record.source for record in run], TEXT),
                    sequences=np.array([record.sequence for record in run], TEXT),
                    activities=np.array([record.activity for record in run], TEXT),
                    skeletons=np.array([record.skeleton for record in run], TEXT),
                    frames=np.array([record.frame for record in run], np.int64),
                    posed=np.array([record.joints_cam is not None for record in run], bool),
                )
            )
            if not run:
                return cls.joined(parts)

    @classmethod
    def joined(cls, parts: Sequence[ImageIndex]) -> ImageIndex:
        """The index of several indices' images, one after another."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def __len__(self) -> int:
        return len(self.keys)

    def where(self, places: Sequence[int] | np.ndarray) -> ImageIndex:
        """The index of some of the images, by their places."""
        return ImageIndex(*(getattr(self, f.name)[places] for f in fields(self)))


# Images that are indexed at once.
_RUN = 1024


@dataclass(frozen=True)
class Annotations:
    """All images of one split of some prepared folders.

    Attributes:
        folders: the prepared folders. manifests: of the folders, in the same order.
        split: train, val or test.
        shards: the Parquet files of the split.
        records: every image with its people, ``image`` left empty; to be read one after another.
        index: of the images.
    """

    folders: tuple[str, ...]
    manifests: tuple[Manifest, ...]
    split: str
    shards: tuple[str, ...]
    records: Sequence[Record]
    index: ImageIndex

    @property
    def name(self) -> str:
        """Sources and split, for example ``panoptic/test``."""
        return "+".join(sorted({manifest.source for manifest in self.manifests})) + "/" + self.split

    @property
    def fingerprint(self) -> str:
        """The folder's fingerprint; of several folders a hash of theirs that does not depend on their order."""
        found = sorted(manifest.fingerprint for manifest in self.manifests)
        return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()

    @property
    def only_2d(self) -> bool:
        """All folders hold COCO's joint set and no other, which is annotated in 2D only."""
        return {name for manifest in self.manifests for name in manifest.skeletons} == {COCO17.name}

    @property
    def keys(self) -> np.ndarray:
        """Keys of all images, in order, (F,) texts."""
        return self.index.keys

    def runs(self, images: int = 256) -> list[range]:
        """Places of all images in runs of neighbours, with this many in each but the last."""
        count = len(self.index)
        return [range(first, min(first + images, count)) for first in range(0, count, images)]

    def part(self, images: Sequence[int]) -> Annotations:
        """Some of the images in memory, by their places."""
        return self.holding([self.records[at] for at in images])

    def holding(self, records: Sequence[Record]) -> Annotations:
        """The same folders with these of their images."""
        return replace(self, records=records, index=ImageIndex.of(records))

    def without(self, keys: Collection[str]) -> Annotations:
        """The same without some of the images."""
        if not keys:
            return self
        left = np.flatnonzero([key not in keys for key in self.keys])
        records = self.records
        some = records.only(left) if isinstance(records, StoredRecords) else [records[at] for at in left.tolist()]
        return replace(self, records=some, index=self.index.where(left))


def read_annotations(folders: Sequence[str], split: str) -> Annotations:
    """The annotations of one split; all are read and checked once.

    Raises:
        ValueError: no folder given, a folder that `das prepare` has not finished, one without this split or
            without rows in it, or an image that is in two of the folders.
    """
    if not folders:
        raise ValueError("data is empty, wanted at least one prepared folder (see `das prepare`)")
    manifests, shards, data, indices = [], [], [], []
    for folder in folders:
        manifest = load_manifest(folder)
        if split not in manifest.splits:
            raise ValueError(f"{folder}: no split {split!r}, found {', '.join(manifest.splits) or 'none'}")
        here = list_shards(folder, split)
        found = ImageIndex.of(record for shard in here for record in read_records(shard, images=False))
        if not len(found):
            raise ValueError(f"{folder}: split {split!r} holds no images ({len(here)} Parquet shards)")
        manifests.append(manifest)
        shards += here
        data.append(data_set(folder, manifest, split))
        indices.append(found)
    index = ImageIndex.joined(indices)
    _check_once(folders, indices, index.keys)
    return Annotations(tuple(folders), tuple(manifests), split, tuple(shards), StoredRecords(data), index)


def _check_once(folders: Sequence[str], indices: Sequence[ImageIndex], keys: np.ndarray) -> None:
    """ValueError where a key appears twice; names it and the folders."""
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if len(twice):
        at = twice[np.argmin(order[twice + 1])]  # the first that was seen before
        folder = np.repeat(np.arange(len(folders)), [len(index) for index in indices])
        first, second = (folders[folder[order[i]]] for i in (at, at + 1))
        raise ValueError(f"{keys[order[at]]} is in {first} and in {second}, wanted every image once")


def check_joints(annotations: Annotations, skeleton: Skeleton) -> None:
    """Checks that a model of this joint set can be scored on these images.

    Raises:
        ValueError: images without joints in 3D, or whose joint set lacks the model's root.
    """
    index = annotations.index
    if not index.posed.all():
        raise ValueError(
            f"{index.keys[index.posed.argmin()]}: annotated in 2D only, wanted joints in 3D to score against"
        )
    for name in np.unique(index.skeletons).tolist():
        native = skeleton_named(name)
        at = conversion(native, skeleton).index
        missing = [joint for joint in skeleton.root if at[skeleton.index(joint)] < 0]
        if missing:
            key = index.keys[(index.skeletons == name).argmax()]
            raise ValueError(
                f"{key}: its joint set {native.name} has no {missing[0]}, the root of the model's {skeleton.name}: "
                "wanted data with that joint"
            )


def check_coco(annotations: Annotations) -> None:
    """ValueError unless all images have COCO's joint set, on which OKS is defined; names the key."""
    index = annotations.index
    other = index.skeletons != COCO17.name
    if other.any():
        at = other.argmax()
        raise ValueError(f"{index.keys[at]}: joint set {index.skeletons[at]}, OKS is defined on {COCO17.name}")

"""The images that predictions are scored on: one split of prepared folders, read without pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from das.skeleton import COCO17, Skeleton, conversion, skeleton_named
from pipeline.data.manifest import Manifest, load_manifest
from pipeline.data.record import Record
from pipeline.data.shards import list_shards, read_records


@dataclass(frozen=True)
class Annotations:
    """All images of one split of some prepared folders.

    Attributes:
        folders: the prepared folders. manifests: of the folders, in the same order.
        split: train, val or test.
        shards: the Parquet files of the split.
        records: every image with its people, ``image`` left empty.
    """

    folders: tuple[str, ...]
    manifests: tuple[Manifest, ...]
    split: str
    shards: tuple[str, ...]
    records: tuple[Record, ...]

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
    def keys(self) -> list[str]:
        """Keys of all images, in order."""
        return [record.key for record in self.records]

    def runs(self, images: int = 256) -> list[range]:
        """Places of all images in runs of neighbours, with this many in each but the last."""
        count = len(self.records)
        return [range(first, min(first + images, count)) for first in range(0, count, images)]

    def part(self, images: Sequence[int]) -> Annotations:
        """Some of the images, by their places."""
        return replace(self, records=tuple(self.records[at] for at in images))

    def without(self, keys: Collection[str]) -> Annotations:
        """The same without some of the images."""
        return replace(self, records=tuple(r for r in self.records if r.key not in keys)) if keys else self


def read_annotations(folders: Sequence[str], split: str) -> Annotations:
    """The annotations of one split.

    Raises:
        ValueError: no folder given, a folder that `das prepare` has not finished, one without this split or
            without rows in it, or an image that is in two of the folders.
    """
    if not folders:
        raise ValueError("data is empty, wanted at least one prepared folder (see `das prepare`)")
    manifests, shards, records = [], [], []
    seen: dict[str, str] = {}
    for folder in folders:
        manifest = load_manifest(folder)
        if split not in manifest.splits:
            raise ValueError(f"{folder}: no split {split!r}, found {', '.join(manifest.splits) or 'none'}")
        here = list_shards(folder, split)
        found = [record for shard in here for record in read_records(shard, images=False)]
        if not found:
            raise ValueError(f"{folder}: split {split!r} holds no images ({len(here)} Parquet shards)")
        for record in found:
            if record.key in seen:
                raise ValueError(f"{record.key} is in {seen[record.key]} and in {folder}, wanted every image once")
            seen[record.key] = folder
        manifests.append(manifest)
        shards += here
        records += found
    return Annotations(tuple(folders), tuple(manifests), split, tuple(shards), tuple(records))


def check_joints(annotations: Annotations, skeleton: Skeleton) -> None:
    """Checks that a model of this joint set can be scored on these images.

    Raises:
        ValueError: images without joints in 3D, or whose joint set lacks the model's root.
    """
    for record in annotations.records:
        if record.joints_cam is None:
            raise ValueError(f"{record.key}: annotated in 2D only, wanted joints in 3D to score against")
        native = skeleton_named(record.skeleton)
        index = conversion(native, skeleton).index
        missing = [joint for joint in skeleton.root if index[skeleton.index(joint)] < 0]
        if missing:
            raise ValueError(
                f"{record.key}: its joint set {native.name} has no {missing[0]}, the root of the model's "
                f"{skeleton.name}: wanted data with that joint"
            )

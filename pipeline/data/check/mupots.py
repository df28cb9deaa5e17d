"""Inventory of MuPoTS-3D: the owners' annot.mat or Moon's annotation file, and the images of TS1 to TS20."""

from __future__ import annotations

import re

from pipeline.data.check.base import CameraInventory, Inventory, Problem, archives, camera_inventory, problem_of
from pipeline.data.check.coco_like import IMAGES, first_of, read, size_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources import mupots_mat
from pipeline.data.sources.mupots import ANNOTATIONS, CAMERA, OWNERS, image_name, sequence_and_frame
from pipeline.data.splits import Part, SplitManifest

TITLE = "MuPoTS-3D"
LAYOUT = "MultiPersonTestSet/TS1 to TS20 with annot.mat, or MuPoTS-3D.json (or annotations/MuPoTS-3D.json)"
PAGE = "docs/data/mupots.md"

_NOTHING_READ = "no annotation file"


def recognises(tree: Tree) -> bool:
    """Whether it has the annotation file, or the owners' folder or sequences."""
    sequences = (name for name in tree.folders() if re.fullmatch(r"TS\d+", name))
    if tree.root.name != OWNERS and any(
        "annot.mat" in tree.names(name) or any(n.startswith("img_") for n in tree.names(name)) for name in sequences
    ):
        # MPI-INF-3DHP's test set has folders of the same names.
        return not tree.has("mpi_inf_3dhp_test_set")
    return any(map(tree.has, (*ANNOTATIONS, OWNERS)))


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """TS1 to TS20: the owners' files where they exist, otherwise the frames of Moon's annotation file."""
    found = Inventory(read=_NOTHING_READ)
    found.notes += archives(tree, ("", "annotations", OWNERS))
    path = first_of(tree, ANNOTATIONS)
    # Size (height, width) of every frame by sequence and frame number; None where it is unknown.
    frames: dict[str, dict[int, tuple[int, int] | None]] = {}
    if path is not None:
        content = read(tree, path, found)
        if content is None:
            return found
        for image in content[0].values():
            try:
                sequence, frame = sequence_and_frame(image, tree.root / path)
            except ValueError as error:
                found.problems.append(problem_of(tree, error))
            else:
                frames.setdefault(sequence, {})[frame] = size_of(image)
    unusable: dict[str, dict[int, Problem]] = {}
    for part in splits.parts:
        folder = _folder(tree, part.sequence)
        if tree.size(f"{folder}/annot.mat") is None:
            continue
        # The owners' files replace Moon's, as in sources/mupots.py: only they have every frame.
        frames.pop(part.sequence, None)
        try:
            entries = mupots_mat.read_frames(tree.root / folder, tree.root)
        except ValueError as error:
            found.problems.append(problem_of(tree, error))
            continue
        frames[part.sequence] = dict.fromkeys(range(len(entries)))
        errors = {i: entry for i, entry in enumerate(entries) if isinstance(entry, ValueError)}
        unusable[part.sequence] = {i: problem_of(tree, error) for i, error in errors.items()}
    if unusable:
        also = "" if found.read == _NOTHING_READ else f"{found.read}, "
        found.read = f"{also}annot.mat and occlusion.mat of {len(unusable)} sequences"
    for part in splits.parts:
        if part.sequence in frames:
            found.cameras.append(_camera(tree, part, frames[part.sequence], unusable.get(part.sequence, {}), splits))
        else:
            images = len(_images(tree, part.sequence))
            what = f"{images} images without annotations" if images else "no images and no annotations"
            found.absent.append(Problem(f"{part.sequence} ({part.split})", what))
    return found


def _camera(
    tree: Tree,
    part: Part,
    frames: dict[int, tuple[int, int] | None],
    unusable: dict[int, Problem],
    splits: SplitManifest,
) -> CameraInventory:
    """The inventory of a sequence; frames with an unusable annotation count as damaged."""
    folder = _folder(tree, part.sequence)
    numbered = sorted(frames)
    others = _images(tree, part.sequence) - {image_name(frame) for frame in numbered}
    line = camera_inventory(
        tree,
        part,
        CAMERA,
        numbered,
        splits,
        lambda frame: f"{folder}/{image_name(frame)}",
        frames.__getitem__,
        len(others),
    )
    line.damaged += (unusable[frame] for frame in splits.select(part, numbered) if frame in unusable)
    without_annotation = {f"{folder}/{image_name(frame)}" for frame in unusable}
    line.images = [image for image in line.images if image.path not in without_annotation]
    return line


def _folder(tree: Tree, sequence: str) -> str:
    """Folder of a sequence's images: in the owners' folder if it is there, otherwise beside the annotation file."""
    owners = f"{OWNERS}/{sequence}"
    return owners if sequence in tree.folders(OWNERS) else sequence


def _images(tree: Tree, sequence: str) -> set[str]:
    return {name for name in tree.names(_folder(tree, sequence)) if name.lower().endswith(IMAGES)}

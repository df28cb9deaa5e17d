"""What is there of MuPoTS-3D: the owners' annot.mat or Moon's annotation file, and the images of TS1 to TS20."""

from __future__ import annotations

import re

from pipeline.data.check.base import Inventory, Trouble, View, archives, trouble_of, view_of
from pipeline.data.check.coco_like import IMAGES, first_of, read, size_of
from pipeline.data.check.listing import Tree
from pipeline.data.sources import mupots as reader
from pipeline.data.sources import mupots_mat
from pipeline.data.sources.base import Source
from pipeline.data.splits import Part, SplitManifest

TITLE = "MuPoTS-3D"
LAYOUT = "MultiPersonTestSet/TS1 to TS20 with annot.mat, or MuPoTS-3D.json (or annotations/MuPoTS-3D.json)"
PAGE = "docs/data/mupots.md"
SOURCE: Source = reader

_PLACES = ("annotations/MuPoTS-3D.json", "MuPoTS-3D.json")
_OWNERS = "MultiPersonTestSet"
_CAMERA = "0"
_NOTHING_READ = "no annotation file"
_NAME = re.compile(r"(?:.*/)?(TS\d+)/img_(\d+)\.jpg")


def recognises(tree: Tree) -> bool:
    """Whether the annotation file or a folder of the owners is where it belongs."""
    sequences = (name for name in tree.folders() if re.fullmatch(r"TS\d+", name))
    if tree.root.name != _OWNERS and any(
        "annot.mat" in tree.names(name) or any(n.startswith("img_") for n in tree.names(name)) for name in sequences
    ):
        return not tree.has("mpi_inf_3dhp_test_set")
    return any(map(tree.has, (*_PLACES, _OWNERS)))


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """TS1 to TS20, as the annotation file lists them, or the owners' files where there is none."""
    found = Inventory(read=_NOTHING_READ)
    found.notes += archives(tree, ("", "annotations", _OWNERS))
    path = first_of(tree, _PLACES)
    frames: dict[str, dict[int, tuple[int, int] | None]] = {}
    if path is not None:
        content = read(tree, path, found)
        if content is None:
            return found
        for image in content[0].values():
            if match := _NAME.fullmatch(str(image["file_name"])):
                frames.setdefault(match[1], {})[int(match[2])] = size_of(image)
            else:
                found.troubles.append(Trouble(path, f"file_name {image['file_name']!r}, wanted TS1/img_000000.jpg"))
    broken: dict[str, dict[int, Trouble]] = {}
    for part in splits.parts:
        folder = _folder(tree, part.sequence)
        if tree.size(f"{folder}/annot.mat") is None:
            continue
        # The owners' files come first where they are: they alone have every frame.
        frames.pop(part.sequence, None)
        try:
            entries = mupots_mat.read_frames(tree.root / folder)
        except ValueError as error:
            found.troubles.append(trouble_of(tree, error))
            continue
        frames[part.sequence] = dict.fromkeys(range(len(entries)))
        faults = {i: entry for i, entry in enumerate(entries) if isinstance(entry, ValueError)}
        broken[part.sequence] = {i: trouble_of(tree, fault) for i, fault in faults.items()}
    if broken:
        also = "" if found.read == _NOTHING_READ else f"{found.read}, "
        found.read = f"{also}annot.mat and occlusion.mat of {len(broken)} sequences"
    for part in splits.parts:
        if part.sequence in frames:
            view = _view(tree, part, frames[part.sequence], splits)
            lost = broken.get(part.sequence, {})
            taken = splits.select(part, sorted(frames[part.sequence]))
            view.damaged += (lost[frame] for frame in taken if frame in lost)
            view.pictures = [picture for picture in view.pictures if int(picture.path[-10:-4]) not in lost]
            found.views.append(view)
        else:
            images = len(_images(tree, part.sequence))
            what = f"{images} images without annotations" if images else "no images and no annotations"
            found.absent.append(Trouble(f"{part.sequence} ({part.split})", what))
    return found


def _view(tree: Tree, part: Part, frames: dict[int, tuple[int, int] | None], splits: SplitManifest) -> View:
    folder = _folder(tree, part.sequence)
    numbered = sorted(frames)
    others = _images(tree, part.sequence) - {f"img_{frame:06d}.jpg" for frame in numbered}
    return view_of(
        tree,
        part,
        _CAMERA,
        numbered,
        splits,
        lambda frame: f"{folder}/img_{frame:06d}.jpg",
        frames.__getitem__,
        len(others),
    )


def _folder(tree: Tree, sequence: str) -> str:
    """Where a sequence's images lie: as the owners ship them, or beside the annotation file."""
    owners = f"{_OWNERS}/{sequence}"
    return owners if sequence in tree.folders(_OWNERS) else sequence


def _images(tree: Tree, sequence: str) -> set[str]:
    return {name for name in tree.names(_folder(tree, sequence)) if name.lower().endswith(IMAGES)}

"""What is there of MPI-INF-3DHP: arrays and single images as mmpose leaves them, or the owners' S1/Seq1 to S8/Seq2."""

from __future__ import annotations

import re
from dataclasses import replace

from pipeline.data.check.base import Inventory, Trouble, View, archives, trouble_of, view_of, words_of
from pipeline.data.check.coco_like import IMAGES
from pipeline.data.check.listing import Tree
from pipeline.data.check.videos import add_film
from pipeline.data.sources import mpi_inf_3dhp as reader
from pipeline.data.sources.base import Chunk, Source
from pipeline.data.splits import Part, SplitManifest

TITLE = "MPI-INF-3DHP"
LAYOUT = "mpi_inf_3dhp_train.npz, cameras_train.pkl and images, or S1/Seq1 with annot.mat and imageSequence"
PAGE = "docs/data/mpi_inf_3dhp.md"
SOURCE: Source = reader

_ARRAYS = re.compile(r"(mpi_inf_3dhp_(train|test_valid|test_all)|test_3dhp_(train|test))\.npz")
_IMAGE = re.compile(r"(S\d+_Seq\d+_Cam\d+|TS\d+)_\d+\.jpg")


def recognises(tree: Tree) -> bool:
    """Whether arrays, images of mmpose's names, or a subject's folder are where they belong."""
    names = [name for folder in ("", "annotations") for name in tree.names(folder)]
    subjects = (s for s in tree.folders() if re.fullmatch(r"S\d", s))
    return (
        any(map(_ARRAYS.fullmatch, names))
        or any(map(_IMAGE.fullmatch, [*tree.names()[:50], *tree.names("images")[:50]]))
        or any(re.fullmatch(r"Seq\d", name) for s in subjects for name in tree.folders(s))
    )


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """Every sequence, camera by camera, as the reader of the annotations lists its frames."""
    found = Inventory(read="annotations of no sequence")
    found.notes += archives(tree, ("", "annotations", "images"))
    listed: set[str] = set()
    for part in splits.parts:
        try:
            shards = reader.chunks(tree.root, part.split, replace(splits, parts=(part,)))
        except ValueError as error:
            trouble = Trouble(_place(part.sequence), words_of(tree, error))
            (found.troubles if tree.has(_place(part.sequence)) else found.absent).append(trouble)
            continue
        by_camera: dict[str, list[Chunk]] = {}
        for shard in shards:
            by_camera.setdefault(shard.camera, []).append(shard)
        if not by_camera:
            found.absent.append(Trouble(f"{part.sequence} ({part.split})", "no annotation of it"))
        for camera, pieces in by_camera.items():
            # The reader has chosen the frames already: nothing is left to choose.
            frames = [frame for shard in pieces for frame in shard.frames]
            view = _view(tree, part, camera, frames)
            if fault := _camera_fault(tree, view):
                view.blocked = f"{fault.path}: {fault.what}"
                if fault not in found.troubles:
                    found.troubles.append(fault)
            listed |= {picture.path for picture in view.pictures}
            found.views.append(view)
    found.read = f"annotations of {len({view.sequence for view in found.views})} sequences"
    others = sum(f"{folder}{name}" not in listed for folder, name in _images(tree))
    if others:
        found.notes.append(f"{others} images that no annotation of these splits describes")
    return found


def _view(tree: Tree, part: Part, camera: str, frames: list[int]) -> View:
    """The line of one camera; ``frames`` are those that the split manifest takes."""
    every = SplitManifest("every", (whole := replace(part, split="train", start=0.0, stop=1.0),))
    name = f"{part.sequence}_" if part.sequence.startswith("TS") else f"{part.sequence}_Cam{camera}_"
    place = _place(part.sequence)
    original = not part.sequence.startswith("TS") and "annot.mat" in tree.names(place)
    cut, film = f"{place}/imageFrames/video_{camera}", f"{place}/imageSequence/video_{camera}.avi"

    def path(frame: int) -> str:
        if original:
            return f"{cut}/frame_{frame + 1:06d}.jpg"
        file = f"{name}{frame:06d}.jpg"
        return file if tree.size(file) is not None else f"images/{file}"

    view = replace(view_of(tree, whole, camera, frames, every, path, lambda _: None), split=part.split)
    if original and tree.size(film) is not None and not tree.names(cut):
        add_film(view, tree, film, frames, None)
    return view


def _camera_fault(tree: Tree, view: View) -> Trouble | None:
    """Why nothing in mmpose's form can be made of a view; None for nothing."""
    if reader.in_arrays(tree.root, view.sequence):
        try:
            reader.read_intrinsics(tree.root, view.sequence, view.camera)
        except ValueError as error:
            return trouble_of(tree, error)
    return None


def _place(sequence: str) -> str:
    """S1_Seq2 lies in S1/Seq2."""
    return sequence.replace("_", "/")


def _images(tree: Tree) -> list[tuple[str, str]]:
    """(folder with its slash, name) of the images in mmpose's form."""
    places = ("", "images/")
    return [(place, n) for place in places for n in tree.names(place.rstrip("/")) if n.lower().endswith(IMAGES)]

"""Inventory of MPI-INF-3DHP: mmpose's arrays and single images, or the owners' S1/Seq1 to S8/Seq2."""

from __future__ import annotations

import re
from dataclasses import replace

from pipeline.data.check.base import (
    CameraInventory,
    Inventory,
    Problem,
    archives,
    camera_inventory,
    message_of,
    problem_of,
)
from pipeline.data.check.coco_like import IMAGES
from pipeline.data.check.listing import Tree
from pipeline.data.check.videos import add_video
from pipeline.data.sources import mpi_inf_3dhp as source
from pipeline.data.sources.base import Chunk
from pipeline.data.sources.mpi_inf_3dhp_original import image_file, image_folder, sequence_folder, video_file
from pipeline.data.splits import Part, SplitManifest

TITLE = "MPI-INF-3DHP"
LAYOUT = "mpi_inf_3dhp_train.npz, cameras_train.pkl and images, or S1/Seq1 with annot.mat and imageSequence"
PAGE = "docs/data/mpi_inf_3dhp.md"

# Image names that are compared to recognise the folder: the others are alike.
_NAMES_COMPARED = 50


def recognises(tree: Tree) -> bool:
    """Whether it has mmpose's arrays or images, or a training person's folder."""
    names = [name for folder in ("", "annotations") for name in tree.names(folder)]
    arrays = [name for kind in source.ARRAY_FILES.values() for name in kind]
    images = [*tree.names()[:_NAMES_COMPARED], *tree.names("images")[:_NAMES_COMPARED]]
    people = (s for s in tree.folders() if re.fullmatch(r"S\d", s))
    return (
        any(name in arrays for name in names)
        or any(map(source.IMAGE_NAME.fullmatch, images))
        or any(re.fullmatch(r"Seq\d", name) for s in people for name in tree.folders(s))
    )


def inventory(tree: Tree, splits: SplitManifest, thorough: bool = False) -> Inventory:
    """Every sequence, camera by camera, with the frames that ``sources/mpi_inf_3dhp.py`` finds annotated."""
    found = Inventory(read="annotations of no sequence")
    found.notes += archives(tree, ("", "annotations", "images"))
    listed: set[str] = set()
    for part in splits.parts:
        folder = sequence_folder(part.sequence)
        try:
            chunks = source.chunks(tree.root, part.split, replace(splits, parts=(part,)))
        except ValueError as error:
            place = found.problems if tree.has(folder) else found.absent
            place.append(Problem(folder, message_of(tree, error)))
            continue
        by_camera: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            by_camera.setdefault(chunk.camera, []).append(chunk)
        if not by_camera:
            found.absent.append(Problem(f"{part.sequence} ({part.split})", "no annotation of it"))
        for camera, pieces in by_camera.items():
            line = _camera(tree, part, camera, [f for chunk in pieces for f in chunk.frames], thorough)
            if problem := _camera_problem(tree, line):
                line.blocked = f"{problem.path}: {problem.what}"
                if problem not in found.problems:
                    found.problems.append(problem)
            listed |= {image.path for image in line.images}
            found.cameras.append(line)
    found.read = f"annotations of {len({line.sequence for line in found.cameras})} sequences"
    others = sum(f"{folder}{name}" not in listed for folder, name in _images(tree))
    if others:
        found.notes.append(f"{others} images that no annotation of these splits describes")
    return found


def _camera(tree: Tree, part: Part, camera: str, frames: list[int], thorough: bool) -> CameraInventory:
    """The inventory of one camera; ``frames`` are those that the split manifest takes."""
    # The source has chosen the frames already, so a manifest that takes all of them is used here.
    every = SplitManifest("every", (whole := replace(part, split="train", start=0.0, stop=1.0),))
    name = f"{part.sequence}_" if part.sequence.startswith("TS") else f"{part.sequence}_Cam{camera}_"
    original = not part.sequence.startswith("TS") and "annot.mat" in tree.names(sequence_folder(part.sequence))

    def path(frame: int) -> str:
        if original:
            return image_file(part.sequence, camera, frame)
        file = f"{name}{frame:06d}.jpg"
        return file if tree.size(file) is not None else f"images/{file}"

    line = replace(camera_inventory(tree, whole, camera, frames, every, path, lambda _: None), split=part.split)
    video = video_file(part.sequence, camera)
    if original and tree.size(video) is not None and not tree.names(image_folder(part.sequence, camera)):
        add_video(line, tree, video, frames, max(frames, default=-1), None, thorough)
    return line


def _camera_problem(tree: Tree, line: CameraInventory) -> Problem | None:
    """Why no frame of mmpose's arrays can be converted: their camera cannot be read; None if it can."""
    if source.in_arrays(tree.root, line.sequence):
        try:
            source.read_intrinsics(tree.root, line.sequence, line.camera)
        except ValueError as error:
            return problem_of(tree, error)
    return None


def _images(tree: Tree) -> list[tuple[str, str]]:
    """(folder with a trailing slash or "", name) of the images in mmpose's form."""
    places = ("", "images/")
    return [(place, n) for place in places for n in tree.names(place.rstrip("/")) if n.lower().endswith(IMAGES)]

"""Rendering into the original layout of CMU Panoptic, MuCo-3DHP, COCO or MuPoTS-3D, with one process or several.

Every chunk writes its pictures and its part of the annotations; ``finish_layout`` joins the parts into the one file
that the data set's readers expect. Image numbers follow from the configuration, so the files do not depend on how the
chunks are distributed. MuCo's unaugmented half shows people before a green screen; here every other take does.

    panoptic  train, val, test   see panoptic_layout.py
    muco      train sequences    MuCo-3DHP.json, {unaugmented_set,augmented_set}/SEQUENCE/CAMERA_%08d.jpg
    coco      train and val      annotations/person_keypoints_{train,val}2017.json, {train,val}2017/%012d.jpg
    mupots    test sequences     MuPoTS-3D.json, MultiPersonTestSet/TS%d/img_%06d.jpg

Each has a terms.txt: rendered data is free of third-party rights.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from pipeline.infra.files import write_bytes
from pipeline.studio import coco_json, mupots_json
from pipeline.studio.cameras import StudioCamera, film_camera, photo_camera, sequence_cameras, undistorted
from pipeline.studio.config import RENDERED_TERMS, Layout, StudioChunk, StudioConfig, plan_chunks, sequence_split
from pipeline.studio.panoptic_layout import render_panoptic_chunk
from pipeline.studio.rasterize import View
from pipeline.studio.room import green_screen_room, room_density, sequence_room
from pipeline.studio.shots import Shot, shots_of_take, write_picture
from pipeline.studio.stage import plan_take

INFO = {
    "description": "Rendered people in the form of a recorded data set; these are no recordings. "
    "Free of third-party rights.",
    "contributor": "the studio of this project",
}
UNAUGMENTED, AUGMENTED = "unaugmented_set", "augmented_set"
_IMAGES = {"muco": ".", "coco": ".", "mupots": "MultiPersonTestSet"}
_PARTS = ".parts"


def layout_chunks(config: StudioConfig, layout: Layout) -> list[StudioChunk]:
    """All chunks of a layout: train sequences for muco, train and val for coco, test for mupots, all for panoptic.

    Raises:
        ValueError: the config has no sequence of these splits, or more test sequences than MuPoTS-3D's 20.
    """
    splits = {"panoptic": ("train", "val", "test"), "muco": ("train",), "coco": ("train", "val"), "mupots": ("test",)}
    chunks = plan_chunks(config, splits[layout])
    if not chunks:
        raise ValueError(f"layout {layout}: wanted {' or '.join(splits[layout])} sequences, found none in the config")
    if layout == "mupots" and len(config.test_sequences) > 20:
        raise ValueError(f"test_sequences: MuPoTS-3D has 20, found {len(config.test_sequences)}")
    return chunks


def views_per_frame(layout: Layout) -> int:
    """Number of pictures per frame: one per camera."""
    return 2 if layout in ("panoptic", "muco") else 1


def render_chunk(config: StudioConfig, layout: Layout, chunk: StudioChunk, root: Path) -> int:
    """Renders the chunk's frames into a layout under ``root``; returns the number of pictures.

    Except in panoptic, the annotations can be read only after ``finish_layout``.

    Raises:
        ValueError: as ``render_panoptic_chunk``.
    """
    if layout == "panoptic":
        return render_panoptic_chunk(config, chunk, root)
    first = _first_number(config, layout, chunk.sequence)
    images, people = [], []
    for shot in _chunk_shots(config, layout, chunk):
        number = first + views_per_frame(layout) * shot.frame + shot.view
        name = _file_name(config, layout, chunk.sequence, shot, number)
        write_picture(config, root / _IMAGES[layout] / name, shot)
        if layout == "coco":
            rng = config.rng(chunk.sequence, shot.frame // config.take_frames, 4, shot.moment)
            images.append(coco_json.image(number, Path(name).name, shot))
            people += coco_json.people(number, shot, rng)
        elif layout == "muco":
            images.append(mupots_json.muco_image(number, name, shot))
            people += mupots_json.muco_people(number, shot)
        else:
            images.append(mupots_json.mupots_image(number, name, shot))
            people += mupots_json.mupots_people(number, shot)
    write_bytes(_part(root, chunk), json.dumps({"images": images, "annotations": people}).encode())
    return len(images)


def render_layout(config: StudioConfig, root: Path, workers: int = 2, layout: Layout = "panoptic") -> int:
    """Renders a data set on this machine with ``workers`` processes; returns the number of pictures.

    Raises:
        ValueError: as ``layout_chunks``.
    """
    chunks = layout_chunks(config, layout)
    render_one = partial(render_chunk, config, layout, root=root)
    if workers <= 1:
        pictures = sum(map(render_one, chunks))
    else:
        # Not forked: a forked child hangs once the parent has used OpenCV's threads, which it does not inherit.
        context = multiprocessing.get_context("spawn")
        with context.Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            pictures = sum(pool.imap_unordered(render_one, chunks))
    finish_layout(config, layout, root)
    return pictures


def finish_layout(config: StudioConfig, layout: Layout, root: Path) -> None:
    """Joins the parts written by all chunks under ``root`` into the annotation files; people are numbered from 1.

    Also writes terms.txt: without it, readers assume the terms of the recorded data set of that layout.
    """
    write_bytes(root / "terms.txt", f"{RENDERED_TERMS}\n".encode())
    if layout == "panoptic":
        return
    by_file: dict[Path, list[dict[str, Any]]] = {}
    for chunk in layout_chunks(config, layout):
        part = json.loads(_part(root, chunk).read_bytes())
        by_file.setdefault(root / _annotation_file(layout, chunk.sequence), []).append(part)
    for path, parts in by_file.items():
        people = (person for part in parts for person in part["annotations"])
        content = {
            "info": INFO,
            **(coco_json.HEADER if layout == "coco" else mupots_json.HEADER),
            "images": [image for part in parts for image in part["images"]],
            "annotations": [{"id": i, **person} for i, person in enumerate(people, start=1)],
        }
        write_bytes(path, json.dumps(content).encode())
    shutil.rmtree(root / _PARTS)


def _chunk_shots(config: StudioConfig, layout: Layout, chunk: StudioChunk) -> Iterator[Shot]:
    sequence = chunk.sequence
    textured = sequence_room(config, sequence)
    green = green_screen_room(room_density(config)) if layout == "muco" else textured
    views: dict[tuple[bool, int], list[View]] = {}
    for first in range(chunk.first, chunk.first + chunk.count, config.take_frames):
        number = first // config.take_frames
        moments = min(config.take_frames, chunk.first + chunk.count - first)
        cut_out = layout == "muco" and _muco_set(number) == UNAUGMENTED
        room = green if cut_out else textured
        # COCO has another camera in every take. The other layouts keep theirs, so their views are computed once.
        key = (cut_out, number if layout == "coco" else 0)
        if key not in views:
            if layout == "coco":
                views.clear()
            views[key] = [
                View(config, room, camera, config.rng(sequence, 1 << 21, i))
                for i, camera in enumerate(_cameras(config, layout, sequence, number))
            ]
        take = plan_take(config, sequence, number)
        yield from shots_of_take(config, sequence, number, moments, take, room, views[key])


def _cameras(config: StudioConfig, layout: Layout, sequence: str, take: int) -> list[StudioCamera]:
    if layout == "coco":
        return [photo_camera(config, sequence, take)]
    if layout == "mupots":
        return [film_camera(config, sequence)]
    return [undistorted(camera) for camera in sequence_cameras(config, sequence)]


def _muco_set(take: int) -> str:
    return AUGMENTED if take % 2 else UNAUGMENTED


def _file_name(config: StudioConfig, layout: Layout, sequence: str, shot: Shot, number: int) -> str:
    """Path of a picture below the image folder, as in the annotations; COCO's hold its last part only."""
    if layout == "coco":
        return f"{sequence_split(sequence)}2017/{number:012d}.jpg"
    if layout == "mupots":
        return f"TS{config.test_sequences.index(sequence) + 1}/img_{shot.frame:06d}.jpg"
    return f"{_muco_set(shot.frame // config.take_frames)}/{sequence}/{shot.camera.name}_{shot.frame:08d}.jpg"


def _annotation_file(layout: Layout, sequence: str) -> str:
    if layout == "coco":
        return f"annotations/person_keypoints_{sequence_split(sequence)}2017.json"
    return "MuCo-3DHP.json" if layout == "muco" else "MuPoTS-3D.json"


def _first_number(config: StudioConfig, layout: Layout, sequence: str) -> int:
    """Number of the sequence's first picture; readers of Moon's files use it as an index into ``images``, from 0."""
    before = 1 if layout == "coco" else 0
    for other in dict.fromkeys(chunk.sequence for chunk in layout_chunks(config, layout)):
        if other == sequence:
            return before
        before += views_per_frame(layout) * config.frames(other)
    raise ValueError(f"sequence {sequence!r} is not of layout {layout}")


def _part(root: Path, chunk: StudioChunk) -> Path:
    return root / _PARTS / f"{chunk.sequence}_{chunk.first:08d}.json"

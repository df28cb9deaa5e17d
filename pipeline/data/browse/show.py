"""`das data show PREPARED`: pictures of prepared data, to check that joints are where people are.

    OUT/sheet_SPLIT.jpg     evenly spaced frames of the split: skeletons, boxes, areas to ignore
    OUT/KEY.jpg             a single frame: the same at a larger size, all people from above, and their positive
                            feature points on each pyramid level (Section 3.2)

Joints are discs, occluded ones rings. People without positives are grey, and their label gives the reason. Boxes and
skeletons are drawn as stored; positives are those of a chosen model at the test size of a chosen recipe.
"""

from __future__ import annotations

import re

import cv2
import numpy as np

from das.draw.method import assignment_tiles
from das.draw.montage import above_each_other, captioned, contact_sheet, side_by_side
from das.draw.people import TRUTH_GREY, draw_boxes, draw_ignored, draw_people, person_color
from das.draw.primitives import Color
from das.draw.top_view import top_view
from das.skeleton import skeleton_named
from pipeline.data.browse.assignment import Assignment, Preset, assign_record, preset_for
from pipeline.data.browse.config import ShowConfig
from pipeline.data.manifest import INDEX, Manifest, load_manifest
from pipeline.data.record import OCCLUDED, UNLABELLED, Record, decode_image
from pipeline.data.shards import find_records, list_shards
from pipeline.infra.columns import read_columns
from pipeline.infra.files import join, write_bytes
from pipeline.infra.images import encode_image

# Down in world coordinates, for cameras with extrinsics: the y axis of Panoptic and of the studio.
_WORLD_DOWN = np.array([0.0, 1.0, 0.0])
# Range of a single frame's width, pixels. Smaller images are enlarged, or the lines would cover their people.
_LEAST_WIDTH, _MOST_WIDTH = 800, 1200
_TILE_WIDTH = 480


def show(config: ShowConfig) -> list[str]:
    """Draws the pictures; prints and returns the names of their files.

    Raises:
        ValueError: no finished prepared folder, no such split or key in it, or an image that cannot be decoded.
    """
    manifest = load_manifest(config.prepared)
    split, keys = _chosen(config, manifest)
    found = find_records(list_shards(config.prepared, split), keys)
    records = [found[key] for key in keys]
    preset = preset_for(config.variant, config.recipe, manifest.skeletons)
    written = []
    if not config.keys:
        tiles = [captioned(overlay(r, assign_record(r, preset), _TILE_WIDTH, labels=False), r.key) for r in records]
        sheet = contact_sheet(tiles, config.columns, _TILE_WIDTH)
        written.append(_write(config, f"sheet_{split}", sheet))
    singles = records if config.keys else [records[i] for i in _even(len(records), config.single)]
    for record in singles:
        name = re.sub(r"[^A-Za-z0-9]+", "-", record.key)
        written.append(_write(config, name, frame_picture(record, preset)))
    for file in written:
        print(file)
    return written


def _chosen(config: ShowConfig, manifest: Manifest) -> tuple[str, list[str]]:
    """The split, and the keys of the frames to draw."""
    index = read_columns(join(config.prepared, INDEX), ("split", "key"))
    where = dict(zip(index["key"], index["split"], strict=True))
    if config.keys:
        if unknown := [key for key in config.keys if key not in where]:
            some = ", ".join([*where][:3])
            raise ValueError(f"keys: {config.prepared} has no {unknown[0]!r}; it has {len(where)}, such as {some}")
        splits = {where[key] for key in config.keys}
        if len(splits) > 1 or config.split not in (None, *splits):
            raise ValueError(
                f"keys are of {', '.join(sorted(splits))}, wanted keys of one split: {config.split or 'any'}"
            )
        return splits.pop(), list(config.keys)
    split: str = config.split if config.split is not None else next(iter(manifest.splits))
    keys = [key for key, its in where.items() if its == split]
    if not keys:
        raise ValueError(f"{config.prepared}: no split {split!r}, found {', '.join(manifest.splits)}")
    return split, [keys[i] for i in _even(len(keys), config.count)]


def _even(n: int, count: int) -> list[int]:
    return [int(i) for i in np.linspace(0, n - 1, min(n, count)).round()]


def _write(config: ShowConfig, name: str, picture: np.ndarray) -> str:
    file = join(config.out, f"{name}.{config.format}")
    write_bytes(file, encode_image(picture, f".{config.format}"))
    return file


def overlay(record: Record, assignment: Assignment, width: int, labels: bool = True) -> np.ndarray:
    """The stored image, ``width`` pixels wide, with its ignore areas, boxes and skeletons, and labels if wanted."""
    image, scale = _at_width(decode_image(record), width)
    skeleton = skeleton_named(record.skeleton)
    colors = _colors(assignment)
    out = draw_ignored(image, _scaled(record.bbox[record.ignore], scale))
    shown = ~record.ignore
    kept = [colors[i] for i in np.flatnonzero(shown)]
    out = draw_boxes(out, _scaled(record.bbox[shown], scale), kept)
    return draw_people(
        out,
        _scaled(record.joints_uv[shown], scale),
        skeleton,
        record.state[shown] > UNLABELLED,
        [_label(int(i), assignment) for i in np.flatnonzero(shown)] if labels else None,
        kept,
        record.state[shown] == OCCLUDED,
    )


def frame_picture(record: Record, preset: Preset) -> np.ndarray:
    """One frame: annotation, view from above where there is depth, and every level that has positives."""
    assignment = assign_record(record, preset)
    width = int(np.clip(record.width, _LEAST_WIDTH, _MOST_WIDTH))
    top = overlay(record, assignment, width)
    if record.joints_cam is not None:
        shown = ~record.ignore
        above = top_view(
            record.joints_cam[shown].astype(np.float64),
            skeleton_named(record.skeleton),
            record.state[shown] > UNLABELLED,
            K=record.K,
            image_size=(record.height, record.width),
            down=None if record.R is None else record.R @ _WORLD_DOWN,
            size=top.shape[0],
            colors=[color for color, there in zip(_colors(assignment), shown, strict=True) if there],
        )
        top = side_by_side(top, above)
    rows = [top]
    if tiles := _levels(assignment, preset):
        columns = min(3, max(2, len(tiles)))
        sheet = contact_sheet(tiles, columns, (top.shape[1] - 8 * (columns - 1)) // columns)
        rows.append(np.pad(sheet, ((0, 0), (0, top.shape[1] - sheet.shape[1]), (0, 0)), constant_values=255))
    people, assigned = int((~record.ignore).sum()), int((assignment.points > 0).sum())
    ignored = f", {len(record) - people} areas to ignore" if people < len(record) else ""
    network_size = "{1}x{0}".format(*assignment.sample.image.shape[:2])
    levels = captioned(above_each_other(*rows), f"levels and positives of {preset.name}, image at {network_size}")
    what = f"{record.split}, {record.skeleton}, {record.width}x{record.height}"
    return captioned(levels, f"{record.key} ({what}): {people} people, {assigned} with positives{ignored}")


def _levels(assignment: Assignment, preset: Preset) -> list[np.ndarray]:
    """A picture of every level that has positives, in the colours of the record's people."""
    used = [i for i, level in enumerate(assignment.positives) if len(level.person)]
    levels = [assignment.positives[i] for i in used]
    return assignment_tiles(
        assignment.sample.image,
        [preset.model.strides[i] for i in used],
        [level.points.numpy() for level in levels],
        [assignment.people[level.person.numpy()] for level in levels],
        [level.centerness.numpy() for level in levels],
        assignment.sample.joints_uv,
        assignment.sample.skeleton,
        assignment.sample.visible,
    )


def _colors(assignment: Assignment) -> list[Color]:
    """A hue for each person of the record with positives, grey for the others."""
    return [TRUTH_GREY if reason else person_color(i) for i, reason in enumerate(assignment.reasons)]


def _label(person: int, assignment: Assignment) -> str:
    """The person's level and number of positives, or the reason why there are none."""
    if assignment.reasons[person]:
        return f"{person}: {assignment.reasons[person]}"
    at = int(np.flatnonzero(assignment.people == person)[0])
    return f"{person}: level {assignment.level[at]}, {assignment.points[at]} points"


def _at_width(image: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The image at another width, and (2,) the factors on u and v."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    scale = np.array([width / image.shape[1], height / image.shape[0]])
    return cv2.resize(image, (width, height), interpolation=method), scale


def _scaled(points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) or boxes (..., 4) of an image, in pixels of the resized image."""
    # Integer coordinates are pixel centers, so the image begins at -0.5; without the shift points move by half a pixel.
    factors = np.resize(scale, points.shape[-1])
    return (points.astype(np.float64) + 0.5) * factors - 0.5

"""Poses as tables, CSV and Parquet: a row for each joint of each person on each photo or frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.infra.columns import growing_columns
from pipeline.infra.files import staged
from pipeline.predict.own_files import AUTHOR

# Name -> type and meaning.
COLUMNS: dict[str, tuple[type, str]] = {
    "file": (str, "name of the photo or video"),
    "frame": (int, "number of the frame from 0; 0 for a photo"),
    "time_ms": (float, "time of the frame, ms; empty for a photo"),
    "person": (int, "number of the person on the frame from 0, by falling score"),
    "score": (float, "center confidence x centerness, 0 to 1"),
    "joint": (str, "name of the joint"),
    "x_mm": (float, "camera frame, to the right, mm"),
    "y_mm": (float, "camera frame, down, mm"),
    "z_mm": (float, "camera frame, forward, mm"),
    "u_px": (float, "pixel column, 0 is the middle of the first"),
    "v_px": (float, "pixel row, 0 is the middle of the first"),
    "root_z_mm": (float, "depth of the person's root, mm"),
    "camera_source": (str, "how the camera is known: given, exif or assumed"),
    "focal_px": (float, "focal length that all mm are proportional to, pixels"),
}

Rows = Callable[[Iterable[Sequence[Any]]], None]


def rows_of(value: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """The rows of one photo or frame, from its JSON object; none without people."""
    file = value.get("photo", value.get("video"))
    camera = value["camera"]["source"], value["camera"]["focal_px"]
    for i, person in enumerate(value["people"]):
        about = file, value.get("frame", 0), value.get("time_ms"), i, person["score"]
        joints = zip(value["joint_names"], person["joints_cam"], person["joints_uv"], strict=True)
        for joint, cam, uv in joints:
            yield (*about, joint, *cam, *(round(x, 2) for x in uv), person["root_cam"][2], *camera)


@contextmanager
def growing_csv(path: Path) -> Iterator[Rows]:
    """A block in which rows come one after another; UTF-8, with a line of names, whole or not at all."""
    with staged(path) as (filesystem, hidden), filesystem.open_output_stream(hidden) as stream:
        with io.TextIOWrapper(stream, encoding="utf-8", newline="") as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(COLUMNS)
            yield writer.writerows


@contextmanager
def growing_parquet(path: Path) -> Iterator[Rows]:
    """The same as Parquet; the meaning of the columns is in its metadata, under ``about``."""
    about = {"written_by": AUTHOR, "columns": {name: meaning for name, (_, meaning) in COLUMNS.items()}}
    with growing_columns(path, {name: kind for name, (kind, _) in COLUMNS.items()}, about) as add:
        yield add

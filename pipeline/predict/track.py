"""`das track`: who is who in a predicted video, and smooth motion, from the frames that `das predict` stored.

Writes for each NAME.jsonl a table NAME_tracks.csv, a row for each joint of each person in each frame, bridged frames
among them, and NAME_track1.bvh, NAME_track2.bvh, ..., a motion for animation programs for each person.
"""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from das.fields import check_values
from das.skeleton import Skeleton
from das.tracks import Detections, Track, TrackConfig, track
from pipeline.predict.own_files import check_folder, is_own, refuse_foreign, writing

COLUMNS = (
    "track",
    "frame",
    "time_ms",
    "person",
    "joint",
    "x_mm",
    "y_mm",
    "z_mm",
    "sigma_mm",
)
"""Of the table; person is the number of the person in the frame's line, empty where the track bridges a gap."""


@dataclass(frozen=True)
class TracksConfig:
    """Stored videos, and how people are followed."""

    results: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="NAME.jsonl [NAME.jsonl ...]", help_behavior_hint="(required)"),
    ]
    """NAME.jsonl files that `das predict` wrote, one for each video or stream."""
    out: str = "tracks"
    """Folder for the tables and motions."""
    bvh: bool = True
    """Also write a motion for each track."""
    max_gap: float = TrackConfig.max_gap
    """Seconds that a person is carried on without being seen."""
    least_frames: int = TrackConfig.least_frames
    """Frames in which a person must be seen to have a track."""

    def __post_init__(self) -> None:
        check_values(
            self,
            ("results", len(self.results) > 0, "at least one NAME.jsonl that `das predict` wrote"),
            ("max_gap", self.max_gap > 0, "above 0 seconds"),
            ("least_frames", self.least_frames >= 1, "at least 1"),
        )


@dataclass(frozen=True)
class StoredVideo:
    """What a .jsonl holds: the joint set of its valid joints, and every frame's number and people."""

    skeleton: Skeleton
    numbers: list[int]
    people: list[Detections]


def track_videos(config: TracksConfig) -> None:
    """Runs `das track`; prints a line per video.

    Raises:
        ValueError: a file is missing, was not written by `das predict`, is damaged (names the line), or an output
            cannot be written or was not written by this program. All files are read before the first is written.
    """
    from das.bvh import bvh  # here: it imports scipy, which `--help` does not wait for

    out, files = Path(config.out), [Path(name) for name in config.results]
    names = [file.stem for file in files]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name}.jsonl is given twice, wanted each name once: its results would be replaced")
    check_folder(out)
    followed = {file: read_video(file) for file in files}
    settings = TrackConfig(config.max_gap, config.least_frames)
    found = {}
    for file, video in followed.items():
        try:
            found[file] = track(video.people, settings)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    tables = {file: out / f"{file.stem}_tracks.csv" for file in files}
    refuse_foreign([*tables.values(), *(p for f in files for p in _motions(out, f.stem, len(found[f])) if config.bvh)])
    out.mkdir(parents=True, exist_ok=True)
    for file in files if config.bvh else ():
        for old in set(out.glob(f"{glob.escape(file.stem)}_track*.bvh")) - {
            *_motions(out, file.stem, len(found[file]))
        }:
            if is_own(old):  # of an earlier run with more tracks
                old.unlink()
    for file, video in followed.items():
        tracks = found[file]
        with writing(tables[file]):
            tables[file].write_text(_table(video, tracks))
        if config.bvh:
            times = np.array([frame.time for frame in video.people])
            seconds = float(np.diff(times).mean()) if len(times) > 1 else 1.0
            for path, one in zip(_motions(out, file.stem, len(tracks)), tracks, strict=True):
                with writing(path):
                    path.write_text(bvh(one.joints_cam, video.skeleton, [True] * len(video.skeleton), seconds))
        people = sum(map(len, video.people))
        inside = sum(int(one.measured.sum()) for one in tracks)
        bridged = sum(int((~one.measured).sum()) for one in tracks)
        print(
            f"{file}: {len(video.people)} frames, {len(tracks)} tracks of {inside} of {people} people, "
            f"{bridged} bridged: {tables[file]}"
        )


def read_video(file: Path) -> StoredVideo:
    """The frames of a .jsonl that `das predict` wrote for a video; ValueError as ``track_videos``."""
    if not file.exists():
        raise ValueError(f"{file}: no such file")
    if file.suffix != ".jsonl" or not is_own(file):
        raise ValueError(f"{file}: not written by `das predict` for a video, wanted its NAME.jsonl")
    numbers, people, skeleton = [], [], None
    with file.open() as lines:
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
                if skeleton is None:
                    bones = tuple((a, b) for a, b in value["bones"])
                    skeleton = Skeleton("predicted", tuple(value["joint_names"]), bones, tuple(value["root"]))
                numbers.append(value["frame"])
                people.append(_detections(value, len(skeleton)))
            except KeyError as error:
                raise ValueError(f"{file}: line {number}: no {error} in it; predict again with this version") from error
            except (ValueError, TypeError, RecursionError) as error:
                raise ValueError(f"{file}: line {number}: {error}") from error
    if skeleton is None:
        raise ValueError(f"{file} has no frame")
    return StoredVideo(skeleton, numbers, people)


def _detections(value: Mapping[str, Any], joints: int) -> Detections:
    people = value["people"]
    root = np.array([p["root_cam"] for p in people], np.float64).reshape(-1, 3)
    cam = np.array([p["joints_cam"] for p in people], np.float64).reshape(-1, joints, 3)
    known = bool(people) and people[0]["p90_mm"] is not None
    joint_p90 = np.array([[_radius(r) for r in p["p90_mm"]] for p in people]) if known else None
    root_p90 = np.array([_radius(p["root_p90_mm"]) for p in people]) if known else None
    return Detections.of(value["time_ms"] / 1000, root, cam, root_p90, joint_p90)


def _radius(value: float | None) -> float:
    return np.inf if value is None else value


def _motions(out: Path, name: str, tracks: int) -> list[Path]:
    return [out / f"{name}_track{n}.bvh" for n in range(1, tracks + 1)]


def _table(video: StoredVideo, tracks: Sequence[Track]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, one in enumerate(tracks, 1):
        for frame, person, joints, sigma, root_sigma in zip(
            one.frames, one.person, one.joints_cam, one.joint_sigma, one.root_sigma, strict=True
        ):
            # A joint's place is the root's plus its own relative to it; sigma is the mean of the axes.
            doubt = np.sqrt(sigma**2 + (root_sigma**2).mean())
            about = (
                number,
                video.numbers[frame],
                round(video.people[frame].time * 1000, 3),
                person if person >= 0 else "",
            )
            for name, place, spread in zip(video.skeleton.joints, joints.round(3), doubt.round(1), strict=True):
                writer.writerow([*about, name, *place.tolist(), float(spread)])
    return text.getvalue()

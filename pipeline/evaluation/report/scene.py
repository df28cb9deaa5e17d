"""What the interactive 3D view shows: every chosen frame's people, found and true, in one upright space.

Positions are metres, with the camera at the origin: x right, y down along gravity, z forward. The script that draws
them is templates/scene.js.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from das.camera import back_project
from das.draw.people import person_color
from das.draw.top_view import level_axes
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.frame_choice import WORLD_DOWN, frame_errors, look_at
from pipeline.evaluation.predictions_file import Origin
from pipeline.evaluation.score import Sheet


def scene_of(frames: Mapping[str, int], annotations: Annotations, sheet: Sheet, origin: Origin) -> dict[str, Any]:
    """Plain values for the script.

    Args:
        frames: name of the frame's picture -> frame, see ``chosen_frames``.
        annotations: the images.
        sheet: their scores.
        origin: joint set and the joints that mean nothing.
    """
    skeleton = origin.skeleton
    taught = np.array([joint not in origin.unsupervised_joints for joint in skeleton.joints])
    errors = frame_errors(sheet, len(annotations.records))
    shown = []
    for name, at in frames.items():
        record, here = annotations.records[at], look_at(sheet, at)
        axes = level_axes(None if record.R is None else record.R @ WORLD_DOWN)
        people = [
            {
                "joints": _joints(sheet.people.joints_cam[row], taught, axes),
                "color": "#{:02x}{:02x}{:02x}".format(*person_color(i)),
                "score": round(float(sheet.people.scores[row]), 3),
                "truth": int(match) if match >= 0 else None,
                "error": None if np.isnan(error) else round(float(error), 1),
            }
            for i, (row, match, error) in enumerate(zip(here.people, here.match, here.errors, strict=True))
        ]
        # A root joint has no error of its own to be scored, and yet it is where it is.
        known = sheet.truth.scored[here.truth]
        truth = [_joints(sheet.truth.joints_cam[row], ok, axes) for row, ok in zip(here.truth, known, strict=True)]
        view = None if record.K is None else _view(record.K, record.height, record.width, axes)
        shown.append(
            {"picture": name, "key": record.key, "error": round(float(errors[at]), 1), "people": people}
            | {"truth": truth, "view": view}
        )
    return {"bones": skeleton.bone_indices, "root": list(skeleton.root_indices), "frames": shown}


def _joints(joints_cam: np.ndarray, valid: np.ndarray, axes: np.ndarray) -> list[list[float] | None]:
    """Metres in the upright space, to the millimetre; None where a joint is not to be shown."""
    level = np.round(joints_cam @ axes.T / 1000, 3)
    shown = valid & np.isfinite(level).all(axis=1)
    return [point if ok else None for point, ok in zip(level.tolist(), shown, strict=True)]


def _view(K: np.ndarray, height: int, width: int, axes: np.ndarray) -> list[list[float]]:
    """Where the image's four corners lie half a metre in front of the camera; the lens is left out."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - 0.5
    rays = back_project(corners, np.full(4, 500.0), np.asarray(K, float))
    points: list[list[float]] = np.round(rays @ axes.T / 1000, 3).tolist()
    return points

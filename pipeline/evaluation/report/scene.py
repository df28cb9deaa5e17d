"""Data of the interactive 3D view: predicted and annotated people of every chosen frame, in one upright space.

Positions are metres, with the camera at the provenance: x right, y down along gravity, z forward. The script that draws
them is templates/scene.js.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from das.camera import back_project
from das.draw.people import person_color
from das.draw.top_view import level_axes
from pipeline.evaluation.frame_choice import WORLD_DOWN, frame_errors, people_on_frame
from pipeline.evaluation.scored import Scored


def scene_of(frames: Mapping[str, int], scored: Scored) -> dict[str, Any]:
    """JSON values for the script.

    Args:
        frames: name of the frame's picture -> index of the frame in ``scored``.
        scored: the frames with their ground truth and predictions.
    """
    skeleton = scored.skeleton
    supervised = np.array([joint not in scored.provenance.unsupervised_joints for joint in skeleton.joints])
    errors = frame_errors(scored)
    shown = []
    for name, at in frames.items():
        record, here = scored.records[at], people_on_frame(scored, at)
        axes = level_axes(None if record.R is None else record.R @ WORLD_DOWN)
        people = [
            {
                "joints": _joints(scored.people.joints_cam[row], supervised, axes),
                "color": "#{:02x}{:02x}{:02x}".format(*person_color(i)),
                "score": round(float(scored.people.scores[row]), 3),
                "truth": int(match) if match >= 0 else None,
                "error": None if np.isnan(error) else round(float(error), 1),
            }
            for i, (row, match, error) in enumerate(zip(here.people, here.match, here.errors, strict=True))
        ]
        # truth.scored, not strict.scored: a root joint has a position but no root-aligned error.
        known = scored.truth.scored[here.truth]
        truth = [_joints(scored.truth.joints_cam[row], ok, axes) for row, ok in zip(here.truth, known, strict=True)]
        view = None if record.K is None else _view(record.K, record.height, record.width, axes)
        shown.append(
            {"picture": name, "key": record.key, "error": round(float(errors[at]), 1), "people": people}
            | {"truth": truth, "view": view}
        )
    return {"bones": skeleton.bone_indices, "root": list(skeleton.root_indices), "frames": shown}


def _joints(joints_cam: np.ndarray, valid: np.ndarray, axes: np.ndarray) -> list[list[float] | None]:
    """Joints in metres in the upright space, rounded to the millimetre; None for joints that are not shown."""
    level = np.round(joints_cam @ axes.T / 1000, 3)
    shown = valid & np.isfinite(level).all(axis=1)
    return [point if ok else None for point, ok in zip(level.tolist(), shown, strict=True)]


def _view(K: np.ndarray, height: int, width: int, axes: np.ndarray) -> list[list[float]]:
    """The image's four corners 500 mm in front of the camera, without lens distortion; (4, 3) metres."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - 0.5
    rays = back_project(corners, np.full(4, 500.0), np.asarray(K, float))
    points: list[list[float]] = np.round(rays @ axes.T / 1000, 3).tolist()
    return points

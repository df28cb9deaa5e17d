"""Data of the report's 3D view (``infra.html.scene``): predicted and annotated people of every chosen frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from das.draw.top_view import level_axes
from pipeline.evaluation.frame_choice import WORLD_DOWN, frame_errors, people_on_frame
from pipeline.evaluation.scored import Scored
from pipeline.infra.html.scene import scene_skeleton, upright_joints, view_corners


def scene_of(frames: Mapping[str, int], scored: Scored) -> dict[str, Any]:
    """JSON values for the script.

    Args:
        frames: name of the frame's picture -> index of the frame in ``scored``.
        scored: the frames with their ground truth and predictions.
    """
    skeleton = scored.skeleton
    supervised = np.array([joint not in scored.provenance.unsupervised_joints for joint in skeleton.joints])
    errors = frame_errors(scored)
    shown, most = [], 0
    for name, at in frames.items():
        record, here = scored.records[at], people_on_frame(scored, at)
        axes = level_axes(None if record.R is None else record.R @ WORLD_DOWN)
        people = [
            {
                "joints": upright_joints(scored.people.joints_cam[row], supervised, axes),
                "score": round(float(scored.people.scores[row]), 3),
                "truth": int(match) if match >= 0 else None,
                "error": None if np.isnan(error) else round(float(error), 1),
            }
            for row, match, error in zip(here.people, here.match, here.errors, strict=True)
        ]
        most = max(most, len(people))
        # truth.scored, not strict.scored: a root joint has a position but no root-aligned error.
        known = scored.truth.scored[here.truth]
        truth = [
            upright_joints(scored.truth.joints_cam[row], ok, axes) for row, ok in zip(here.truth, known, strict=True)
        ]
        view = None if record.K is None else view_corners(record.K, record.height, record.width, axes)
        shown.append(
            {"picture": name, "key": record.key, "error": round(float(errors[at]), 1), "people": people}
            | {"truth": truth, "view": view}
        )
    return {**scene_skeleton(skeleton, most), "frames": shown}

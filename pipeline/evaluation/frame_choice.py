"""The frames that an evaluation shows, and the people on them, for the pictures and the 3D view."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.scored import Scored

# World axis that points down, for Panoptic and the studio's renderings: y.
WORLD_DOWN = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class FramePeople:
    """The predicted and the annotated people of one frame, and which of them the strict protocol pairs.

    Attributes:
        people: (n,) rows of the results's predictions, best score first.
        truth: (m,) rows of the results's truth with joints that are scored.
        match: (n,) index into ``truth`` of the person that each prediction was given, or -1.
        errors: (n,) mm, mean root-aligned joint error of each matched prediction, NaN for the others.
    """

    people: np.ndarray
    truth: np.ndarray
    match: np.ndarray
    errors: np.ndarray


def frame_errors(scored: Scored) -> np.ndarray:
    """Mean joint error of each frame's people, (F,) mm, never NaN; a missed person has the error of the mean pose.

    Predictions of other groups come without a mean pose: a missed person then has the error of a single point, the
    mean of the person's scored joints.
    """
    result, frame, frames = scored.strict, scored.truth.frame, len(scored.records)
    joints = result.scored  # (T, J), all False for people who do not count
    missed = result.baseline_errors
    missed = np.where(np.isnan(missed), _errors_of_a_point(scored.truth.joints_cam, joints), missed)
    errors = np.where(result.found[:, None], result.errors, missed)
    sums = np.bincount(frame, np.where(joints, errors, 0.0).sum(axis=1), minlength=frames)
    return sums / np.maximum(np.bincount(frame, joints.sum(axis=1), minlength=frames), 1)


def _errors_of_a_point(joints_cam: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Distances (T, J) mm of joints (T, J, 3) from the mean of the person's scored joints."""
    here = np.where(scored[..., None], joints_cam, 0.0)
    middle = here.sum(axis=1) / np.maximum(scored.sum(axis=1), 1)[:, None]
    return np.linalg.norm(here - middle[:, None], axis=-1)


def chosen_frames(errors: np.ndarray, keys: np.ndarray, spread: int, worst: int) -> dict[str, int]:
    """Picture's file name -> index of the frame: ``spread`` evenly spread ones and the ``worst`` ones, worst first.

    Args:
        errors: (F,) from ``frame_errors``.
        keys: (F,) texts, of the frames.
        spread: how many of either kind,
        worst: at most.
    """
    even = np.linspace(0, len(errors) - 1, min(spread, len(errors)), dtype=int)
    chosen = {f"spread_{i:02d}": int(at) for i, at in enumerate(even)}
    ranked = [at for at in np.argsort(-errors, kind="stable")[:worst] if errors[at] > 0]
    chosen |= {f"worst_{i:02d}": int(at) for i, at in enumerate(ranked)}
    return {f"{name}_{re.sub(r'[^A-Za-z0-9]+', '-', keys[at])}.jpg": at for name, at in chosen.items()}


def people_on_frame(scored: Scored, frame: int) -> FramePeople:
    """The people of one frame, by the index of its record."""
    result = scored.strict
    truth = np.flatnonzero((scored.truth.frame == frame) & result.scored.any(axis=1))
    people = np.flatnonzero(scored.people.frame == frame)
    joints = result.scored[truth]
    means = np.where(joints, result.errors[truth], 0.0).sum(axis=1) / np.maximum(joints.sum(axis=1), 1)
    place = {row: i for i, row in enumerate(result.match[truth].tolist()) if row >= 0}
    match = np.array([place.get(row, -1) for row in people.tolist()], dtype=np.int64)
    errors = np.where(match >= 0, means[match] if len(means) else np.nan, np.nan)
    return FramePeople(people, truth, match, errors)

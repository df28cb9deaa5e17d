"""The frames of an evaluation that people look at, and who is on them: for pictures and the 3D view alike."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.score import Sheet

# Panoptic's world, and the studio's: y points down.
WORLD_DOWN = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class Frame:
    """Who is on one frame, found and true.

    Attributes:
        people: (n,) rows of the sheet's predictions, best score first.
        truth: (m,) rows of the sheet's truth with joints that are scored.
        match: (n,) index into ``truth`` of the person that each prediction was given, or -1.
        errors: (n,) mm, mean root-aligned joint error of each matched prediction, NaN for the others.
    """

    people: np.ndarray
    truth: np.ndarray
    match: np.ndarray
    errors: np.ndarray


def frame_errors(sheet: Sheet, frames: int) -> np.ndarray:
    """Mean joint error of each frame's people, (F,) mm, never NaN; a missed person costs what the mean pose would cost.

    Where nobody knows a mean pose (other groups' predictions), it costs what a point in the person's middle would.
    """
    result = sheet.strict
    scored = result.scored  # nobody who does not count has a scored joint
    missed = result.baseline_errors
    missed = np.where(np.isnan(missed), _errors_of_a_point(sheet.truth.joints_cam, scored), missed)
    errors = np.where(result.found[:, None], result.errors, missed)
    sums = np.bincount(sheet.truth.frame, np.where(scored, errors, 0.0).sum(axis=1), minlength=frames)
    return sums / np.maximum(np.bincount(sheet.truth.frame, scored.sum(axis=1), minlength=frames), 1)


def _errors_of_a_point(joints_cam: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Distances (T, J) mm of joints (T, J, 3) from the mean of their person's scored ones."""
    here = np.where(scored[..., None], joints_cam, 0.0)
    middle = here.sum(axis=1) / np.maximum(scored.sum(axis=1), 1)[:, None]
    return np.linalg.norm(here - middle[:, None], axis=-1)


def chosen_frames(annotations: Annotations, sheet: Sheet, spread: int, worst: int) -> dict[str, int]:
    """Picture's file name -> frame: ``spread`` evenly spread frames and the ``worst`` ones, worst first."""
    errors = frame_errors(sheet, len(annotations.records))
    even = np.linspace(0, len(errors) - 1, min(spread, len(errors)), dtype=int)
    chosen = {f"spread_{i:02d}": int(at) for i, at in enumerate(even)}
    ranked = [at for at in np.argsort(-errors, kind="stable")[:worst] if errors[at] > 0]
    chosen |= {f"worst_{i:02d}": int(at) for i, at in enumerate(ranked)}
    keys = annotations.keys
    return {f"{name}_{re.sub(r'[^A-Za-z0-9]+', '-', keys[at])}.jpg": at for name, at in chosen.items()}


def look_at(sheet: Sheet, frame: int) -> Frame:
    """The people of one frame."""
    result = sheet.strict
    truth = np.flatnonzero((sheet.truth.frame == frame) & result.scored.any(axis=1))
    people = np.flatnonzero(sheet.people.frame == frame)
    scored = result.scored[truth]
    means = np.where(scored, result.errors[truth], 0.0).sum(axis=1) / np.maximum(scored.sum(axis=1), 1)
    place = {row: i for i, row in enumerate(result.match[truth].tolist()) if row >= 0}
    match = np.array([place.get(row, -1) for row in people.tolist()], dtype=np.int64)
    errors = np.where(match >= 0, means[match] if len(means) else np.nan, np.nan)
    return Frame(people, truth, match, errors)

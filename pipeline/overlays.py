"""Pictures for an evaluation: frames spread evenly over the data, and those that went worst.

Each shows the photo with the skeletons of the people found, ground truth in grey, and the same people from above.
Labels are score and root-aligned error; a person without an error was nobody's.
"""

from __future__ import annotations

import re

import numpy as np

from das.visualize import panel
from pipeline.annotations import Annotations
from pipeline.predict import encode_image
from pipeline.predictions import Origin
from pipeline.schema import Record, decode_image
from pipeline.scoring import Sheet
from pipeline.storage import find_records

# Panoptic's world, and the studio's: y points down.
_WORLD_DOWN = np.array([0.0, 1.0, 0.0])


def overlays(annotations: Annotations, sheet: Sheet, origin: Origin, spread: int, worst: int) -> dict[str, bytes]:
    """JPEG pictures by file name: ``spread`` evenly spread frames and the ``worst`` ones, worst first."""
    errors = frame_errors(sheet, len(annotations.records))
    even = np.linspace(0, len(errors) - 1, min(spread, len(errors)), dtype=int)
    chosen = {f"spread_{i:02d}": at for i, at in enumerate(even)}
    ranked = [at for at in np.argsort(-errors, kind="stable")[:worst] if errors[at] > 0]
    chosen |= {f"worst_{i:02d}": at for i, at in enumerate(ranked)}
    keys = annotations.keys
    records = find_records(annotations.shards, {keys[at] for at in chosen.values()})
    return {
        f"{name}_{re.sub(r'[^A-Za-z0-9]+', '-', keys[at])}.jpg": encode_image(
            draw(records[keys[at]], int(at), sheet, origin), ".jpg"
        )
        for name, at in chosen.items()
    }


def frame_errors(sheet: Sheet, frames: int) -> np.ndarray:
    """Mean joint error of each frame's people, (F,) mm; a missed person costs what the mean pose would cost."""
    result = sheet.strict
    errors = np.where(result.found[:, None], result.errors, result.baseline_errors)
    scored = result.scored  # nobody who does not count has a scored joint
    sums = np.bincount(sheet.truth.frame, np.where(scored, errors, 0.0).sum(axis=1), minlength=frames)
    return sums / np.maximum(np.bincount(sheet.truth.frame, scored.sum(axis=1), minlength=frames), 1)


def draw(record: Record, frame: int, sheet: Sheet, origin: Origin) -> np.ndarray:
    """The picture of one frame, uint8 RGB; ``record`` with its image."""
    result, truth, people = sheet.strict, sheet.truth, sheet.people
    there = (truth.frame == frame) & (result.scored.any(axis=1))
    rows = np.flatnonzero(people.frame == frame)
    scored = result.scored[there]
    errors = np.where(scored, result.errors[there], 0.0).sum(axis=1) / np.maximum(scored.sum(axis=1), 1)
    of = dict(zip(result.match[there].tolist(), errors.tolist(), strict=True))
    labels = [f"{people.scores[i]:.2f}" + (f"  {of[i]:.0f} mm" if i in of else "") for i in rows.tolist()]
    assert truth.joints_uv is not None and people.joints_uv is not None
    return panel(
        decode_image(record),
        people.joints_uv[rows],
        people.joints_cam[rows],
        origin.skeleton,
        valid=np.array([joint not in origin.unsupervised_joints for joint in origin.skeleton.joints]),
        labels=labels,
        truth_uv=truth.joints_uv[there],
        truth_cam=truth.joints_cam[there],
        truth_valid=truth.scored[there],
        K=record.K,
        down=None if record.R is None else record.R @ _WORLD_DOWN,
    )

"""Pictures for an evaluation: frames spread evenly over the data, and those with the largest error.

Each shows the photo with the predicted skeletons, ground truth in grey, and the same people from above. Labels are
score and root-aligned error; a false positive has no error.
"""

from __future__ import annotations

import numpy as np

from das.draw.top_view import panel
from pipeline.data.record import Record, decode_image
from pipeline.data.shards import find_records
from pipeline.evaluation.frame_choice import WORLD_DOWN, chosen_frames, people_on_frame
from pipeline.evaluation.score import ProtocolResults
from pipeline.evaluation.scored import Scored
from pipeline.infra.images import encode_image


def overlays(results: ProtocolResults, spread: int, worst: int) -> dict[str, bytes]:
    """JPEG pictures by file name: ``spread`` evenly spread frames and the ``worst`` ones, worst first."""
    keys = results.annotations.keys
    chosen = chosen_frames(results.errors, keys, spread, worst)
    if not chosen:
        return {}
    places = sorted({*chosen.values()})
    scored, records = results.scored(places), find_records(results.annotations.shards, {keys[at] for at in places})
    return {
        name: encode_image(draw(records[keys[at]], places.index(at), scored), ".jpg") for name, at in chosen.items()
    }


def draw(record: Record, frame: int, scored: Scored) -> np.ndarray:
    """The picture of one frame, uint8 RGB; ``record`` with its image."""
    truth, people, here = scored.truth, scored.people, people_on_frame(scored, frame)
    found = zip(people.scores[here.people], here.errors, strict=True)
    labels = [f"{score:.2f}" + ("" if np.isnan(error) else f"  {error:.0f} mm") for score, error in found]
    assert truth.joints_uv is not None and people.joints_uv is not None
    return panel(
        decode_image(record),
        people.joints_uv[here.people],
        people.joints_cam[here.people],
        scored.skeleton,
        valid=np.array([joint not in scored.provenance.unsupervised_joints for joint in scored.skeleton.joints]),
        labels=labels,
        truth_uv=truth.joints_uv[here.truth],
        truth_cam=truth.joints_cam[here.truth],
        truth_valid=truth.scored[here.truth],
        K=record.K,
        down=None if record.R is None else record.R @ WORLD_DOWN,
    )

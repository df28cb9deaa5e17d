"""From rows and predictions to the tables that the protocols of das/ score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from das.metrics import Predictions, Truth
from das.predictor import Prediction
from das.skeleton import Skeleton, conversion, skeleton_named
from das.transforms import inside
from pipeline.schema import Record


def strict_truth(records: Sequence[Record], skeleton: Skeleton) -> Truth:
    """People of images in the joints that the model predicts, for the strict protocol; frame i is records[i].

    Scored are labelled joints (occluded ones included) inside the image, what training supervises. People without
    joints or that the source does not stand behind are ignored: neither to be found nor to be punished.

    Raises:
        ValueError: if an image has no 3D joints; names its key.
    """
    frame, cam, uv, scored, bbox, ignore = [], [], [], [], [], []
    for i, record in enumerate(records):
        if record.joints_cam is None:
            raise ValueError(f"{record.key}: 2D annotations only, the strict protocol needs joints_cam")
        index = np.array(conversion(skeleton_named(record.skeleton), skeleton).index)
        labelled = (record.state > 0) & inside(record.joints_uv, record.height, record.width)
        frame.append(np.full(len(record), i))
        cam.append(record.joints_cam[:, index])
        uv.append(record.joints_uv[:, index])
        scored.append(labelled[:, index] & (index >= 0))
        bbox.append(record.bbox)
        ignore.append(record.ignore | ~record.valid)
    return Truth(
        frame=_rows(frame, ()),
        joints_cam=_rows(cam, (len(skeleton), 3)),
        scored=_rows(scored, (len(skeleton),)),
        joints_uv=_rows(uv, (len(skeleton), 2)),
        bbox=_rows(bbox, (4,)),
        ignore=_rows(ignore, ()),
    )


def predicted(predictions: Iterable[Prediction], n_joints: int) -> Predictions:
    """People predicted on images, one Prediction per image; frame i is the i-th."""
    people = [p.people for p in predictions]
    return Predictions(
        frame=_rows([np.full(len(p.scores), i) for i, p in enumerate(people)], ()),
        joints_cam=_rows([p.joints_cam for p in people], (n_joints, 3)),
        scores=_rows([p.scores for p in people], ()),
        joints_uv=_rows([p.joints_uv for p in people], (n_joints, 2)),
    )


def _rows(parts: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros((0, *shape))

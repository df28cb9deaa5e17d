"""COCO's keypoint evaluation for joints in the image: average precision by object keypoint similarity (OKS).

Computed by pycocotools, the evaluator of the benchmark itself, on tables instead of files. A model with another joint
set than COCO17 is scored on the joints they share, and the result is not COCO's AP.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from das.metrics.tables import Predictions, Truth, required

# The evaluator's summary, in its order; AP over OKS 0.50:0.05:0.95, at most 20 people an image.
NUMBERS = ("ap", "ap_50", "ap_75", "ap_medium", "ap_large", "ar", "ar_50", "ar_75", "ar_medium", "ar_large")


def oks_average_precision(
    truth: Truth, predictions: Predictions, area: np.ndarray, sigmas: np.ndarray, frames: int
) -> dict[str, float]:
    """COCO's ten numbers, fractions 0 to 1 by ``NUMBERS``; NaN without people to be found.

    Args:
        truth: people with joints_uv and bbox; ``scored`` marks labelled joints, ``ignore`` crowds. People without a
            labelled joint are left out, as in COCO.
        predictions: people with joints_uv and scores.
        area: (T,) px^2 of each person's segment.
        sigmas: (J,) spreads of the joints.
        frames: F, the number of images; those without people or predictions count too.
    """
    truth_uv = required(truth.joints_uv, "Truth.joints_uv")
    bbox = required(truth.bbox, "Truth.bbox")
    predicted_uv = required(predictions.joints_uv, "Predictions.joints_uv")
    ignore = np.zeros(len(truth), bool) if truth.ignore is None else truth.ignore
    if not (truth.scored.any(axis=1) & ~ignore).any():
        return dict.fromkeys(NUMBERS, float("nan"))
    if not len(predictions):
        return dict.fromkeys(NUMBERS, 0.0)

    people = [
        {
            "id": i + 1,
            "image_id": int(truth.frame[i]),
            "category_id": 1,
            "iscrowd": int(ignore[i]),
            "area": float(area[i]),
            "bbox": [*bbox[i, :2].tolist(), *(bbox[i, 2:] - bbox[i, :2]).tolist()],
            "keypoints": _keypoints(truth_uv[i], 2.0 * truth.scored[i]),
            "num_keypoints": int(truth.scored[i].sum()),
        }
        for i in range(len(truth))
    ]
    found = [
        {
            "image_id": int(predictions.frame[i]),
            "category_id": 1,
            "score": float(predictions.scores[i]),
            "keypoints": _keypoints(predicted_uv[i], np.ones(len(sigmas))),
        }
        for i in range(len(predictions))
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(frames)],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": people,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, dtype=np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # It returns -1 where no person has that size.
    return {name: float("nan") if x < 0 else float(x) for name, x in zip(NUMBERS, evaluation.stats, strict=True)}


def _keypoints(uv: np.ndarray, visible: np.ndarray) -> list[float]:
    flat: list[float] = np.concatenate([uv, visible[:, None]], axis=1).ravel().tolist()
    return flat

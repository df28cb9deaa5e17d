"""COCO's keypoint evaluation for joints in the image: average precision by object keypoint similarity (OKS).

Computed by pycocotools, the evaluator of the benchmark itself, on tables instead of files. A model with another joint
set than COCO17 is scored on the joints they share, and the result is not COCO's AP.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from das.metrics.tables import Predictions, Truth, required

# The evaluator's summary, in its order; AP over OKS 0.50:0.05:0.95, at most 20 people an image.
NUMBERS = ("ap", "ap_50", "ap_75", "ap_medium", "ap_large", "ar", "ar_50", "ar_75", "ar_medium", "ar_large")


@dataclass(frozen=True)
class OksMatches:
    """Which candidates are right, by pycocotools; those of all images are those of parts, one after another.

    Axes A and S are the evaluator's three sizes of people and ten similarities.

    Attributes:
        scores: (D,) of the candidates, at most 20 of an image.
        matched: (D, A, S) bool, whether the candidate was given a person.
        skipped: (D, A, S) bool, whether it is neither right nor wrong.
        ignored: (G, A) bool, people who need not be found.
    """

    scores: np.ndarray
    matched: np.ndarray
    skipped: np.ndarray
    ignored: np.ndarray

    def numbers(self) -> dict[str, float]:
        """COCO's ten numbers, fractions 0 to 1 by ``NUMBERS``; NaN without people to be found."""
        if self.ignored[:, 0].all():
            return dict.fromkeys(NUMBERS, float("nan"))
        if not len(self.scores):
            return dict.fromkeys(NUMBERS, 0.0)
        evaluation = COCOeval(iouType="keypoints")
        params, (most,) = evaluation.params, evaluation.params.maxDets
        # The evaluator concatenates what it found in each image; here that is done, so all are one image of its.
        params.imgIds, params.catIds, params.maxDets = [0], [1], [len(self.scores)]
        evaluation._paramsEval = params
        evaluation.evalImgs = [
            {
                "dtScores": self.scores,
                "dtMatches": self.matched[:, size].T,
                "dtIgnore": self.skipped[:, size].T,
                "gtIgnore": self.ignored[:, size],
            }
            for size in range(self.ignored.shape[1])
        ]
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            evaluation.accumulate()
            params.maxDets = [most]
            evaluation.summarize()
        # It returns -1 where no person has that size.
        return {name: float("nan") if x < 0 else float(x) for name, x in zip(NUMBERS, evaluation.stats, strict=True)}


def oks_average_precision(
    truth: Truth, predictions: Predictions, area: np.ndarray, sigmas: np.ndarray, frames: int
) -> dict[str, float]:
    """``OksMatches.numbers`` of all images; arguments as in ``oks_matches``."""
    return oks_matches(truth, predictions, area, sigmas, frames).numbers()


def oks_matches(
    truth: Truth, predictions: Predictions, area: np.ndarray, sigmas: np.ndarray, frames: int
) -> OksMatches:
    """Pairs people and candidates image by image.

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
        coco = _coco(people, frames)
        evaluation = COCOeval(coco, coco.loadRes(found) if found else _coco([], frames), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, dtype=np.float64)
        evaluation.evaluate()
    sizes, similarities = len(evaluation.params.areaRng), len(evaluation.params.iouThrs)
    # By size, then image; None where an image has neither people nor candidates.
    images = [
        [image for image in evaluation.evalImgs[size * frames : (size + 1) * frames] if image is not None]
        for size in range(sizes)
    ]

    def joined(name: str, width: int) -> np.ndarray:
        """A field of all images, (rows, sizes, width)."""
        parts = [[np.reshape(image[name], (width, -1)).T for image in here] for here in images]
        return np.stack([np.concatenate([np.zeros((0, width)), *here]) for here in parts], axis=1)

    return OksMatches(
        scores=joined("dtScores", 1)[:, 0, 0],
        matched=joined("dtMatches", similarities) > 0,
        skipped=joined("dtIgnore", similarities) > 0,
        ignored=joined("gtIgnore", 1)[..., 0] > 0,
    )


def _coco(annotations: list[dict[str, Any]], frames: int) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(frames)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _keypoints(uv: np.ndarray, visible: np.ndarray) -> list[float]:
    flat: list[float] = np.concatenate([uv, visible[:, None]], axis=1).ravel().tolist()
    return flat

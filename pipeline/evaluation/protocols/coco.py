"""Images annotated in 2D only: COCO's average precision of the joints in the image, by OKS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from das.metrics.coco import NUMBERS, OksMatches, oks_matches
from das.metrics.tables import Predictions
from das.oks import COCO17_SIGMAS
from das.skeleton import COCO17, Skeleton
from pipeline.data.record import Record
from pipeline.evaluation.ground_truth import coco17_columns, truth_2d
from pipeline.infra.text_tables import Numbers, Table

# OKS divides squared distances by the area of the person's segment. Prepared rows hold boxes and no segments; MMPose
# takes this share of the box's area for data sets without segments.
_AREA = 0.53


@dataclass(frozen=True)
class CocoSums:
    """What is kept of some images: which candidates are right, and (1,) how many there are."""

    matches: OksMatches
    predictions: np.ndarray


def coco_sums(records: Sequence[Record], candidates: Predictions, skeleton: Skeleton) -> CocoSums:
    """What the evaluator keeps of these images.

    All candidates take part, because average precision ranks them by score. Joints are those that COCO17 and the model
    share.

    Args:
        records: the images.
        candidates: predictions for them, those with low scores included.
        skeleton: joint set of the predictions.
    """
    truth, joints = truth_2d(records, skeleton)
    columns = [at for at in coco17_columns(skeleton) if at >= 0]
    assert candidates.joints_uv is not None and truth.bbox is not None
    sigmas = np.array([COCO17_SIGMAS[COCO17.index(joint)] for joint in joints])
    size = truth.bbox[:, 2:] - truth.bbox[:, :2]
    area = _AREA * size.prod(axis=1)
    matches = oks_matches(truth, candidates.with_joints(columns), area, sigmas, len(records))
    return CocoSums(matches, np.array([len(candidates)]))


def coco_numbers(sums: CocoSums, skeleton: Skeleton, images: int) -> Numbers:
    """Metrics and table named oks/...; near COCO's numbers but not equal to them, since boxes replace segments.

    Args:
        sums: of all images.
        skeleton: joint set of the predictions.
        images: how many there are.
    """
    numbers = sums.matches.numbers()
    joints = [joint for joint, at in zip(COCO17.joints, coco17_columns(skeleton), strict=True) if at >= 0]
    people, predictions = float((~sums.matches.ignored[:, 0]).sum()), float(sums.predictions.sum())
    left_out = [joint for joint in COCO17.joints if joint not in joints]
    title = f"COCO OKS by pycocotools over {len(joints)} of 17 joints, area {_AREA:g} of the box"
    if left_out:
        title += f"; not predicted: {', '.join(left_out)}"
    columns_shown = [(name.upper().replace("_", " "), ".3f") for name in NUMBERS]
    columns_shown += [("images", ".0f"), ("people", ".0f"), ("predictions", ".0f")]
    rows = {"all": [*numbers.values(), float(images), people, predictions]}
    metrics = {f"oks/{name}": value for name, value in numbers.items()}
    return Numbers({**metrics, "oks/people": people}, (Table("oks", title, columns_shown, rows),), {})

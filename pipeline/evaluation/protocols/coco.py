"""Images annotated in 2D only: COCO's average precision of the joints in the image, by OKS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from das.metrics.coco import NUMBERS, oks_average_precision
from das.metrics.tables import Predictions
from das.oks import COCO17_SIGMAS
from das.skeleton import COCO17, Skeleton
from pipeline.data.record import Record
from pipeline.evaluation.ground_truth import coco17_columns, truth_2d
from pipeline.infra.text_tables import Numbers, Table

# OKS divides squared distances by the area of the person's segment. Prepared rows hold boxes and no segments; MMPose
# takes this share of the box's area for data sets without segments.
_AREA = 0.53


def coco_numbers(records: Sequence[Record], candidates: Predictions, skeleton: Skeleton) -> Numbers:
    """Metrics and table named oks/...; near COCO's numbers but not equal to them, since boxes replace segments.

    All candidates take part, because average precision ranks them by score. Joints are those that COCO17 and the model
    share.

    Args:
        records: the images.
        candidates: predictions for them, those with low scores included.
        skeleton: joint set of the predictions.

    Raises:
        ValueError: rows of another joint set than COCO17; names the key.
    """
    truth, joints = truth_2d(records, skeleton)
    columns = [at for at in coco17_columns(skeleton) if at >= 0]
    assert candidates.joints_uv is not None and truth.bbox is not None
    found = candidates.with_joints(columns)
    sigmas = np.array([COCO17_SIGMAS[COCO17.index(joint)] for joint in joints])
    size = truth.bbox[:, 2:] - truth.bbox[:, :2]
    numbers = oks_average_precision(truth, found, _AREA * size.prod(axis=1), sigmas, len(records))
    ignored = np.zeros(len(truth), bool) if truth.ignore is None else truth.ignore
    people = float((truth.scored.any(axis=1) & ~ignored).sum())
    left_out = [joint for joint in COCO17.joints if joint not in joints]
    title = f"COCO OKS by pycocotools over {len(joints)} of 17 joints, area {_AREA:g} of the box"
    if left_out:
        title += f"; not predicted: {', '.join(left_out)}"
    columns_shown = [(name.upper().replace("_", " "), ".3f") for name in NUMBERS]
    columns_shown += [("images", ".0f"), ("people", ".0f"), ("predictions", ".0f")]
    rows = {"all": [*numbers.values(), float(len(records)), people, float(len(found))]}
    metrics = {f"oks/{name}": value for name, value in numbers.items()}
    return Numbers({**metrics, "oks/people": people}, (Table("oks", title, columns_shown, rows),), {})

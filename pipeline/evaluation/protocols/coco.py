"""Images annotated in 2D alone: COCO's average precision of the joints in the image, by OKS."""

from __future__ import annotations

import numpy as np

from das.metrics.coco import NUMBERS, oks_average_precision
from das.oks import COCO17_SIGMAS
from das.skeleton import COCO17
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.ground_truth import conversion_back, flat_truth
from pipeline.evaluation.predictions_file import PredictionSet
from pipeline.evaluation.score import check_origin, joined
from pipeline.infra.text_tables import Numbers, Table

# Prepared rows keep boxes and no segments. MMPose takes this share of the box where a data set has no segments.
_AREA = 0.53


def score_flat(annotations: Annotations, predictions: PredictionSet) -> Numbers:
    """Scores predictions of images without depth: metrics named oks/...

    All candidates that were kept take part, as average precision wants it, in the joints that COCO17 and the model
    share. An area of 0.53 of the person's box stands for that of the segment, so the number is near COCO's and not it.

    Raises:
        ValueError: predictions for other data, or images of another joint set than COCO17.
    """
    origin, records = predictions.origin, annotations.records
    check_origin(annotations, origin, None)
    truth, joints = flat_truth(records, origin.skeleton)
    everyone = predictions.table(annotations.keys)
    columns = [at for at in conversion_back(origin.skeleton) if at >= 0]
    assert everyone.joints_uv is not None and truth.bbox is not None
    found = everyone.with_joints(columns)
    sigmas = np.array([COCO17_SIGMAS[COCO17.index(joint)] for joint in joints])
    size = truth.bbox[:, 2:] - truth.bbox[:, :2]
    numbers = oks_average_precision(truth, found, _AREA * size.prod(axis=1), sigmas, len(records))
    ignored = np.zeros(len(truth), bool) if truth.ignore is None else truth.ignore
    people = float((truth.scored.any(axis=1) & ~ignored).sum())
    left_out = [joint for joint in COCO17.joints if joint not in joints]
    title = f"COCO OKS by pycocotools over {len(joints)} of 17 joints, area {_AREA:g} of the box"
    if left_out:
        title += f"; not predicted: {', '.join(left_out)}"
    shown = [(name.upper().replace("_", " "), ".3f") for name in NUMBERS]
    rows = {"all": [*numbers.values(), float(len(records)), people, float(len(found))]}
    columns_shown = [*shown, ("images", ".0f"), ("people", ".0f"), ("predictions", ".0f")]
    table = Table("oks", title, columns_shown, rows)
    metrics = {f"oks/{name}": value for name, value in numbers.items()}
    return joined([Numbers({**metrics, "oks/people": people}, (table,), {})], origin.train_fit)

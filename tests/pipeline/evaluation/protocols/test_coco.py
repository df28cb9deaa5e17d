"""Images annotated in 2D only get COCO's average precision."""

from dataclasses import replace

import numpy as np
import pytest

from das.metrics.tables import Predictions
from das.oks import COCO17_SIGMAS
from das.skeleton import COCO17, PANOPTIC15
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.ground_truth import coco17_columns
from pipeline.evaluation.protocols.coco import coco_numbers, coco_sums
from pipeline.evaluation.rescore import rescore
from tests.pipeline.evaluation.evaluation_cases import (
    annotations_of,
    joints_as,
    predictions_of,
    scene,
    write_prepared,
)
from tests.pipeline.evaluation.rescore_cases import FRAMES, das_evaluate, refused

pytestmark = pytest.mark.usefixtures("no_cluster")


def scene_2d():
    return [replace(r, joints_cam=None, K=None) for r in scene(COCO17, FRAMES, source="coco")]


def predictions_2d(records, off=0.0):
    """Perfect joints in the image, in a joint set that lacks eyes and ears."""
    in_3d = scene(COCO17, FRAMES, source="coco")
    found = predictions_of(in_3d, joints_as(in_3d, PANOPTIC15))
    provenance = replace(found.provenance, data_fingerprint=annotations_of(records).fingerprint)
    return replace(found, provenance=provenance, joints_uv=found.joints_uv + off)


def test_images_annotated_in_2d_get_cocos_average_precision(tmp_path, capsys):
    records = scene_2d()
    write_prepared(tmp_path / "prepared", records)
    predictions_2d(records).save(tmp_path / "perfect.parquet")
    predictions_2d(records, off=200).save(tmp_path / "far.parquet")
    argv = ("--data", tmp_path / "prepared", "--predictions")
    status, out, _ = das_evaluate(capsys, *argv, tmp_path / "perfect.parquet")
    assert status == 0 and "13 of 17 joints" in out and "not predicted: l_eye, r_eye, l_ear, r_ear" in out
    for name, wanted in (("perfect", 1.0), ("far", 0.0)):
        config = EvaluateConfig(data=(str(tmp_path / "prepared"),), predictions=str(tmp_path / f"{name}.parquet"))
        found = rescore(config).metrics
        assert found["oks/ap"] == pytest.approx(wanted) and found["oks/people"] == 2 * FRAMES
    other = ("--compare", tmp_path / "far.parquet")
    refused(capsys, "2D only", argv=(*argv, tmp_path / "perfect.parquet", *other))


def test_similarity_takes_53_percent_of_the_box_for_the_persons_area():
    """Every joint off by one distance: its similarity by COCO's formula counts at the thresholds below it."""
    (r,) = (replace(r, joints_cam=None, K=None) for r in scene(COCO17, 1, source="coco"))
    r.ignore[1] = True
    columns = np.array(coco17_columns(PANOPTIC15))
    shared = columns >= 0
    width, height = r.bbox[0, 2:] - r.bbox[0, :2]
    sigmas = np.array(COCO17_SIGMAS)[shared]
    off = 0.08 * np.sqrt(width * height)

    def expected(share):
        similarity = np.exp(-(off**2) / (2 * share * width * height * (2 * sigmas) ** 2)).mean()
        return (similarity >= np.linspace(0.5, 0.95, 10)).mean()

    uv = np.zeros((1, 15, 2))
    uv[0, columns[shared]] = r.joints_uv[0, shared] + (off, 0)
    one = Predictions(np.zeros(1, int), np.zeros((1, 15, 3)), np.ones(1), uv)
    assert coco_numbers(coco_sums([r], one, PANOPTIC15), PANOPTIC15, 1).metrics["oks/ap"] == pytest.approx(
        expected(0.53)
    )
    assert len({expected(share) for share in (0.4, 0.53, 0.7, 1.0)}) == 4, "the case tells shares apart"

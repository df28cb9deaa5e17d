"""Images annotated in 2D only get COCO's average precision."""

from dataclasses import replace

import pytest

from das.skeleton import COCO17, PANOPTIC15
from pipeline.evaluation.config import EvaluateConfig
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

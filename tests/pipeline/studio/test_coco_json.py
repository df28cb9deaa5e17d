"""COCO files, read back by pycocotools and by the source."""

import contextlib
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.data.sources import coco
from pipeline.studio.coco_json import outline, run_lengths
from pipeline.studio.shots import HIDDEN, OUTSIDE, SEEN
from tests.pipeline.studio.small_renderings import read_all


def read_coco(folder: Path, photos: str) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(folder / "annotations" / f"person_keypoints_{photos}.json"))


def test_coco_files_are_consistent_in_pycocotools(root):
    for photos, count in (("train2017", 8), ("val2017", 2)):
        data = read_coco(root / "coco", photos)
        (category,) = data.loadCats(data.getCatIds(catNms=["person"]))
        assert len(category["keypoints"]) == 17 and category["keypoints"][5] == "left_shoulder"
        assert len(data.imgs) == count
        for annotation in data.anns.values():
            image = data.imgs[annotation["image_id"]]
            shape = image["height"], image["width"]
            assert cv2.imread(str(root / "coco" / photos / image["file_name"])).shape[:2] == shape
            mask = data.annToMask(annotation).astype(bool)
            # As in COCO, an outline has no holes: its area may include background that an arm encloses.
            assert mask.shape == shape and abs(mask.sum() - annotation["area"]) < 0.25 * annotation["area"] + 6
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            # A crowd's run lengths are its pixels; the outline of a person may be a pixel off.
            assert np.abs(np.subtract(box, annotation["bbox"])).max() <= (0 if annotation["iscrowd"] else 1)
            keypoints = np.reshape(annotation["keypoints"], (17, 3))
            assert annotation["num_keypoints"] == (keypoints[:, 2] > 0).sum()
            assert not keypoints[keypoints[:, 2] == 0].any()
            near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
            x, y, _ = keypoints[keypoints[:, 2] == SEEN].T
            assert near[y.clip(0, shape[0] - 1), x.clip(0, shape[1] - 1)].all()
        people = [a for a in data.anns.values() if not a["iscrowd"]]
        assert {v for a in people for v in a["keypoints"][2::3]} == {OUTSIDE, HIDDEN, SEEN}


def test_the_labels_as_predictions_have_an_average_precision_of_1(root):
    data = read_coco(root / "coco", "train2017")
    labelled = [{**a, "score": 1.0} for a in data.anns.values() if a["num_keypoints"]]
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(data, data.loadRes([{k: a[k] for k in ("image_id", "category_id", "keypoints", "score")}
                                             for a in labelled]), "keypoints")  # fmt: skip
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert judge.stats[0] == pytest.approx(1.0) and len(labelled) > 8


def test_the_source_reads_all_images_and_ignores_crowds(root):
    records = read_all(coco, root / "coco", "train")
    assert len(records) == 8 and len(read_all(coco, root / "coco", "val")) == 2
    data = read_coco(root / "coco", "train2017")
    for r in records:
        assert r.K is None and r.joints_cam is None
        annotations = {a["id"]: a for a in data.imgToAnns[r.frame]}
        assert set(r.person_id.tolist()) == set(annotations)
        for id_, state, ignore in zip(r.person_id, r.state, r.ignore):
            assert state.tolist() == annotations[id_]["keypoints"][2::3]
            assert ignore == (annotations[id_]["iscrowd"] or not annotations[id_]["num_keypoints"])
    crowds = [a for a in data.anns.values() if a["iscrowd"]]
    assert crowds and all(isinstance(a["segmentation"]["counts"], list) for a in crowds)


def test_run_lengths_and_outlines_agree_with_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = cv2.GaussianBlur(rng.normal(0, 1, (40, 61)), (0, 0), 3) > 0
        h, w = mask.shape
        ours = rle.frPyObjects({"size": [h, w], "counts": run_lengths(mask)}, h, w)
        np.testing.assert_array_equal(rle.decode(ours), mask)
        filled = np.zeros_like(mask, np.uint8)
        blocks, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(filled, blocks, -1, 1, cv2.FILLED)  # outlines have no holes
        drawn = rle.decode(rle.merge(rle.frPyObjects(outline(mask), h, w)))
        assert (drawn & filled).sum() > 0.93 * (drawn | filled).sum()

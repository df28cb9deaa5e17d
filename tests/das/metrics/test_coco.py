"""COCO's average precision on tables: against the evaluator on files, and cases worked by hand."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from das.metrics.coco import NUMBERS, oks_average_precision
from das.metrics.tables import Predictions, Truth
from das.oks import COCO17_SIGMAS

SIGMAS = np.array(COCO17_SIGMAS)


def photos(seed=0, frames=6, people=3):
    rng = np.random.default_rng(seed)
    count = frames * people
    low = rng.uniform(0, 300, (count, 2))
    size = rng.uniform(40, 200, (count, 2))
    uv = low[:, None] + rng.uniform(size=(count, 17, 2)) * size[:, None]
    labelled = rng.random((count, 17)) < 0.7
    labelled[1] = False
    ignore = rng.random(count) < 0.1
    frame = np.repeat(np.arange(frames), people)
    bbox = np.concatenate([low, low + size], axis=1)
    truth = Truth(frame, np.zeros((count, 17, 3)), labelled, uv, bbox, ignore)
    kept = rng.random(count) < 0.8
    found = uv[kept] + rng.normal(0, 8, (kept.sum(), 17, 2))
    predictions = Predictions(
        frame[kept], np.zeros_like(uv[kept], shape=(kept.sum(), 17, 3)), rng.random(kept.sum()), found
    )
    return truth, predictions, 0.6 * size.prod(axis=1)


def test_numbers_are_those_of_the_evaluator_on_files(tmp_path):
    truth, predictions, area = photos()
    triples = np.concatenate([truth.joints_uv, 2.0 * truth.scored[..., None]], axis=2)
    annotations = [
        {"id": i + 1, "image_id": int(truth.frame[i]), "category_id": 1, "iscrowd": int(truth.ignore[i]),
         "area": area[i], "bbox": [*truth.bbox[i, :2], *(truth.bbox[i, 2:] - truth.bbox[i, :2])],
         "keypoints": triples[i].ravel().tolist(), "num_keypoints": int(truth.scored[i].sum())}
        for i in range(len(truth))
    ]  # fmt: skip
    images = [{"id": i} for i in range(7)]
    labels = {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": annotations}
    (tmp_path / "truth.json").write_text(json.dumps(labels))
    results = [
        {
            "image_id": int(f),
            "category_id": 1,
            "score": float(s),
            "keypoints": np.insert(uv, 2, 1, axis=1).ravel().tolist(),
        }
        for f, s, uv in zip(predictions.frame, predictions.scores, predictions.joints_uv, strict=True)
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    found = oks_average_precision(truth, predictions, area, SIGMAS, 7)
    assert 0.1 < found["ap"] < 0.9
    np.testing.assert_allclose([found[name] for name in NUMBERS], evaluation.stats, atol=1e-12)


def test_a_similarity_counts_at_the_thresholds_below_it():
    """One person, every joint off by the same similarity 0.72: right at 0.50 to 0.70, five of ten thresholds."""
    uv = np.random.default_rng(0).uniform(0, 100, (1, 17, 2))
    area, sigmas = np.array([10000.0]), np.full(17, 0.05)
    off = np.sqrt(-np.log(0.72) * 2 * area[0] * (2 * 0.05) ** 2)
    truth = Truth([0], np.zeros((1, 17, 3)), np.ones((1, 17), bool), uv, [[0, 0, 100, 100]])
    found = oks_average_precision(truth, Predictions([0], np.zeros((1, 17, 3)), [0.9], uv + [off, 0]), area, sigmas, 1)
    assert [found[name] for name in ("ap", "ap_50", "ap_75")] == pytest.approx([0.5, 1, 0])
    assert np.isnan(found["ap_medium"]) and found["ap_large"] == pytest.approx(0.5)


def test_no_person_found_is_zero_and_no_person_annotated_is_nan():
    truth, predictions, area = photos()
    no_people = predictions.where(np.zeros(len(predictions), bool))
    assert set(oks_average_precision(truth, no_people, area, SIGMAS, 7).values()) == {0.0}
    empty = truth.where(np.zeros(len(truth), bool))
    assert np.isnan([*oks_average_precision(empty, predictions, area[:0], SIGMAS, 7).values()]).all()


@pytest.mark.parametrize(("u", "ap"), [(350.0, 1.0), (450.0, 0.5)])
def test_predictions_around_a_person_without_labelled_joints_do_not_count(u, ap):
    """COCO leaves out what is within one side of the box of such a person: here u from 100 to 400."""
    uv = np.random.default_rng(0).uniform(0, 100, (2, 17, 2))
    scored = np.repeat([[True], [False]], 17, axis=1)
    truth = Truth([0, 0], np.zeros((2, 17, 3)), scored, uv, [[0, 0, 100, 100], [200, 200, 300, 300]])
    found = np.stack([uv[0], np.full((17, 2), (u, 250))])
    predictions = Predictions([0, 0], np.zeros((2, 17, 3)), [0.8, 0.9], found)
    numbers = oks_average_precision(truth, predictions, np.full(2, 1e4), np.full(17, 0.05), 1)
    assert numbers["ap"] == pytest.approx(ap)

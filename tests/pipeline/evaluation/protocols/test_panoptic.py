"""Panoptic's published protocols on prepared rows: which joints, pixels and candidates they take."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from das.camera import back_project
from das.skeleton import COCO19, MPI15, PANOPTIC15
from pipeline.evaluation.score import score
from tests.pipeline.evaluation.evaluation_cases import (
    LENS,
    K,
    annotations_of,
    joints_as,
    metrics,
    moved,
    predictions_of,
    provenance_of,
    record,
    scene,
)

NECK, HEAD = PANOPTIC15.index("neck"), PANOPTIC15.index("head")


def test_candidates_with_low_scores_count_only_in_the_release_protocol():
    records = scene()
    perfect, far = joints_as(records, PANOPTIC15), moved(records, np.array([0, 0, 900.0]))
    for people in far:
        people[:, NECK] += 400
    both = [np.concatenate([f, p]) for f, p in zip(far, perfect, strict=True)]
    scores = np.tile([0.9, 0.9, 0.1, 0.1], len(records))
    found = metrics(records, predictions_of(records, both, scores=scores))
    assert found["strict/predictions"] == 8 and found["strict/mpjpe"] > 10
    assert found["panoptic_release/mpjpe"] == pytest.approx(0, abs=1e-3)
    unsure = metrics(records, predictions_of(records, both, scores=scores), threshold=0.05)
    assert unsure["strict/predictions"] == 16 and unsure["strict/precision"] == 0.5
    worse = metrics(records, predictions_of(records, both, scores=scores, release_threshold=0.2))
    assert worse["panoptic_release/mpjpe"] > 10


def test_frames_without_predictions_are_misses_and_the_release_takes_its_mean_pose():
    records = scene()
    some = joints_as(records, PANOPTIC15)
    some[0] = some[0][:0]
    results = score(annotations_of(records), predictions_of(records, some))
    assert results.metrics["strict/recall"] == 0.75 and results.metrics["strict/precision"] == 1
    assert results.metrics["strict/mpjpe"] == pytest.approx(0, abs=1e-3)
    release = {t.name: t for t in results.tables}["panoptic_release"]
    assert [c for c, _ in release.columns][-1] == "without candidate"
    assert (release.rows["haggling"][-1], release.rows["mafia"][-1], release.rows["mean"][-1]) == (2, 0, 2)
    assert release.rows["haggling"][0] > 10


def test_the_release_takes_distorted_pixels_for_a_pinhole_image():
    """On both sides: u, v and Z of a perfect network score 0, as undistorted joints do in the other protocols."""
    records = scene(distortion=LENS)
    found = metrics(records, predictions_of(records))
    for name in ("strict/mpjpe", "panoptic_release/mpjpe", "panoptic_smap/mpjpe", "panoptic_smap/mpjpe_absolute"):
        assert found[name] == pytest.approx(0, abs=1e-3), name
    # What the network sees is compared, u, v and Z: a shift in the image has the size that the pinhole gives it.
    shifted = joints_as(records, PANOPTIC15)
    for people in shifted:
        uv = cv2.projectPoints(people.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), K, LENS)[0].reshape(-1, 15, 2)
        uv[:, NECK] += (10, 0)
        people[:, NECK] = back_project(uv[:, NECK], people[:, NECK, 2], K, LENS)
    depth = np.mean([people[:, NECK, 2].mean() for people in shifted])
    # The neck is one of 14 scored joints: of coco19, joint 1 does not count.
    off = metrics(records, predictions_of(records, shifted))["panoptic_release/mpjpe"]
    assert off == pytest.approx(10 * depth / K[0, 0] / 14, rel=0.01)


@pytest.mark.parametrize(("skeleton", "counts"), [(COCO19, False), (MPI15, True)])
def test_the_release_scores_joint_1_only_where_it_is_the_head_top(skeleton, counts):
    records = scene(skeleton)
    wrong = moved(records, 0.0)
    for people in wrong:
        people[:, HEAD] += 300
    assert (metrics(records, predictions_of(records, wrong))["panoptic_release/mpjpe"] > 1) == counts


def test_the_release_scores_confident_joints_inside_the_image_with_a_pixel():
    clean = scene(MPI15)
    perfect = predictions_of(clean)
    wrong = moved(clean, 0.0)
    for people in wrong:
        people[0, NECK] += 300
    spoiled = replace(predictions_of(clean, wrong), provenance=perfect.provenance)

    def release(change):
        records = scene(MPI15)
        for r in records:
            change(r)
        found = replace(spoiled, provenance=provenance_of(records))
        return metrics(records, found)["panoptic_release/mpjpe"]

    def unsure(r):
        r.confidence[0, NECK] = 0.1

    def outside(r):
        r.joints_uv[0, NECK] = (-1, 50)

    def unseen(r):  # the lens cannot image it: the source has no pixel, and zeros in its place
        r.joints_uv[0, NECK], r.state[0, NECK] = 0, 0

    assert release(lambda r: None) > 5
    for change in (unsure, outside, unseen):
        assert release(change) == pytest.approx(0, abs=1e-3), change.__name__


@pytest.mark.parametrize("source", ["mupots", "muco"])
def test_other_rows_get_no_panoptic_numbers(source):
    records = scene(source=source)
    assert not any("panoptic" in name for name in metrics(records, predictions_of(records)))


@pytest.mark.golden
def test_recorded_panoptic_cases_give_the_recorded_numbers_from_rows(golden):
    """Every case of the official evaluator is one activity, through rows and a predictions table."""
    data = np.load(golden / "metrics" / "panoptic_das_inputs.npz")
    recorded = json.loads((golden / "metrics" / "panoptic_das_expected.json").read_text())
    names = data["case_names"].astype(str)
    width, height = data["image_wh"].tolist()
    records, people, scores = [], [], []
    for case, frame, camera, rotation in zip(
        *(data[f"frame_{name}"] for name in ("case", "id", "K", "R_world_to_cam")), strict=True
    ):
        rows = (data["gt_case"] == case) & (data["gt_frame"] == frame)
        uv = data["gt_cam_mm"][rows] @ camera.T
        uv = uv[..., :2] / uv[..., 2:]
        # One case hides joints in the picture that are confident in space, as a lens does that cannot image them.
        hidden = (data["gt_vis2d"][rows] == 0) & ((uv >= 0) & (uv <= (width - 1, height - 1))).all(axis=-1)
        plain = record(data["gt_cam_mm"][rows], MPI15, frame=int(frame), sequence=f"case{case}", activity=names[case])
        change = {
            "K": camera,
            "R": rotation,
            "width": width,
            "height": height,
            "joints_uv": uv.astype(np.float32),
            "state": np.where(hidden, 0, 2).astype(np.uint8),
            "confidence": np.where(data["gt_vis3d"][rows], 0.5, 0.05).astype(np.float32),
        }
        records.append(replace(plain, **change))
        here = (data["pred_case"] == case) & (data["pred_frame"] == frame)
        people.append(data["pred_cam_mm"][here])
        scores += data["pred_score"][here].tolist()
    found = metrics(records, predictions_of(records, people, scores=scores, release_threshold=0.0, least_score=0.0))
    for name in names:
        assert found[f"panoptic_release/mpjpe/{name}"] == pytest.approx(recorded[name]["mpjpe_mm"], abs=0.01), name
    assert len(names) > 10


def test_smap_pairs_by_the_root_in_the_image_and_missed_people_lower_only_recall():
    records = scene(MPI15)
    people = moved(records, np.array([0, 0, 100.0]))
    people[0] = people[0][:1]
    people[2] = people[2] + np.array([2000.0, 0, 0])  # far from all people in the image
    found = metrics(records, predictions_of(records, people))
    assert found["panoptic_smap/recall"] == pytest.approx(5 / 8)
    assert found["panoptic_smap/recall/haggling"] == pytest.approx(1 / 4)
    assert found["panoptic_smap/mpjpe"] == pytest.approx(0, abs=1e-3)
    assert found["panoptic_smap/mpjpe_absolute"] == pytest.approx(100, abs=1e-2)
    assert (found["panoptic_smap/pck"], found["panoptic_smap/pck_absolute"]) == (1, 1)
    assert found["strict/recall"] == pytest.approx(5 / 8)


def test_the_release_is_labelled_optimistic_in_text_and_json():
    records = scene()
    table = {t.name: t for t in score(annotations_of(records), predictions_of(records)).tables}["panoptic_release"]
    assert "optimistic" in table.text() and "optimistic" in json.dumps(table.to_json())

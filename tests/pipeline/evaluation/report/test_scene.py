"""The 3D view's data: the same people, upright and in metres."""

import numpy as np

from das.camera import project
from das.skeleton import COCO19, PANOPTIC15
from pipeline.evaluation.frame_choice import people_on_frame
from pipeline.evaluation.report.scene import scene_of
from tests.pipeline.evaluation.evaluation_cases import (
    joints_as,
    predictions_of,
    record,
    upright_person,
)
from tests.pipeline.evaluation.report.page_cases import Case


def test_the_scene_holds_the_same_people_upright_in_metres(panoptic):
    frame = next(f for f in panoptic.scene["frames"] if f["key"] == panoptic.annotations.keys[0])
    assert panoptic.scene["bones"] == [list(bone) for bone in PANOPTIC15.bone_indices]
    record_ = panoptic.annotations.records[0]
    true = joints_as([record_], PANOPTIC15)[0] / 1000
    shown = np.array([[p or [np.nan] * 3 for p in joints] for joints in frame["truth"]])
    gaps = np.linalg.norm(shown[:, :, None] - shown[:, None], axis=-1)
    np.testing.assert_allclose(gaps, np.linalg.norm(true[:, :, None] - true[:, None], axis=-1), atol=2e-3)
    # Distances from the camera stay, and height is along the world's y axis, which points down.
    np.testing.assert_allclose(np.linalg.norm(shown, axis=-1), np.linalg.norm(true, axis=-1), atol=2e-3)
    np.testing.assert_allclose(shown[..., 1], true @ (record_.R @ [0, 1, 0]), atol=2e-3)
    (person,) = frame["people"]
    here = people_on_frame(panoptic.scored, 0)
    assert person["truth"] == 1 and person["error"] == round(float(here.errors[0]), 1) and person["score"] == 0.9


def test_unsupervised_joints_are_not_in_the_scene(tmp_path):
    records = [record([upright_person(COCO19)])]
    predictions = predictions_of(records, unsupervised_joints=("head",))
    case = Case(tmp_path, records, predictions)
    (person,) = case.scene["frames"][0]["people"]
    assert person["joints"][PANOPTIC15.index("head")] is None and person["joints"][0] is not None


def test_the_drawn_camera_projects_to_the_corners_of_the_image(panoptic):
    frame, record_ = panoptic.scene["frames"][0], panoptic.annotations.records[0]
    corners = np.array(frame["view"])
    level = scene_of({"worst_00_x.jpg": 0}, panoptic.scored)
    assert level["frames"][0]["picture"] == "worst_00_x.jpg"
    down = record_.R @ [0, 1, 0]
    forward = np.array([0, 0, 1.0]) - down[2] * down
    forward /= np.linalg.norm(forward)
    axes = np.stack([np.cross(down, forward), down, forward])
    uv = project(1000 * corners @ axes, record_.K)
    np.testing.assert_allclose(uv, np.array([[0, 0], [320, 0], [320, 180], [0, 180]]) - 0.5, atol=0.5)

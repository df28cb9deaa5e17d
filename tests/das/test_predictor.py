"""The predictor puts people where the camera says, whatever the size of the image it is given."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from das.camera import intrinsics_from_fov, project
from das.checkpoint import save_model
from das.config import small
from das.head import LevelOutput
from das.model import DAS, HeadOutput
from das.model_info import ModelInfo
from das.predictor import Predictor
from das.recipe import InputSize
from das.recursive_update import UpdateState
from das.uncertainty import LEVELS, ROOT, Calibration, joint_groups

CONFIG = replace(small(), backbone_width=8, fpn_channels=32, update="none", update_layers=0)
JOINTS = CONFIG.n_joints
# The person that the spot finder reports: joints (mm) around a root at this depth.
DEPTH_MM = 3500.0
BODY_MM = np.random.default_rng(0).uniform(-400, 400, (JOINTS, 3)) * [1, 1, 0.5]
BODY_MM[CONFIG.skeleton.root_index] = 0
FOCAL = 0.8  # of the camera, per pixel of image width


def info(**changes) -> ModelInfo:
    values = {
        "model": CONFIG,
        "test_size": InputSize(256, 144),
        "weights": "raw",
        "score_threshold": 0.3,
        "unsupervised_joints": (),
        "recipe": {},
        "data": {"sources": [], "fingerprints": [], "terms": [], "split": "train"},
        "code_version": "0",
        "mean_pose": tuple((0.0, 0.0, 0.0) for _ in range(JOINTS)),
    }
    return ModelInfo(**{**values, **changes})


class SpotFinder(nn.Module):
    """Replaces DAS: one person, root at the bright spot, the same in mm whatever the input size."""

    def __init__(self) -> None:
        super().__init__()
        self.anywhere = nn.Parameter(torch.zeros(1))  # says on which device the model is
        self.config = CONFIG
        self.inputs = None

    normalize = staticmethod(lambda images, sizes: images.float())

    def forward(self, images, want_sigma=False):
        self.inputs = images
        levels = []
        for stride in CONFIG.strides:
            b, (h, w) = len(images), (s // stride for s in images.shape[2:])
            level = LevelOutput(
                torch.full((b, 1, h, w), -20.0),
                torch.full((b, 1, h, w), 20.0),
                torch.zeros(b, 3, h, w),
                torch.zeros(b, JOINTS, 3, h, w),
                torch.zeros(b, JOINTS, 3, h, w) if want_sigma else None,
            )
            levels.append(level)
            if stride != 16:
                continue
            for i, image in enumerate(images):
                bright = (image.mean(0) - 40).clamp(min=0)
                if bright.sum() == 0:
                    continue
                y, x = torch.meshgrid(*map(torch.arange, bright.shape), indexing="ij")
                u, v = ((bright * a).sum() / bright.sum() for a in (x, y))
                row, column = int(v) // stride, int(u) // stride
                level.confidence[i, 0, row, column] = 3.0
                level.root[i, :2, row, column] = (
                    torch.stack([u, v]) - torch.tensor([column, row]) * stride - stride // 2
                ) / stride
                # The picture is 256 wide inside the network, so its focal length there is known.
                focal = FOCAL * 256
                level.root[i, 2, row, column] = CONFIG.root_depth_scale * DEPTH_MM / focal
                depth = DEPTH_MM + BODY_MM[:, 2]
                root_xy = (np.array([u, v]) - 255 / 2 * np.array([1, 143 / 255])) / focal
                cam_xy = root_xy * DEPTH_MM + BODY_MM[:, :2]
                uv = cam_xy / depth[:, None] * focal - root_xy * focal
                level.joints[i, :, :2, row, column] = torch.from_numpy(uv / stride)
                level.joints[i, :, 2, row, column] = torch.from_numpy(BODY_MM[:, 2] / CONFIG.joint_depth_unit)
        return HeadOutput(levels, [UpdateState("none", level.joints) for level in levels])


def scene(width: int, spot=(0.62, 0.4)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A dark 16:9 picture with one smooth bright spot; the picture, its K, and the spot in pixels."""
    height = width * 9 // 16
    K = np.array([[FOCAL * width, 0, (width - 1) / 2], [0, FOCAL * width, (height - 1) / 2], [0, 0, 1]])
    uv = np.array(spot) * [width, height]
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-((x - uv[0]) ** 2 + (y - uv[1]) ** 2) / (2 * (0.02 * width) ** 2))
    return np.repeat((30 + 200 * blob).astype(np.uint8)[..., None], 3, -1), K, uv


@pytest.fixture
def predictor():
    return Predictor(SpotFinder(), info())


@pytest.mark.parametrize("width", [256, 320, 640, 1280, 1920])
def test_an_image_of_any_size_gives_the_same_people_in_space(predictor, width):
    image, K, uv = scene(width)
    people = predictor.predict(image, K).people
    assert len(people) == 1
    root = (uv - K[:2, 2]) / (FOCAL * width) * DEPTH_MM
    # Half a pixel of the 256-pixel input is 9 mm at this distance.
    np.testing.assert_allclose(people.root_cam[0], [*root, DEPTH_MM], atol=9)
    np.testing.assert_allclose(people.joints_cam[0] - people.root_cam[0], BODY_MM, atol=9)
    np.testing.assert_allclose(people.root_uv[0], uv, atol=0.5 * width / 256)
    np.testing.assert_allclose(project(people.joints_cam, K), people.joints_uv, atol=1e-3)


def test_images_of_different_sizes_share_a_batch_without_changing_each_other(predictor):
    scenes = [scene(256), scene(640, (0.3, 0.6)), scene(1280, (0.5, 0.5))]
    tall = np.zeros((400, 90, 3), np.uint8)  # much narrower: the others' padding
    together = predictor.predict_batch([s[0] for s in scenes] + [tall], [s[1] for s in scenes] + [None])
    assert [len(p.people) for p in together] == [1, 1, 1, 0]
    for (image, K, _), prediction in zip(scenes, together, strict=False):
        alone = predictor.predict(image, K)
        np.testing.assert_allclose(prediction.people.joints_cam, alone.people.joints_cam, atol=1e-3)
        np.testing.assert_allclose(prediction.people.joints_uv, alone.people.joints_uv, atol=1e-3)


def test_the_network_sees_multiples_of_32_with_the_picture_at_the_upper_left(predictor):
    predictor.predict(scene(640)[0])
    assert predictor.model.inputs.shape == (1, 3, 160, 256)
    assert (predictor.model.inputs[:, :, 144:] == 0).all() and (predictor.model.inputs[:, :, :144] > 0).all()


def test_people_in_the_padding_do_not_exist(predictor):
    image = scene(640)[0]
    inputs = predictor.prepare([image], [np.eye(3)], [np.zeros(5)])
    output = predictor.network(inputs)
    for row, people in ((144 // 8, 1), (144 // 8 - 1, 2)):  # 144 rows of picture, 16 of padding
        confidence = output.levels[0].confidence.clone()
        confidence[0, 0, row, 3] = 5.0
        changed = replace(output.levels[0], confidence=confidence)
        found = predictor.people(replace(output, levels=[changed, *output.levels[1:]]), inputs)
        assert len(found[0]) == people


def test_a_distorted_camera_is_undone(predictor):
    image, K, uv = scene(640)
    distortion = np.array([-0.25, 0.2, 1e-3, -1e-3, 0.02])
    people = predictor.predict(image, K, distortion).people
    projected = cv2.projectPoints(people.joints_cam[0].copy(), np.zeros(3), np.zeros(3), K, distortion)[0][:, 0]
    np.testing.assert_allclose(projected, people.joints_uv[0], atol=1e-3)


def test_an_unknown_camera_is_guessed_and_says_so(predictor):
    image, K, _ = scene(640)
    known, guessed = predictor.predict(image, K), predictor.predict(image, fov_degrees=70)
    assert not known.assumed_camera and guessed.assumed_camera
    np.testing.assert_array_equal(guessed.K, intrinsics_from_fov(640, 360, 70))
    assert guessed.to_json()["camera"]["assumed"] and guessed.to_json()["camera"]["numbers"] == {"fov_degrees": 70}
    assert not known.to_json()["camera"]["assumed"]
    # The same picture through a longer lens is farther away.
    ratio = guessed.people.root_cam[0, 2] / known.people.root_cam[0, 2]
    assert ratio == pytest.approx(guessed.K[0, 0] / K[0, 0], rel=1e-6)


def test_scores_below_the_threshold_give_no_people(predictor):
    image, K, _ = scene(640)
    score = predictor.predict(image, K).people.scores[0]
    assert score == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-3)
    for threshold, people in ((float(score) + 0.001, 0), (float(score) - 0.001, 1)):
        found = Predictor(SpotFinder(), info(), threshold=threshold).predict(image, K).people
        assert len(found) == people
    assert len(Predictor(SpotFinder(), info(score_threshold=0.99)).predict(image, K).people) == 0


def test_json_is_complete_and_plain(predictor):
    image, K, _ = scene(640)
    prediction = predictor.predict(image, K)
    value = json.loads(json.dumps(prediction.to_json(), allow_nan=False))
    assert set(value) == {"units", "image", "camera", "joint_names", "bones", "root", "people"}
    assert value["image"] == {"height": 360, "width": 640}
    assert value["joint_names"] == list(CONFIG.skeleton.joints)
    np.testing.assert_allclose(value["camera"]["K"], K)
    (person,) = value["people"]
    more = {"root_depth_over_focal", "depths_from_root", "p90_mm", "root_p90_mm"}
    assert set(person) == {"score", "root_cam", "root_uv", "joints_cam", "joints_uv"} | more
    np.testing.assert_allclose(person["joints_cam"], prediction.people.joints_cam[0], atol=1e-3)
    np.testing.assert_allclose(person["joints_uv"], prediction.people.joints_uv[0], atol=1e-2)


def test_joints_that_training_never_saw_are_left_out():
    prediction = Predictor(SpotFinder(), info(unsupervised_joints=("head", "l_ankle"))).predict(scene(640)[0])
    assert prediction.joint_names == tuple(j for j in CONFIG.skeleton.joints if j not in ("head", "l_ankle"))
    person = prediction.to_json()["people"][0]
    assert len(person["joints_cam"]) == len(person["joints_uv"]) == JOINTS - 2
    kept = [CONFIG.skeleton.index(j) for j in prediction.joint_names]
    np.testing.assert_allclose(person["joints_cam"], prediction.people.joints_cam[0, kept], atol=1e-3)


def test_an_image_without_people_gives_an_empty_list(predictor):
    prediction = predictor.predict(np.zeros((90, 160, 3), np.uint8))
    assert len(prediction.people) == 0 and prediction.people.joints_cam.shape == (0, JOINTS, 3)
    assert prediction.to_json()["people"] == [] and predictor.predict_batch([]) == []


@pytest.mark.parametrize(
    ("image", "K", "distortion", "message"),
    [
        (np.zeros((9, 9), np.uint8), None, None, r"image is uint8 \(9, 9\)"),
        (np.zeros((9, 9, 3), np.float32), None, None, "image is float32"),
        (np.zeros((0, 9, 3), np.uint8), None, None, "image is uint8"),
        (np.zeros((9, 9, 3), np.uint8), np.eye(2), None, r"K has shape \(2, 2\), wanted 3 x 3"),
        (np.zeros((9, 9, 3), np.uint8), np.full((3, 3), np.nan), None, "K has NaN"),
        (np.zeros((9, 9, 3), np.uint8), np.diag([9, 9, 1.0]), np.zeros(3), "distortion = .*wanted 4, 5, 8, 12 or 14"),
        (np.zeros((9, 9, 3), np.uint8), np.diag([0, 9, 1.0]), None, "focal lengths 0 and 9, wanted both above 0"),
        (
            np.zeros((9, 9, 3), np.uint8),
            np.diag([0.01, 0.01, 1.0]),
            None,
            "focal lengths 0.01 and 0.01, wanted 0.45 to",
        ),
    ],
)
def test_wrong_inputs_are_named(predictor, image, K, distortion, message):
    with pytest.raises(ValueError, match=message):
        predictor.predict(image, K, distortion)


def test_a_folder_alone_rebuilds_the_predictor(tmp_path):
    torch.manual_seed(0)
    model = DAS(CONFIG)
    save_model(tmp_path, model, info(score_threshold=0.0, unsupervised_joints=("head",)))
    image, K, _ = scene(320)
    expected = Predictor(model, info(score_threshold=0.0)).predict(image, K)
    found = Predictor.from_folder(tmp_path).predict(image, K)
    np.testing.assert_array_equal(found.people.joints_cam, expected.people.joints_cam)
    assert len(found.people) > 0 and "head" not in found.joint_names


def test_bf16_finds_the_same_people_roughly():
    torch.manual_seed(0)
    model = DAS(CONFIG)
    image, K, _ = scene(320)
    full, half = (Predictor(model, info(score_threshold=0.0), bf16=b).predict(image, K).people for b in (False, True))
    assert len(full) > 0 and len(half) > 0
    assert half.scores[0] == pytest.approx(full.scores[0], rel=0.2)


def test_a_missing_gpu_is_named():
    if torch.cuda.is_available():
        assert Predictor(SpotFinder(), info(), device="cuda").device.type == "cuda"
    else:
        with pytest.raises(ValueError, match="device = 'cuda'"):
            Predictor(SpotFinder(), info(), device="cuda")


def test_doubt_is_that_of_the_calibration_and_null_where_it_is_not_known():
    groups = [name for name in joint_groups(CONFIG.skeleton) if name]
    radii = {name: (0.5,) * len(LEVELS) for name in groups} | {ROOT: (None,) * len(LEVELS)}
    calibration = Calibration(radii, dict.fromkeys(radii, 9), uses_sigma=True)
    image, K, _ = scene(640)
    prediction = Predictor(SpotFinder(), info(calibration=calibration)).predict(image, K)
    scales = np.linalg.norm(prediction.people.sigma_mm, axis=-1)
    expected = np.where(np.array(CONFIG.skeleton.joints) == "mid_hip", 0.0, 0.5) * scales
    np.testing.assert_allclose(prediction.joint_radii(0.9), expected)
    (person,) = prediction.to_json()["people"]
    assert person["root_p90_mm"] is None
    assert person["p90_mm"] == pytest.approx(expected[0, prediction.valid].tolist(), abs=0.06)
    (plain,) = Predictor(SpotFinder(), info()).predict(image, K).to_json()["people"]
    assert plain["p90_mm"] is None and plain["root_p90_mm"] is None

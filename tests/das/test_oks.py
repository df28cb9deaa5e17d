"""Object keypoint similarity, against the recorded release and pycocotools."""

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from das.oks import COCO17_SIGMAS, SUPPRESSION_SIGMA, oks, oks_matrix, pose_area


def coco_oks(predicted, joints_uv, visible, area, box, sigmas):
    """OKS of every prediction with every person as COCO evaluates it, (n, m).

    Only labelled joints count. For a person without any, each joint's distance is measured to the person's box (x, y,
    width, height), enlarged by its own size on every side.
    """
    to_joint = predicted[:, None] - joints_uv[None]  # (n, m, J, 2)
    low, high = (box[:, :2] - box[:, 2:])[:, None], (box[:, :2] + 2 * box[:, 2:])[:, None]
    before, after = low - predicted[:, None], predicted[:, None] - high
    to_box = before * (before > 0) + after * (after > 0)
    unlabelled = (visible.sum(-1) == 0)[:, None]  # (m, 1)
    squared = (to_joint**2).sum(-1) * ~unlabelled + (to_box**2).sum(-1) * unlabelled
    return oks(squared, area[None], sigmas, squared * 0 + (visible | unlabelled))


@pytest.mark.golden
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_suppression_similarity_equals_the_release(golden, kind):
    with np.load(golden / "model" / "F_decode.npz") as vectors:
        poses, area = kind(vectors["oks_keypoints"][..., :2]), kind(vectors["oks_area"])
        np.testing.assert_allclose(pose_area(poses), area, rtol=1e-5)
        mean = (area[:, None] + area[None]) / 2
        sigmas = kind(np.full(poses.shape[1], SUPPRESSION_SIGMA))
        np.testing.assert_allclose(oks_matrix(poses, poses, mean, sigmas), vectors["oks_matrix"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_evaluation_similarity_equals_pycocotools(kind):
    rng = np.random.default_rng(0)
    m, n = 6, 9
    box = np.concatenate([rng.uniform(0, 200, (m, 2)), rng.uniform(20, 150, (m, 2))], 1)
    truth = box[:, None, :2] + rng.uniform(size=(m, 17, 2)) * box[:, None, 2:]
    visible = rng.uniform(size=(m, 17)) < 0.6
    visible[2] = False  # a person without labelled joints is matched by place
    area = box[:, 2] * box[:, 3] * 0.6
    predicted = np.concatenate([truth + rng.normal(0, 8, truth.shape), rng.uniform(0, 300, (n - m, 17, 2))])

    def person(i):
        keypoints = np.concatenate([truth[i], 2.0 * visible[i, :, None]], 1).flatten().tolist()
        common = dict(id=i + 1, image_id=1, category_id=1, iscrowd=0, area=area[i], bbox=box[i].tolist())
        return {**common, "keypoints": keypoints, "num_keypoints": int(visible[i].sum())}

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [person(i) for i in range(m)],
        }
        coco.createIndex()
        results = [
            {"image_id": 1, "category_id": 1, "score": 1 - i / n,
             "keypoints": np.concatenate([p, np.ones((17, 1))], 1).flatten().tolist()}
            for i, p in enumerate(predicted)
        ]  # fmt: skip
        evaluation = COCOeval(coco, coco.loadRes(results), "keypoints")
        evaluation._prepare()
        expected = evaluation.computeOks(1, 1)
    ours = coco_oks(*map(kind, (predicted, truth, visible, area, box, np.array(COCO17_SIGMAS))))
    assert (np.diag(expected) > 0.3).any() and expected.shape == (n, m)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


def test_a_pose_is_like_itself_even_when_it_is_a_point():
    pose = np.full((1, 15, 2), 7.0)
    assert oks_matrix(pose, pose, pose_area(pose)[:, None], np.full(15, 0.08)) == 1
    assert oks_matrix(pose, pose + 1, pose_area(pose)[:, None], np.full(15, 0.08)) == 0


def test_similarity_does_not_depend_on_the_image_scale():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 100, (2, 3, 15, 2))
    sigmas = np.full(15, 0.08)
    one = oks_matrix(a, b, pose_area(a)[:, None], sigmas)
    np.testing.assert_allclose(oks_matrix(3 * a, 3 * b, pose_area(3 * a)[:, None], sigmas), one)

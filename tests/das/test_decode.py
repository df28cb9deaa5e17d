"""From maps to people."""

import dataclasses

import numpy as np
import pytest
import torch

from das.camera import project, transform_intrinsics
from das.codec import PoseCodec
from das.config import DASConfig, paper_resnet50, release_panoptic, small
from das.decode import decode, suppress
from das.head import LevelOutput
from das.model import HeadOutput
from das.recursive_update import FeaturePoints, UpdateState, update_at, update_dense
from tests.das.release_vectors import J, numbered

RELEASE = release_panoptic()
# The recorded settings: NMS at OKS 0.9 and score 0.07; without it; soft; NMS at 0.5.
SETTINGS = {
    "default": RELEASE,
    "nonms": dataclasses.replace(RELEASE, suppression="none"),
    "soft": dataclasses.replace(RELEASE, suppression="soft"),
    "thr05": dataclasses.replace(RELEASE, oks_threshold=0.5),
}


def recorded_output(vectors):
    """Test-mode maps of the release in network units: u, v in px, z in cm, root depth divided by its factor 20."""
    levels, updates = [], []
    maps = (map(torch.from_numpy, numbered(vectors, stem)) for stem in ("cls", "cen", "pose"))
    for cls, centerness, pose, stride in zip(*maps, RELEASE.strides, strict=True):
        root = torch.cat([pose[:, :2], 20 * pose[:, 2:3]], dim=1)
        joints = pose[:, 3:48].unflatten(1, (J, 3)) / torch.tensor([stride, stride, 50.0])[:, None, None]
        levels.append(LevelOutput(cls, centerness, root, torch.zeros_like(joints), None))
        updates.append(UpdateState("none", joints))  # the recorded joints are those after the update
    return HeadOutput(levels, updates)


@pytest.mark.golden
def test_people_scores_and_order_equal_the_release(golden):
    with np.load(golden / "model" / "F_decode.npz") as vectors:
        scale = np.stack(numbered(vectors, "scale_factor"))[:, :2]  # (B, 2): resized / original
        transform = torch.zeros(len(scale), 2, 3, dtype=torch.float64)
        transform[:, 0, 0], transform[:, 1, 1] = torch.from_numpy(scale.astype(np.float64)).T
        K = torch.eye(3).repeat(len(scale), 1, 1)  # a focal length of 1 px: see release_vectors
        found = {k.split("/")[0] for k in vectors.files if "/" in k}
        assert found <= set(SETTINGS)
        seen = 0
        for setting in sorted(found):
            people = decode(recorded_output(vectors), SETTINGS[setting], K, torch.zeros(len(scale), 5), transform)
            for i, mine in enumerate(people):
                mine = mine.numpy()
                poses, scores = vectors[f"{setting}/poses{i}"], vectors[f"{setting}/scores{i}"]
                depth = vectors[f"{setting}/centers{i}"][:, 2]
                if SETTINGS[setting].suppression == "none":  # the release leaves these in grid order
                    order = np.argsort(-scores, kind="stable")
                    poses, scores, depth = poses[order], scores[order], depth[order]
                assert len(mine) == len(scores), (setting, i)
                seen += len(mine)
                np.testing.assert_allclose(mine.scores, scores, atol=1e-6)
                np.testing.assert_allclose(mine.joints_uv, poses[..., :2], atol=1e-3)
                # Mixed depth: normalised root depth of the original image + metric offset in cm.
                root = mine.root_cam[:, 2] / 10 * np.sqrt(scale[i].prod())
                np.testing.assert_allclose(root, depth, rtol=1e-5)
                z = root[:, None] + (mine.joints_cam[..., 2] - mine.root_cam[:, None, 2]) / 10
                np.testing.assert_allclose(z, poses[..., 2], atol=1e-3)
    assert seen


def empty_output(config, batch=1, height=128, width=192):
    """Maps without people."""
    levels, updates = [], []
    for stride in config.strides:
        h, w = height // stride, width // stride
        zeros = [torch.zeros(batch, *c, h, w) for c in ((1,), (3,), (J, 3))]
        levels.append(LevelOutput(zeros[0] - 9, zeros[0] + 9, zeros[1], zeros[2], None))
        updates.append(UpdateState("none", zeros[2].clone()))
    return HeadOutput(levels, updates)


def put(output, config, level, cell, joints_uv, joints_depth, focal, confidence, image=0):
    """Writes one person into one cell; joints (J, 2) px and (J,) mm."""
    stride, (y, x) = config.strides[level], cell
    r = config.skeleton.root_index
    point = torch.tensor([[x * stride + stride // 2, y * stride + stride // 2]], dtype=torch.float64)
    root, joints = PoseCodec(config).encode(
        joints_uv[None],
        joints_depth[None],
        joints_uv[None, r],
        joints_depth[None, r],
        point,
        torch.tensor([float(stride)]),
        torch.tensor([float(focal)]),
    )
    output.levels[level].confidence[image, 0, y, x] = confidence
    output.levels[level].root[image, :, y, x] = root[0].float()
    output.updates[level].offsets[image, :, :, y, x] = joints[0].float()


def person(center, seed=0, size=15.0):
    g = torch.Generator().manual_seed(seed)
    uv = torch.tensor(center).double() + size * torch.randn(J, 2, generator=g, dtype=torch.float64)
    uv[2] = torch.tensor(center).double()
    return uv, 3000 + 200 * torch.randn(J, generator=g, dtype=torch.float64)


K = torch.tensor([[[300.0, 0, 96], [0, 300, 64], [0, 0, 1]]])
NONE = torch.zeros(1, 5)


@pytest.mark.parametrize("config", [small(), paper_resnet50(), RELEASE])
def test_without_candidates_above_the_threshold_people_are_empty(config):
    output = empty_output(config, batch=2)
    people = decode(output, config, K.repeat(2, 1, 1), NONE.repeat(2, 1))
    for shapes in people:
        assert len(shapes) == 0 == len(shapes.numpy())
        assert shapes.joints_uv.shape == (0, J, 2) and shapes.joints_cam.shape == (0, J, 3)
        assert shapes.root_uv.shape == (0, 2) and shapes.root_cam.shape == (0, 3) and shapes.scores.shape == (0,)


@pytest.mark.parametrize("config", [small(), paper_resnet50(), RELEASE])
@pytest.mark.parametrize("flip", [False, True])
def test_one_person_comes_back_through_transform_and_distortion(config, flip):
    """Camera space does not know the transform; pixels return to the original image."""
    rng = np.random.default_rng(0)
    root = np.array([150.0, -100.0, 3000.0])
    cam = torch.from_numpy(root + rng.uniform(-400, 400, (J, 3)))
    cam[config.skeleton.root_index] = torch.from_numpy(root)
    K_original = torch.tensor([[600.0, 0, 190], [0, 620, 130], [0, 0, 1]], dtype=torch.float64)
    distortion = torch.tensor([-0.2, 0.1, 0.001, -0.002, 0.01], dtype=torch.float64)
    A = torch.tensor([[0.5, 0.05, 3], [-0.05, 0.5, 9]], dtype=torch.float64)
    if flip:
        A = torch.stack([-A[:, 0], A[:, 1], A[:, 2] + 380 * A[:, 0]], dim=1)
    original_uv = project(cam, K_original, distortion)
    uv, K_input = original_uv @ A[:, :2].T + A[:, 2], transform_intrinsics(A, K_original)
    output = empty_output(config)
    focal = torch.linalg.det(K_input[:2, :2]).abs().sqrt()
    point = (uv[config.skeleton.root_index] // 8).int().tolist()
    put(output, config, 0, (point[1], point[0]), uv, cam[:, 2], focal, 3.0)
    (people,) = decode(output, config, K_input[None], distortion[None], A[None])
    assert len(people) == 1
    torch.testing.assert_close(people.joints_uv[0], original_uv, atol=1e-4, rtol=0)
    torch.testing.assert_close(people.joints_cam[0], cam, atol=0.01, rtol=0)
    torch.testing.assert_close(people.root_cam[0], cam[config.skeleton.root_index], atol=0.01, rtol=0)
    torch.testing.assert_close(people.root_uv[0], original_uv[config.skeleton.root_index], atol=1e-4, rtol=0)


def test_overlapping_people_stay_two_and_duplicates_become_one():
    config = small()
    output = empty_output(config)
    one, other = person((60.0, 60.0), seed=1), person((68.0, 60.0), seed=2)
    put(output, config, 0, (7, 7), *one, 300, 3.0)
    put(output, config, 0, (7, 6), *one, 300, 2.0)
    put(output, config, 0, (7, 8), *other, 300, 2.5)
    (people,) = decode(output, config, K, NONE)
    assert len(people) == 2 and people.scores[0] > people.scores[1]
    torch.testing.assert_close(people.joints_uv, torch.stack([one[0], other[0]]), atol=1e-3, rtol=0)


def test_joints_that_training_never_saw_do_not_tell_people_apart():
    config = dataclasses.replace(small(), oks_threshold=0.5)
    output = empty_output(config)
    (uv, depth), seen = person((60.0, 60.0), seed=1), torch.arange(J) < 3
    noisy = torch.where(seen[:, None], uv, person((60.0, 60.0), seed=2, size=40.0)[0])
    put(output, config, 0, (7, 7), uv, depth, 300, 3.0)
    put(output, config, 0, (7, 6), noisy, depth, 300, 2.0)
    assert len(decode(output, config, K, NONE)[0]) == 2
    (people,) = decode(output, config, K, NONE, valid=seen)
    assert len(people) == 1 and people.joints_uv.shape == (1, J, 2)


def test_scales_are_read_where_the_person_is_and_only_if_the_network_gave_them():
    output = empty_output(RELEASE)
    put(output, RELEASE, 0, (6, 10), *person((88.0, 56.0)), 300, 3.0)
    (without,) = decode(output, RELEASE, K, NONE)
    assert without.sigma_mm is None and without.numpy().select(np.array([0])).sigma_mm is None
    for level in output.levels:
        level.raw_sigma = torch.zeros(*level.joints.shape)
    output.levels[0].raw_sigma[0, 3, :, 6, 10] = torch.tensor([1.0, 2.0, 3.0])
    (people,) = decode(output, RELEASE, K, NONE)
    stride, depth = RELEASE.strides[0], people.joints_cam[0, :, 2]
    expected = torch.full((J, 3), 0.5, dtype=torch.float64)
    expected[3] = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).sigmoid()
    expected = expected + RELEASE.sigma_floor
    expected[:, :2] *= (stride * depth / 300)[:, None]
    expected[:, 2] *= RELEASE.joint_depth_unit
    torch.testing.assert_close(people.sigma_mm[0], expected, rtol=1e-6, atol=0)


def test_images_of_a_batch_do_not_mix():
    config = small()
    output = empty_output(config, batch=3)
    for image, seed in ((0, 1), (2, 2)):
        put(output, config, 0, (7, 7), *person((60.0, 60.0), seed), 300, 3.0, image)
    people = decode(output, config, K.repeat(3, 1, 1), NONE.repeat(3, 1))
    assert [len(p) for p in people] == [1, 0, 1]
    torch.testing.assert_close(people[2].joints_uv[0], person((60.0, 60.0), 2)[0], atol=1e-3, rtol=0)


def test_points_in_the_padding_are_no_candidates():
    config = small()
    output = empty_output(config)
    put(output, config, 0, (7, 12), *person((100.0, 60.0)), 300, 3.0)  # the point is u = 100, v = 60
    for size, n in (((128, 192), 1), ((61, 101), 1), ((60, 192), 0), ((128, 100), 0)):  # height and width
        assert len(decode(output, config, K, NONE, sizes=torch.tensor([size]))[0]) == n


def test_threshold_is_strict_and_cuts_confidence_or_score():
    for on, value in (("confidence", 0.5), ("score", 0.25)):
        config = dataclasses.replace(small(), threshold_on=on)
        output = empty_output(config)
        put(output, config, 0, (7, 7), *person((60.0, 60.0)), 300, 0.0)
        output.levels[0].centerness[:] = 0.0
        assert len(decode(output, config, K, NONE, score_threshold=value)[0]) == 0
        (people,) = decode(output, config, K, NONE, score_threshold=value - 1e-6)
        assert people.scores.tolist() == [0.25]


def test_best_candidates_of_every_level_and_at_most_max_people():
    config = dataclasses.replace(small(), suppression="none", candidates_per_level=3)
    output = empty_output(config)
    for level in output.levels:
        level.confidence[:] = torch.arange(level.confidence.numel()).view_as(level.confidence) * 0.01
    (people,) = decode(output, config, K, NONE)
    assert len(people) == 9 and (people.scores.diff() <= 0).all()
    expected = torch.cat([(level.confidence.sigmoid() * torch.tensor(9.0).sigmoid()).flatten().topk(3).values
                          for level in output.levels])  # fmt: skip
    torch.testing.assert_close(people.scores, expected.sort(descending=True).values.double())
    for suppression in ("none", "hard", "soft"):
        fewer = dataclasses.replace(config, max_people=2, suppression=suppression, oks_threshold=1.0)
        assert len(decode(output, fewer, K, NONE)[0]) == 2


@pytest.mark.parametrize("kind", ["single", "multi", "release"])
def test_the_update_is_evaluated_at_the_candidates(kind):
    config = dataclasses.replace(RELEASE if kind == "release" else small(), suppression="none", offset_origin="pixel")
    output, g = empty_output(config), torch.Generator().manual_seed(3)
    for i, stride in enumerate(config.strides):
        h, w = 128 // stride, 192 // stride
        output.updates[i] = UpdateState(
            kind,
            torch.randn(1, J, 3, h, w, generator=g),
            None if kind == "single" else torch.randn(1, J, 4, 2, h, w, generator=g),
            None if kind == "single" else torch.randn(1, J, 3 if kind == "release" else 4, h, w, generator=g),
        )
        output.levels[i].confidence[0, 0, h // 2, w // 2] = 4.0 - i
    (people,) = decode(output, config, K, NONE)
    assert len(people) == len(config.strides)
    for i, stride in enumerate(config.strides):
        y, x = 128 // stride // 2, 192 // stride // 2
        point = torch.tensor([x, y]) * stride + stride // 2
        expected = point + stride * update_dense(output.updates[i])[0, :, :2, y, x]
        torch.testing.assert_close(people.joints_uv[i].float(), expected, atol=1e-3, rtol=1e-5)
    cells = FeaturePoints(*torch.zeros(3, 0, dtype=torch.long))
    assert update_at(output.updates[0], cells).shape == (0, J, 3)


def naive_oks(a, b):
    areas = [float(torch.prod(uv.amax(0) - uv.amin(0))) for uv in (a, b)]
    return float(torch.exp(-((a - b) ** 2).sum(-1) / (2 * 0.0256 * sum(areas) / 2)).mean())


def naive_hard(uv, threshold, limit):
    kept = []
    for i in range(len(uv)):
        if len(kept) < limit and all(naive_oks(uv[i], uv[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9])
def test_hard_suppression_is_greedy(threshold):
    g = torch.Generator().manual_seed(0)
    base = torch.rand(4, J, 2, generator=g, dtype=torch.float64) * 100
    uv = base[torch.arange(40) % 4] + torch.randn(40, J, 2, generator=g, dtype=torch.float64) * 6
    scores = torch.linspace(0.9, 0.1, 40)
    config = dataclasses.replace(DASConfig(), oks_threshold=threshold, max_people=11)
    kept = suppress(uv, scores, config).tolist()
    assert kept == naive_hard(uv, threshold, 11) and 3 < len(kept) < 40


def naive_soft(uv, scores, threshold):
    left, scores, order = list(range(len(uv))), scores.tolist(), []
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        order.append(best)
        for i in left:
            scores[i] *= np.exp(-(naive_oks(uv[i], uv[best]) ** 2) / threshold)
    return order


@pytest.mark.parametrize("threshold", [0.1, 0.9])
def test_soft_suppression_orders_by_decayed_scores(threshold):
    g = torch.Generator().manual_seed(0)
    base = torch.rand(4, J, 2, generator=g, dtype=torch.float64) * 100
    uv = base[torch.arange(40) % 4] + torch.randn(40, J, 2, generator=g, dtype=torch.float64) * 6
    scores = torch.linspace(0.9, 0.1, 40, dtype=torch.float64)
    config = dataclasses.replace(DASConfig(), oks_threshold=threshold, suppression="soft")
    assert suppress(uv, scores, config).tolist() == naive_soft(uv, scores, threshold) != list(range(40))


def test_soft_suppression_keeps_all_people_and_ranks_duplicates_last():
    one, other = person((60.0, 60.0), 1)[0], person((120.0, 60.0), 2)[0]
    uv = torch.stack([one, one + 0.1, other])
    config = dataclasses.replace(DASConfig(), suppression="soft")
    assert suppress(uv, torch.tensor([0.9, 0.8, 0.5]), config).tolist() == [0, 2, 1]
    assert suppress(uv, torch.tensor([0.9, 0.8, 0.1]), config).tolist() == [0, 1, 2]

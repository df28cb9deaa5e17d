from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das import transforms
from das.camera import back_project, mean_focal, project
from das.recipe import Augmentation, InputSize, ours, release_panoptic_recipe, small_recipe
from das.sample import Sample
from das.skeleton import COCO17, COCO19, MPI15, MUCO21, MUPOTS17, PANOPTIC15
from das.transforms import (
    BORDER_COLOUR,
    FROM_HALF,
    Draw,
    DroppedSample,
    augment,
    compose,
    convert_joints,
    flip_matrix,
    inside,
    jitter_colour,
    move,
    resize_matrix,
    scale_matrix,
    train_transform,
    warp,
    window_matrix,
)

K = np.array([[900.0, 0, 330], [0, 880, 170], [0, 0, 1]])
DISTORTION = np.array([-0.2, 0.1, 1e-3, -1e-3, 0.02])


def camera_joints(people, skeleton, rng):
    """(N, J, 3) mm, in view of K on a 640 x 360 image."""
    root = np.stack([rng.uniform(-500, 500, people), rng.uniform(-150, 150, people),
                     rng.uniform(3500, 5000, people)], axis=-1)  # fmt: skip
    joints = root[:, None] + rng.normal(size=(people, len(skeleton), 3)) * [150, 200, 150]
    joints[:, skeleton.root_index] = root
    return joints


def sample(people=3, skeleton=PANOPTIC15, seed=0, image=None, depth=True):
    rng = np.random.default_rng(seed)
    cam = camera_joints(people, skeleton, rng)
    uv = project(cam, K, DISTORTION)
    if image is None:
        image = rng.integers(0, 256, (360, 640, 3), dtype=np.uint8)
    root = skeleton.root_index
    return Sample("test/a/b/1", skeleton, image, K, DISTORTION, uv, cam[..., 2], inside(uv, 360, 640),
                  uv[:, root], cam[:, root, 2], np.full(people, depth))  # fmt: skip


def smooth_image(height=360, width=640):
    """Low spatial frequencies only, so that interpolation has nothing to lose."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 40 + y / 90), np.cos(x / 70 - y / 35), np.sin(y / 50)]
    return np.rint(127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def same(a, b, rtol=1e-12):
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, np.ndarray):
            np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-9, err_msg=f.name)
        else:
            assert x == y, f.name


# Matrices and images.


@pytest.mark.parametrize(
    ("size", "image", "expected"),
    [
        (InputSize(1333, 640), (1080, 1920), (640, 1138)),  # the release's Panoptic test size
        (InputSize(1280, 768), (1080, 1920), (720, 1280)),
        (InputSize(1280, 768), (2048, 2048), (768, 768)),
        (InputSize(256, 144), (360, 640), (144, 256)),
        (InputSize(256, 144), (640, 360), (256, 144)),
        (InputSize(256, 256), (1, 4000), (1, 256)),
    ],
)
def test_images_are_resized_to_the_largest_size_that_fits(size, image, expected):
    A, new = resize_matrix(*image, size)
    assert new == expected
    np.testing.assert_allclose(A, [[new[1] / image[1], 0, 0], [0, new[0] / image[0], 0]])


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(16, 1500), st.integers(16, 800))
def test_resized_images_fit_and_keep_their_proportions(height, width, a, b):
    size = InputSize(max(a, b), min(a, b))
    h, w = size.fit(height, width)
    assert 1 <= max(h, w) <= size.long_side and 1 <= min(h, w) <= size.short_side
    scale = min(size.long_side / max(height, width), size.short_side / min(height, width))
    assert abs(h - height * scale) <= 0.5 or h == 1
    assert abs(w - width * scale) <= 0.5 or w == 1


def test_matrices_compose_in_the_order_given():
    first, second = flip_matrix(100), scale_matrix(2, 3)
    point = np.array([10.0, 20, 1])
    both = compose(first, second)
    np.testing.assert_allclose(both @ point, [2 * 89, 60])
    np.testing.assert_allclose(compose(first, first), np.eye(3)[:2])


def test_a_window_shows_what_it_cuts_out():
    A = window_matrix(100, 200, 0.5, 0.0, (0.2, -0.4))
    np.testing.assert_allclose(A @ [120, 30, 1], [100, 50])  # its centre, in the middle of the new picture
    np.testing.assert_allclose(A @ [70, 5, 1], [0, 0])  # half the size: 100 x 50 pixels
    quarter = window_matrix(100, 100, 1.0, np.pi / 2, (0, 0))
    np.testing.assert_allclose(quarter @ [100, 50, 1], [50, 0], atol=1e-12)  # right goes up: counter-clockwise


@settings(max_examples=40, deadline=None)
@given(
    st.integers(200, 440),
    st.integers(140, 220),
    st.floats(0.7, 1.5),
    st.floats(-0.3, 0.3),
    st.booleans(),
    st.sampled_from([(360, 640), (144, 256), (90, 160), (500, 888)]),
)
def test_joints_land_on_the_dots_of_a_warped_picture(u, v, scale, rotation, flip, size):
    spread = 6.0
    y, x = np.mgrid[:360, :640]
    dot = 255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * spread**2))
    image = np.repeat(np.rint(dot).astype(np.uint8)[..., None], 3, axis=2)
    A = Draw(size, flip=flip, scale=scale, rotation=rotation, shift=(0.05, -0.05)).matrix(360, 640)
    expected = A @ [u, v, 1]
    seen = warp(image, A, *size)[..., 0].astype(float)
    grid = np.stack(np.mgrid[: size[0], : size[1]][::-1], axis=-1)  # (h, w, 2): u, v
    near = np.linalg.norm(grid - expected, axis=-1) < 4 * spread * np.sqrt(np.abs(np.linalg.det(A[:, :2])))
    weight = seen * near
    centre = (weight[..., None] * grid).sum(axis=(0, 1)) / weight.sum()
    np.testing.assert_allclose(centre, expected, atol=0.05)


@pytest.mark.parametrize("size", [(90, 160), (144, 256), (180, 320), (120, 640)])
def test_shrinking_averages_instead_of_aliasing(size):
    checkerboard = np.indices((360, 640)).sum(axis=0) % 2 * 255
    image = np.repeat(checkerboard.astype(np.uint8)[..., None], 3, axis=2)
    small = warp(image, scale_matrix(size[1] / 640, size[0] / 360), *size).astype(float)
    assert abs(small.mean() - 127.5) < 2
    if size[0] <= 180 and size[1] <= 320:
        assert small[1:-1, 1:-1].std() < 3  # plain bilinear reading would keep it above 30


@pytest.mark.parametrize("scale", [0.25, 0.4, 0.5, 0.8, 1.7])
def test_warped_pictures_equal_the_picture_at_the_matrix_s_points(scale):
    image = smooth_image()
    height, width = round(360 * scale), round(640 * scale)
    A = scale_matrix(width / 640, height / 360)
    small = warp(image, A, height, width, cv2.BORDER_REPLICATE).astype(float)
    v, u = np.mgrid[:height, :width]
    source = np.stack([u / A[0, 0], v / A[1, 1]], axis=-1).astype(np.float32)
    expected = cv2.remap(image.astype(np.float32), source[..., 0], source[..., 1], cv2.INTER_LINEAR,
                         borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    assert np.abs(small - expected)[1:-1, 1:-1].max() < 2.0
    # At the edge blocks of pixels are coarser, but nothing of the border colour shows there.
    assert np.abs(small - expected).max() < 8.0


def test_outside_the_picture_is_the_mean_colour():
    image = np.zeros((100, 200, 3), np.uint8)
    out = warp(image, window_matrix(100, 200, 2.0, 0.0, (0, 0)), 100, 200)
    np.testing.assert_array_equal(out[:20], np.broadcast_to(np.rint(BORDER_COLOUR), (20, 200, 3)))
    assert not out[30:70, 60:140].any()


def test_the_test_transform_only_resizes():
    image = smooth_image(1080, 1920)
    small, A, K2 = transforms.test_transform(image, K, InputSize(1333, 640))
    assert small.shape == (640, 1138, 3) and small.dtype == np.uint8
    points = np.array([[100.0, 200, 3000], [-300, 50, 4000]])
    np.testing.assert_allclose(project(points, K2), project(points, K) @ A[:, :2].T + A[:, 2])
    white = np.full((90, 160, 3), 255, np.uint8)
    assert (transforms.test_transform(white, K, InputSize(640, 360))[0] == 255).all()
    same_size, identity, K3 = transforms.test_transform(image, K, InputSize(1920, 1080))
    np.testing.assert_array_equal(same_size, image)
    np.testing.assert_allclose(identity, np.eye(3)[:2])
    np.testing.assert_allclose(K3, K)


# Colour.


def test_neutral_colours_change_nothing_and_share_memory():
    image = smooth_image()
    assert jitter_colour(image) is image


def test_brightness_and_contrast_act_on_gray_values_and_saturate():
    image = np.array([[[0, 100, 250]]], np.uint8)
    np.testing.assert_array_equal(jitter_colour(image, brightness=20), [[[20, 120, 255]]])
    np.testing.assert_array_equal(jitter_colour(image, brightness=-20, contrast=0.5), [[[0, 30, 105]]])


def test_hue_turns_colours_by_degrees():
    red = np.full((2, 2, 3), [200, 0, 0], np.uint8)
    np.testing.assert_array_equal(jitter_colour(red, hue=120), np.full((2, 2, 3), [0, 200, 0]))
    np.testing.assert_array_equal(jitter_colour(red, hue=-120), np.full((2, 2, 3), [0, 0, 200]))


def test_saturation_spreads_and_gray_stays_gray():
    image = np.array([[[150, 100, 100], [90, 90, 90]]], np.uint8)
    more = jitter_colour(image, saturation=1.3).astype(int)
    assert more[0, 0, 0] == 150 and more[0, 0, 1] < 100
    np.testing.assert_array_equal(more[0, 1], [90, 90, 90])


@settings(max_examples=30, deadline=None)
@given(st.floats(-32, 32), st.floats(0.7, 1.3), st.floats(0.7, 1.3), st.floats(-18, 18), st.integers(0, 5))
def test_colours_follow_the_hsv_definition(brightness, contrast, saturation, hue, seed):
    image = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    gray = np.clip(np.rint(image * contrast + brightness), 0, 255).astype(np.float32)
    hsv = cv2.cvtColor(gray / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + hue) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
    out = jitter_colour(image, brightness, contrast, saturation, hue)
    # Bytes hold hue in steps of 2 degrees, of which a saturated channel shows up to 9 gray values.
    assert np.abs(out - expected).max() < 13 and np.abs(out - expected).mean() < 3


# Samples.


def some_recipe(**changes):
    return replace(small_recipe(320, 180), **changes)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_augmented_samples_back_project_to_the_original_people(seed):
    s = sample(seed=seed % 7)
    drawn = transforms.draw(some_recipe(), True, 360, 640, np.random.default_rng(seed))
    result = augment(s, drawn, some_recipe(min_people=0, min_visible_joints=0))
    assert isinstance(result, Sample)
    names = list(PANOPTIC15.flip_permutation) if drawn.flip else list(range(15))
    original = back_project(s.joints_uv, s.joints_depth, K, DISTORTION)[:, names]
    kept = inside(s.root_uv @ drawn.matrix(360, 640)[:, :2].T + drawn.matrix(360, 640)[:, 2], *drawn.size)
    found = back_project(result.joints_uv, result.joints_depth, result.K, result.distortion)
    np.testing.assert_allclose(found, original[kept], atol=1e-6)
    np.testing.assert_array_equal(result.root_depth, s.root_depth[kept])
    assert mean_focal(result.K) == pytest.approx(
        mean_focal(K) * np.sqrt(drawn.size[0] / 360 * drawn.size[1] / 640) / drawn.scale
    )


def test_joints_that_leave_the_image_become_invisible_and_people_without_root_leave():
    s = sample(4, seed=1)
    drawn = Draw((180, 320), scale=0.5, shift=(0.4, 0.0))
    result = augment(s, drawn, some_recipe(min_people=0, min_visible_joints=0))
    moved = s.joints_uv @ drawn.matrix(360, 640)[:, :2].T + drawn.matrix(360, 640)[:, 2]
    root_in = inside(moved[:, 2], 180, 320)
    assert 0 < root_in.sum() < 4, "the case must cut some people off"
    np.testing.assert_array_equal(result.visible, (s.visible & inside(moved, 180, 320))[root_in])
    assert not result.visible.all() and len(result.has_depth) == root_in.sum()


def test_who_loses_the_root_and_is_still_visible_is_masked_except_by_the_release():
    s = replace(sample(4, seed=1), masked=np.array([[300.0, 100, 420, 260], [2, 2, 9, 9]]))
    drawn = Draw((180, 320), scale=0.5, shift=(0.4, 0.0))
    A = drawn.matrix(360, 640)
    uv = s.joints_uv @ A[:, :2].T + A[:, 2]
    seen = inside(uv, 180, 320) & s.visible
    cut = [k for k in range(4) if not inside(uv[k, 2], 180, 320) and seen[k].any()]
    assert cut, "the case must cut some people off"
    result = augment(s, drawn, some_recipe(min_people=0, min_visible_joints=0))
    corner = np.array([[300.0, 100], [420, 260]]) @ A[:, :2].T + A[:, 2]
    wanted = [corner.clip(-0.5, [319.5, 179.5]).ravel()]  # the other box leaves the image
    wanted += [np.concatenate([uv[k][seen[k]].min(0), uv[k][seen[k]].max(0)]) for k in cut]
    np.testing.assert_allclose(result.masked, wanted)
    off = some_recipe(min_people=0, min_visible_joints=0, mask_people_without_root=False)
    assert augment(s, drawn, off).masked.shape == (0, 4)
    assert not release_panoptic_recipe().mask_people_without_root and ours().mask_people_without_root


def test_a_turned_box_still_contains_what_it_contained():
    A = window_matrix(360, 640, 1.1, 0.15, (0.02, -0.03))
    box = np.array([[200.0, 120, 300, 260]])
    moved = move(replace(sample(), masked=box), A, 360, 640).masked
    points = np.random.default_rng(0).uniform(box[0, :2], box[0, 2:], (500, 2)) @ A[:, :2].T + A[:, 2]
    assert moved.shape == (1, 4) and (points >= moved[0, :2]).all() and (points <= moved[0, 2:]).all()


def test_flipping_twice_is_the_identity():
    s = replace(sample(), masked=np.array([[10.0, 20, 60, 90]]))
    once = move(s, flip_matrix(640), 360, 640, mirrored=True)
    assert np.linalg.det(once.K) < 0
    np.testing.assert_array_equal(once.image, s.image[:, ::-1])
    wrist = PANOPTIC15.index("l_wrist"), PANOPTIC15.index("r_wrist")
    np.testing.assert_allclose(once.joints_uv[:, wrist[0], 0], 639 - s.joints_uv[:, wrist[1], 0])
    np.testing.assert_array_equal(once.joints_depth[:, wrist[0]], s.joints_depth[:, wrist[1]])
    same(move(once, flip_matrix(640), 360, 640, mirrored=True), s)


def test_the_identity_draw_changes_nothing():
    s = sample()
    same(augment(s, Draw((360, 640)), ours()), s)


def test_border_keeps_its_colour_whatever_happens_to_the_picture():
    s = sample(image=np.full((360, 640, 3), 60, np.uint8))
    result = augment(s, Draw((360, 640), scale=1.6, rotation=0.2, brightness=30, hue=10, saturation=1.2), ours())
    corner = result.image[:30, :30].reshape(-1, 3)
    np.testing.assert_array_equal(np.unique(corner, axis=0), [np.rint(BORDER_COLOUR)])
    np.testing.assert_array_equal(result.image[180, 320], [90, 90, 90])


def test_the_same_seed_gives_the_same_sample_and_another_one_does_not():
    s, recipe = sample(), ours()
    a, b, c = (train_transform(s, recipe, np.random.default_rng(seed)) for seed in (5, 5, 6))
    same(a, b)
    assert not np.array_equal(a.K, c.K)


def test_the_input_is_left_as_it_was():
    s = sample()
    before = {f.name: np.array(getattr(s, f.name)) for f in fields(s) if f.name not in ("key", "skeleton")}
    for seed in range(5):
        train_transform(s, release_panoptic_recipe(), np.random.default_rng(seed))
    convert_joints(sample(skeleton=COCO19), PANOPTIC15, release_panoptic_recipe())
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(s, name), value)


def test_draws_stay_in_their_ranges_and_use_the_right_ones():
    recipe = release_panoptic_recipe()
    rng = np.random.default_rng(0)
    with_depth = [transforms.draw(recipe, True, 1080, 1920, rng) for _ in range(400)]
    without = [transforms.draw(recipe, False, 1080, 1920, rng) for _ in range(400)]
    for draws, ranges in ((with_depth, recipe.with_depth), (without, recipe.without_depth)):
        scales = [d.scale for d in draws]
        low, high = ranges.scale
        assert low <= min(scales) < low + 0.05 and high - 0.05 < max(scales) <= high
        turns = [d.rotation for d in draws]
        np.testing.assert_allclose([min(turns), max(turns)], [-ranges.rotation, ranges.rotation], atol=0.01)
        assert max(np.abs(turns)) <= ranges.rotation
        assert np.std([d.shift for d in draws]) == pytest.approx(0.15, rel=0.15)
        short = [d.size[0] for d in draws]
        assert 512 <= min(short) < 520 and 632 < max(short) <= 640
        assert all(abs(d.size[1] - d.size[0] * 16 / 9) <= 1 for d in draws)
        assert 0.4 < np.mean([d.flip for d in draws]) < 0.6
        assert 0.4 < np.mean([d.brightness != 0 for d in draws]) < 0.6
        assert max(abs(d.hue) for d in draws) <= ranges.hue
    assert not any(d.rotation for d in with_depth) and all(d.rotation for d in without)


def test_2d_samples_draw_from_the_ranges_without_depth():
    recipe = replace(ours(), with_depth=Augmentation(scale=(5, 5)), without_depth=Augmentation(scale=(1, 1)))
    focal = mean_focal(K)
    for depth, zoom in ((True, 0.2), (False, 1.0)):
        s = sample(depth=depth)
        result = train_transform(s, replace(recipe, min_people=0, min_visible_joints=0), np.random.default_rng(1))
        resized = np.sqrt(result.image.shape[0] / 360 * result.image.shape[1] / 640)
        assert mean_focal(result.K) / focal / resized == pytest.approx(zoom)


def test_an_image_without_people_is_dropped_or_kept_as_background():
    no_people = sample(0)
    rng = np.random.default_rng(0)
    assert train_transform(no_people, ours(), rng) == DroppedSample("test/a/b/1", "too few visible joints")
    kept = train_transform(no_people, some_recipe(min_people=0, min_visible_joints=0), rng)
    assert isinstance(kept, Sample) and len(kept.root_depth) == 0
    assert max(kept.image.shape[:2]) == 320


def test_one_person_trains_ours_but_never_the_release():
    one, drawn = sample(1), Draw((360, 640))
    assert isinstance(augment(one, drawn, ours()), Sample)
    dropped = augment(one, drawn, release_panoptic_recipe())
    assert dropped == DroppedSample("test/a/b/1", "too few people after augmentation")


def test_no_picture_is_warped_only_to_be_dropped(monkeypatch):
    monkeypatch.setattr(cv2, "warpAffine", lambda *_, **__: pytest.fail("warped"))
    rng, away = np.random.default_rng(0), Draw((360, 640), shift=(5.0, 0.0))
    assert train_transform(sample(1), release_panoptic_recipe(), rng) == DroppedSample("test/a/b/1", "too few people")
    assert augment(sample(1), away, ours()) == DroppedSample("test/a/b/1", "too few people after augmentation")


def test_six_visible_joints_are_too_few_only_below_six():
    s = sample(2)
    visible = np.zeros((2, 15), bool)
    visible[0, :5] = True
    recipe = release_panoptic_recipe()
    rng = np.random.default_rng(0)
    few = DroppedSample(s.key, "too few visible joints")
    assert train_transform(replace(s, visible=visible), recipe, rng) == few
    visible[1, 0] = True
    assert train_transform(replace(s, visible=visible), recipe, rng) != few


def test_the_release_scales_the_depths_of_its_first_person_only():
    s = sample(3, seed=2)
    drawn = Draw((360, 640), scale=1.25)
    clean = augment(s, drawn, ours())
    slip = augment(s, drawn, release_panoptic_recipe())
    normalised = clean.root_depth / mean_focal(clean.K), slip.root_depth / mean_focal(slip.K)
    before = s.root_depth / mean_focal(K)
    np.testing.assert_allclose(normalised[0] / before, [1.25, 1.25, 1.25])
    np.testing.assert_allclose(normalised[1] / before, [1.25, 1, 1])
    dz, dz_slip, dz_before = (x.joints_depth - x.root_depth[:, None] for x in (clean, slip, s))
    np.testing.assert_allclose(dz, dz_before, atol=1e-9)
    np.testing.assert_allclose(dz_slip, dz_before * np.array([1.25, 1, 1])[:, None], atol=1e-9)


# Joint sets.


def test_the_nose_of_coco19_is_the_head_in_ours_and_nothing_in_the_release():
    s = replace(sample(skeleton=COCO19), visible=np.ones((3, 19), bool))
    head = PANOPTIC15.index("head")
    mended, release = (convert_joints(s, PANOPTIC15, r) for r in (ours(), release_panoptic_recipe()))
    assert mended.visible.all()
    np.testing.assert_array_equal(mended.joints_uv[:, head], s.joints_uv[:, COCO19.index("nose")])
    assert not release.visible[:, head].any() and np.delete(release.visible, head, axis=1).all()
    # The head top of the older files counts in both.
    older = replace(sample(skeleton=MPI15), visible=np.ones((3, 15), bool))
    assert convert_joints(older, PANOPTIC15, release_panoptic_recipe()).visible.all()


def test_missing_joints_are_invisible_and_the_root_stays():
    coco = Sample("k", COCO17, np.zeros((9, 9, 3), np.uint8), np.eye(3), np.zeros(5), np.full((1, 17, 2), 4.0),
                  np.zeros((1, 17)), np.ones((1, 17), bool), np.array([[3.0, 2.0]]), np.zeros(1),
                  np.zeros(1, bool))  # fmt: skip
    converted = convert_joints(coco, PANOPTIC15, ours())
    assert [PANOPTIC15.joints[k] for k in np.flatnonzero(~converted.visible[0])] == ["neck", "mid_hip"]
    np.testing.assert_array_equal(converted.root_uv, [[3, 2]])
    assert converted.skeleton is PANOPTIC15
    no_people = convert_joints(coco.select(np.zeros(1, bool)), MUCO21, ours())
    assert no_people.joints_uv.shape == (0, 21, 2)


def test_converting_and_flipping_commute():
    s = sample(skeleton=COCO19)
    A = flip_matrix(640)
    same(
        convert_joints(move(s, A, 360, 640, mirrored=True), PANOPTIC15, ours()),
        move(convert_joints(s, PANOPTIC15, ours()), A, 360, 640, mirrored=True),
    )


def test_coco_people_get_a_neck_and_a_mid_hip_on_request_where_all_parts_are_seen():
    recipe = replace(ours(), synthesised_joints=("neck", "mid_hip"))
    people = sample(skeleton=MUPOTS17)
    s = convert_joints(people, COCO17, ours())
    s.visible[1, COCO17.index("r_hip")] = False
    plain, made = (convert_joints(s, PANOPTIC15, r) for r in (ours(), recipe))
    neck, mid_hip = PANOPTIC15.index("neck"), PANOPTIC15.index("mid_hip")
    assert not plain.visible[:, [neck, mid_hip]].any() and (plain.joints_uv[:, [neck, mid_hip]] == 0).all()
    assert made.visible[:, mid_hip].tolist() == [v and k != 1 for k, v in enumerate(s.visible[:, 12])]
    hips = [COCO17.index(f"{side}_hip") for side in "lr"]
    np.testing.assert_allclose(made.joints_uv[:, mid_hip], s.joints_uv[:, hips].mean(axis=1))
    np.testing.assert_allclose(made.joints_depth[:, mid_hip], s.joints_depth[:, hips].mean(axis=1))
    others = [k for k in range(15) if k not in (neck, mid_hip)]
    assert np.array_equal(made.visible[:, others], plain.visible[:, others])
    # A source that has the joints keeps its own.
    same(convert_joints(people, MUPOTS17, recipe), people)


@pytest.mark.parametrize("size", [(360, 640), (361, 639)])
@pytest.mark.parametrize("flip", [False, True])
def test_half_decoding_changes_no_geometry_and_pixels_by_a_few_grey_levels(size, flip):
    height, width = size
    noise = np.random.default_rng(0).uniform(0, 255, (height, width, 3))
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    data = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    asked = []

    def decode(half):
        asked.append(half)
        flags = cv2.IMREAD_REDUCED_COLOR_2 if half else cv2.IMREAD_COLOR
        return cv2.imdecode(data, flags)[..., ::-1], half

    drawn = Draw((180, 320), flip=flip, scale=1.2, rotation=0.1, shift=(0.05, -0.04))
    s = replace(sample(), image=smooth)
    half, full = (augment(s, drawn, replace(ours(), scaled_decoding=on), decode) for on in (True, False))
    assert asked == [True, False]
    same(replace(half, image=full.image), full)
    difference = np.abs(half.image.astype(int) - full.image)
    assert difference.mean() < 2 < full.image.std() / 5
    # Half a pixel beside, the pixels would differ by far more.
    beside = warp(decode(True)[0], compose(FROM_HALF + [[0, 0, 1], [0, 0, 0]], drawn.matrix(*size)), 180, 320)
    assert np.abs(beside.astype(int) - full.image).mean() > 2 * difference.mean()
    # Seen at more than half its size an image keeps all its pixels.
    augment(s, replace(drawn, scale=0.9), ours(), decode)
    assert asked[-1] is False

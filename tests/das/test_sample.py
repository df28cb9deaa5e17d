from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from das.assign import with_targets
from das.config import small
from das.sample import Sample, collate
from das.skeleton import COCO17, PANOPTIC15


def sample(people=2, height=40, width=50, skeleton=PANOPTIC15, seed=0):
    rng = np.random.default_rng(seed)
    j = len(skeleton)
    return Sample(
        key=f"test/seq/cam/{seed}",
        skeleton=skeleton,
        image=rng.integers(1, 256, (height, width, 3), dtype=np.uint8),
        K=np.array([[500.0 + seed, 0, 25], [0, 510, 20], [0, 0, 1]]),
        distortion=rng.normal(size=5) / 100,
        joints_uv=rng.uniform(0, 40, (people, j, 2)),
        joints_depth=rng.uniform(1000, 5000, (people, j)),
        visible=rng.random((people, j)) < 0.7,
        root_uv=rng.uniform(0, 40, (people, 2)),
        root_depth=rng.uniform(1000, 5000, people),
        has_depth=rng.random(people) < 0.5,
    )


PER_PERSON = ("joints_uv", "joints_depth", "visible", "root_uv", "root_depth", "has_depth")


def test_select_keeps_the_chosen_people_in_order_and_the_image():
    three = sample(3)
    by_mask = three.select(np.array([True, False, True]))
    by_index = three.select(np.array([2, 0]))
    for name in PER_PERSON:
        np.testing.assert_array_equal(getattr(by_mask, name), getattr(three, name)[[0, 2]])
        np.testing.assert_array_equal(getattr(by_index, name), getattr(three, name)[[2, 0]])
    assert by_mask.image is three.image and by_mask.key == three.key
    assert len(three.select(np.zeros(3, bool)).root_depth) == 0


def test_collate_keeps_masked_boxes_and_pads_with_boxes_that_contain_no_point():
    box = np.array([[3.0, 4, 20, 30]])
    batch = collate([replace(sample(seed=1), masked=box), sample(seed=2)])
    assert batch.masked.shape == (2, 1, 4) and batch.masked[0].tolist() == box.tolist()
    low, high = batch.masked[1, 0, :2], batch.masked[1, 0, 2:]
    assert (low > high).all()
    assert collate([sample()]).masked.shape == (1, 0, 4)


@pytest.mark.parametrize("name", ["K", "distortion", *(n for n in PER_PERSON if n != "visible")])
def test_a_field_of_another_shape_is_a_broken_belief(name):
    good = sample()
    with pytest.raises(AssertionError, match=name):
        replace(good, **{name: getattr(good, name)[:-1]})


def test_joints_must_be_those_of_the_joint_set():
    with pytest.raises(AssertionError, match="coco17"):
        replace(sample(), skeleton=COCO17)


def test_images_must_be_bytes():
    with pytest.raises(AssertionError, match="float"):
        replace(sample(), image=sample().image.astype(np.float32))


def test_collate_pads_images_right_and_below_and_people_behind():
    samples = [sample(2, 40, 50, seed=1), sample(0, 33, 70, seed=2), sample(3, 64, 20, seed=3)]
    batch = collate(samples)
    assert batch.images.shape == (3, 3, 64, 96) and batch.images.dtype == torch.uint8
    assert batch.sizes.tolist() == [[40, 50], [33, 70], [64, 20]]
    assert batch.keys == [s.key for s in samples]
    assert batch.person_mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    for i, s in enumerate(samples):
        h, w = s.image.shape[:2]
        np.testing.assert_array_equal(batch.images[i, :, :h, :w].permute(1, 2, 0), s.image)
        outside = batch.images[i].clone()
        outside[:, :h, :w] = 0
        assert not outside.any()
        n = len(s.root_depth)
        for name in PER_PERSON:
            tensor = getattr(batch, name)
            np.testing.assert_allclose(tensor[i, :n].numpy(), getattr(s, name), rtol=1e-6)
            assert not tensor[i, n:].any()
        np.testing.assert_allclose(batch.K[i], s.K, rtol=1e-6)
        np.testing.assert_allclose(batch.distortion[i], s.distortion, rtol=1e-6)


def test_a_short_lens_is_padded_where_another_has_twelve_coefficients():
    lens = np.linspace(0.01, 0.12, 12)
    a, b = sample(1, seed=1), replace(sample(1, seed=2), distortion=lens)
    batch = collate([a, b])
    assert batch.distortion.shape == (2, 12)
    np.testing.assert_allclose(batch.distortion[0], [*a.distortion, *[0] * 7], rtol=1e-6)
    np.testing.assert_allclose(batch.distortion[1], lens, rtol=1e-6)
    with pytest.raises(AssertionError):
        replace(a, distortion=np.zeros(8))


def test_collate_of_images_without_anybody():
    batch = collate([sample(0, seed=1), sample(0, seed=2)])
    assert batch.joints_uv.shape == (2, 0, 15, 2)
    assert batch.person_mask.shape == (2, 0)


def test_collate_types_and_padding_multiple():
    batch = collate([sample(1, 40, 50)], pad_to=64)
    assert batch.images.shape[-2:] == (64, 64)
    for name in ("K", "distortion", "joints_uv", "joints_depth", "root_uv", "root_depth"):
        assert getattr(batch, name).dtype == torch.float32
    for name in ("visible", "has_depth", "person_mask"):
        assert getattr(batch, name).dtype == torch.bool


def test_absent_values_become_numbers_but_stay_masked():
    one = sample(2)
    absent = replace(one, joints_depth=np.full_like(one.joints_depth, np.nan), root_depth=np.full(2, np.nan),
                     has_depth=np.zeros(2, bool))  # fmt: skip
    batch = collate([absent])
    assert torch.isfinite(batch.joints_depth).all() and torch.isfinite(batch.root_depth).all()
    assert not batch.has_depth.any()


def test_collate_takes_mirrored_and_cropped_views():
    one = sample(1)
    view = replace(one, image=one.image[:, ::-1], visible=one.visible[:, ::-1])
    np.testing.assert_array_equal(collate([view]).images[0, :, :40, :50].permute(1, 2, 0), one.image[:, ::-1])


def test_collate_refuses_mixed_joint_sets_and_nothing():
    with pytest.raises(AssertionError, match="joint set"):
        collate([sample(), sample(skeleton=COCO17)])
    with pytest.raises(AssertionError, match="at least one"):
        collate([])


def test_moving_a_batch_keeps_every_field():
    batch = collate([sample(1), sample(2)])
    moved = batch.to("cpu")
    for f in fields(batch):
        value = getattr(moved, f.name)
        if f.name in ("keys", "targets"):
            assert value == getattr(batch, f.name)
        else:
            assert torch.equal(value, getattr(batch, f.name))
    assert batch.to("meta").images.device.type == "meta"


def test_targets_move_with_their_batch_and_the_counts_stay_on_the_host():
    batch = with_targets(collate([sample(1), sample(2)]), small())
    moved = batch.to("meta").targets
    for f in fields(moved):
        tensors = [t for level in moved.cells for t in level] if f.name == "cells" else [getattr(moved, f.name)]
        assert all(t.device.type == ("cpu" if f.name == "counts" else "meta") for t in tensors), f.name
    assert torch.equal(moved.counts, batch.targets.counts)

"""The assignment of a record is that of the criterion at the test size, with a reason for people without positives."""

import numpy as np
import pytest

from das.assign import assign
from das.sample import collate
from das.skeleton import skeleton_named
from das.transforms import convert_joints, resize_matrix
from pipeline.data.browse.assignment import OUTSIDE, OVERLAPPED, assign_record, preset_for
from pipeline.data.record import UNLABELLED, left_out
from pipeline.data.samples import to_sample


def test_levels_and_points_are_those_of_the_assignment(records, preset):
    for record in records[::5]:
        found = assign_record(record, preset)
        positives = assign(collate([found.sample]), preset.model)
        for i, person in enumerate(found.people):
            counts = [int((level.person == i).sum()) for level in positives]
            assert sum(counts) == found.points[i]
            low, high = preset.model.level_ranges[found.level[i]]
            if counts[found.level[i]]:
                assert low <= found.r_max[i] <= high and counts[found.level[i]] == found.points[i]
            else:
                assert found.reasons[person] in (OUTSIDE, OVERLAPPED) and found.level[i] == -1


def test_without_the_image_the_assignment_is_the_same(records, preset):
    for record in records[:3]:
        with_pixels, black = (assign_record(record, preset, with_image) for with_image in (True, False))
        # Only the border is interpolated with the padding.
        assert (
            with_pixels.sample.image.mean() > 20 > black.sample.image.mean()
            and not black.sample.image[2:-2, 2:-2].any()
        )
        np.testing.assert_array_equal(with_pixels.points, black.points)
        np.testing.assert_array_equal(with_pixels.r_max, black.r_max)
        np.testing.assert_array_equal(with_pixels.reasons, black.reasons)


def test_positions_are_those_of_the_resized_image(records, preset):
    record = records[0]
    sample = assign_record(record, preset).sample
    A, size = resize_matrix(record.height, record.width, preset.recipe.test_size)
    native = convert_joints(to_sample(record)[0], preset.model.skeleton, preset.recipe)
    np.testing.assert_allclose(sample.joints_uv, native.joints_uv @ A[:, :2].T + A[:, 2])
    assert sample.image.shape[:2] == size


def test_every_person_left_out_has_a_reason(records, preset):
    record = max(records, key=len)
    root = list(skeleton_named(record.skeleton).root_indices)
    record = type(record)(**{**vars(record), "state": record.state.copy(), "valid": record.valid.copy(),
                             "ignore": record.ignore.copy()})  # fmt: skip
    record.state[0, root] = UNLABELLED
    record.valid[1] = False
    reasons = assign_record(record, preset).reasons
    assert reasons[:2].tolist() == ["root unlabelled", "invalid"] == left_out(record)[:2].tolist()
    record.ignore[:] = True
    found = assign_record(record, preset)
    assert set(found.reasons) == {"ignored"} and not len(found.people) and not len(found.points)


@pytest.mark.parametrize(
    ("joints", "variant", "recipe"),
    [(("coco19",), "release_panoptic", "ours_panoptic"), (("mupots17",), "release_mupots", "ours_mupots")],
)
def test_the_joint_set_decides_the_preset_unless_it_is_named(joints, variant, recipe):
    assert preset_for(None, None, joints).name == f"{variant} with recipe {recipe}"
    assert preset_for("small", None, joints).name == "small with recipe small"
    assert preset_for("paper_mspn", "release_mupots", joints).name == "paper_mspn with recipe release_mupots"

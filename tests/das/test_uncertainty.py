"""Calibrated doubt: the guarantee of split conformal prediction, groups of joints, and radii that grow with scales."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from das.skeleton import COCO17, PANOPTIC15, SKELETONS
from das.uncertainty import LEVELS, ROOT, Calibration, joint_groups, joint_scales


def test_left_and_right_are_one_group_and_a_root_joint_is_in_none():
    groups = dict(zip(PANOPTIC15.joints, joint_groups(PANOPTIC15), strict=True))
    assert groups["l_wrist"] == groups["r_wrist"] == "wrist" and groups["mid_hip"] is None and groups["neck"] == "neck"
    assert None not in joint_groups(COCO17), "its root is the mean of two joints, which both have errors"
    for skeleton in SKELETONS.values():
        groups = joint_groups(skeleton)
        assert [groups[i] for i in skeleton.flip_permutation] == list(groups)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("people", [19, 60])
def test_radii_of_held_out_people_hold_new_errors_as_often_as_stated(level, people):
    """For exchangeable scores without ties the probability is k / (n + 1) exactly, whatever their distribution."""
    rng = np.random.default_rng(0)
    scores = rng.pareto(1.1, size=(4000, people + 1))  # of infinite variance
    radii = [Calibration.fit({"wrist": held_out}, True).radius("wrist", level) for held_out in scores[:, 1:]]
    inside = (scores[:, 0] <= radii).mean()
    assert math.ceil(round((people + 1) * level, 9)) / (people + 1) == pytest.approx(inside, abs=0.02)
    assert inside > level - 0.02


def test_too_few_people_for_a_level_give_an_infinite_radius():
    calibration = Calibration.fit({"wrist": np.arange(1.0, 19), ROOT: np.array([])}, True)
    assert calibration.radius("wrist", 0.9) == 18 and calibration.radius("wrist", 0.95) == math.inf
    assert Calibration.fit({"wrist": np.arange(1.0, 20)}, True).radius("wrist", 0.95) == 19
    assert calibration.radius(ROOT, 0.5) == calibration.radius("knee", 0.5) == math.inf
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json(), allow_nan=False))) == calibration


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_radii_grow_with_the_level(scores):
    calibration = Calibration.fit({"wrist": np.array(scores)}, True)
    radii = [calibration.radius("wrist", level) for level in LEVELS]
    assert radii == sorted(radii) and set(radii) <= {*scores, math.inf}


def test_radii_are_scales_times_the_groups_and_a_root_joint_has_none():
    everything = {name: np.full(99, 2.0) for name in joint_groups(PANOPTIC15) if name} | {ROOT: np.full(99, 0.1)}
    everything["knee"] = np.full(99, 3.0)
    calibration = Calibration.fit(everything, True)
    sigma = np.tile([2.0, 3.0, 6.0], (4, 15, 1))
    radii = calibration.joint_radii(joint_scales(sigma, np.zeros((4, 15, 3))), PANOPTIC15, 0.9)
    wanted = {"mid_hip": 0.0, "l_knee": 21.0, "r_knee": 21.0}
    assert radii.shape == (4, 15)
    assert dict(zip(PANOPTIC15.joints, radii[0], strict=True)) == {j: wanted.get(j, 14.0) for j in PANOPTIC15.joints}
    assert calibration.root_radii(np.array([[300.0, 0.0, 400.0]]), 0.9) == pytest.approx([50.0])
    assert (joint_scales(None, np.zeros((4, 15, 3))) == np.ones((4, 15))).all()


def test_unknown_levels_and_broken_tables_are_named():
    calibration = Calibration.fit({"wrist": np.ones(5)}, True)
    with pytest.raises(ValueError, match=r"level = 0.42, wanted one of 0.05, 0.1"):
        calibration.radius("wrist", 0.42)
    with pytest.raises(ValueError, match="calibration of wrist: 1 radii found, 20 wanted"):
        Calibration({"wrist": (1.0,)}, {"wrist": 3}, True)
    with pytest.raises(ValueError, match="level"):
        Calibration.from_json({**calibration.to_json(), "level": 3})

"""Statistics of rows: every joint set and recipe gives the numbers of a pass over the records."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from das.recipe import ours, release_panoptic_recipe
from das.skeleton import COCO17, COCO19, SKELETONS, Skeleton, skeleton_named
from das.transforms import convert_labels, convert_values, recipe_conversion
from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.pose_statistics import pose_statistics, scorable
from pipeline.data.record import UNLABELLED
from pipeline.evaluation.ground_truth import strict_truth
from tests.pipeline.data.records import record

BIRD = Skeleton("bird", ("beak", "l wing", "r wing"), (("beak", "l wing"),), ("beak",))
RECIPES = {
    "ours": ours(),
    "release": release_panoptic_recipe(),
    "neck": replace(ours(), synthesised_joints=("neck",)),
    "all": replace(ours(), synthesised_joints=("neck", "mid_hip")),
}


def rows(skeleton, n=9):
    """Records of which some have no people, and some are annotated in 2D only."""
    made = []
    for seed in range(n):
        made.append(record(skeleton, people=seed % 5, seed=seed, in_3d=skeleton is not COCO17 and seed % 4 > 0))
        made[-1].state[seed % 3 :: 3] = 2  # whole people too, not only of random gaps
    return made


def by_one_pass(records, skeleton, recipe):
    """People, labelled joints and mean pose, computed from the records themselves."""
    people, labelled, in_3d, total = 0, np.zeros(len(skeleton), int), np.zeros(len(skeleton), int), 0.0
    for r in records:
        native = skeleton_named(r.skeleton)
        table = recipe_conversion(native, skeleton, recipe)
        root = list(native.root_indices)
        known = r.state > UNLABELLED
        usable = r.valid & ~r.ignore & known[:, root].all(axis=1)
        known = convert_labels(known[usable], table)
        people += usable.sum()
        labelled += known.sum(axis=0)
        if r.joints_cam is not None:
            joints = r.joints_cam[usable].astype(np.float64)
            values = convert_values(joints - joints[:, root].mean(axis=1, keepdims=True), table)
            total = total + np.where(known[..., None], values, 0.0).sum(axis=0)
            in_3d += known.sum(axis=0)
    return people, labelled, total / np.maximum(in_3d, 1)[:, None]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_pair_of_joint_sets_gives_the_numbers_of_a_pass_over_the_records(recipe):
    synthesised = 0
    for native, target in product(SKELETONS.values(), SKELETONS.values()):
        records = [*rows(native), *rows(COCO19, 3)]
        found = pose_statistics(JointStatistics(records), target, recipe)
        people, labelled, mean_pose = by_one_pass(records, target, recipe)
        assert found.people == people > 0 and found.labelled.tolist() == labelled.tolist(), (native.name, target.name)
        assert np.allclose(found.mean_pose, mean_pose, rtol=1e-12, atol=1e-9), (native.name, target.name)
        synthesised += len(recipe_conversion(native, target, recipe).mixtures)
    assert (synthesised > 0) == bool(recipe.synthesised_joints)


def test_scorable_people_are_those_whose_root_the_strict_protocol_counts():
    for native, target in product(SKELETONS.values(), SKELETONS.values()):
        records = [r for r in rows(native) if r.joints_cam is not None]
        wanted = strict_truth(records, target).counted(target.root_indices).sum() if records else 0
        assert scorable(JointStatistics(records), target) == wanted, (native.name, target.name)
    assert wanted > 0


def test_statistics_of_parts_add_up_to_those_of_all_rows_and_survive_json():
    records = [*rows(COCO19, 70), *rows(COCO17), *rows(COCO19, 3)]
    assert any(len(r) == 0 for r in records)
    merged = JointStatistics()
    for part in (records[:31], [], records[31:]):
        stored = json.loads(json.dumps(JointStatistics(part).to_json()))
        assert JointStatistics.from_json(stored).to_json() == stored
        merged.merge(JointStatistics.from_json(stored))
    whole = JointStatistics(records)
    assert whole.skeletons["coco19"].images == 73 and whole.skeletons["coco17"].images_3d == 0
    for recipe in RECIPES.values():
        a, b = (pose_statistics(s, COCO19, recipe) for s in (merged, whole))
        assert a.people == b.people and a.labelled.tolist() == b.labelled.tolist()
        assert np.allclose(a.mean_pose, b.mean_pose, rtol=1e-12, atol=1e-9)


def test_joint_sets_of_the_users_own_are_counted_whatever_their_joints_are_called():
    own = replace(record(BIRD, people=4), skeleton=BIRD.text)
    stored = json.loads(json.dumps(JointStatistics([own]).to_json()))
    found = pose_statistics(JointStatistics.from_json(stored), BIRD, ours())
    people, labelled, mean_pose = by_one_pass([own], BIRD, ours())
    assert found.people == people and found.labelled.tolist() == labelled.tolist()
    assert np.allclose(found.mean_pose, mean_pose)


def test_no_rows_have_no_people_and_no_supervised_joint():
    found = pose_statistics(JointStatistics([]), COCO19, ours())
    assert found.people == 0 and found.unsupervised_joints == COCO19.joints and not found.mean_pose.any()

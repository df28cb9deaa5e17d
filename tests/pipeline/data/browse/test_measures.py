"""Statistics added record by record equal those computed from all rows at once."""

import numpy as np

from das.skeleton import skeleton_named
from pipeline.data.browse.measures import LevelStatistics
from pipeline.data.record import left_out


def test_numbers_are_those_of_the_rows(measured, records):
    train = measured[0].splits["train"]
    usable = [left_out(r) == "" for r in records]
    assert train.people_per_image.n == len(records) == 32
    assert train.people_per_image.total == sum(u.sum() for u in usable)
    depths = np.concatenate([r.joints_cam[u, 2, 2] for r, u in zip(records, usable, strict=True)]) / 1000
    assert train.depth.n == len(depths) and np.isclose(train.depth.mean, depths.mean(), rtol=1e-6)
    assert abs(train.depth.quantile(0.5) - np.median(depths)) < 0.15
    joints = train.joints["coco19"]
    state = np.concatenate([r.state[r.valid & ~r.ignore] for r in records])
    assert joints.people == len(state) and (joints.labelled == (state > 0).sum(axis=0)).all()
    assert (joints.visible <= joints.labelled).all() and joints.visible.any()
    a, b = skeleton_named("coco19").bone_indices[3]
    known = state[:, [a, b]].all(axis=1)
    people = np.concatenate([r.joints_cam[r.valid & ~r.ignore] for r in records]).astype(float)
    lengths = np.linalg.norm(people[known, a] - people[known, b], axis=-1)
    assert joints.bones[3].n == len(lengths) and np.isclose(joints.bones[3].mean, lengths.mean(), rtol=1e-6)


def test_levels_add_up(measured, records, preset):
    levels = measured[0].splits["train"].levels
    assert levels.images == 32 and levels.people == sum((left_out(r) == "").sum() for r in records)
    assert levels.on_level.sum() + sum(levels.without_positives.values()) == levels.people == levels.r_max.n
    again = LevelStatistics(preset)
    for record in records:
        again.add(record)
    np.testing.assert_array_equal(again.points, levels.points)

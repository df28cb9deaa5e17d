"""BVH files, read by a reader of their own: bones keep their directions, and rigid motions come back exactly."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from das.bvh import bvh
from das.skeleton import COCO17, PANOPTIC15, Skeleton

ALL = [True] * len(PANOPTIC15)
ROOT = PANOPTIC15.root_index


def read_bvh(text):
    """Names in order, and their positions (T, N, 3) by forward kinematics, from the text alone."""
    head, motion = text.split("MOTION\n")
    names, offsets, parents, stack, skip = [], [], [], [], False
    for words in map(str.split, head.splitlines()[1:]):
        if words[0] in ("ROOT", "JOINT"):
            names.append(words[1])
            parents.append(stack[-1] if stack else None)
        elif words[0] == "End":
            skip = True
        elif words[0] == "OFFSET" and not skip:
            offsets.append(np.array(words[1:], float))
        elif words[0] == "CHANNELS":
            expected = ["Xposition", "Yposition", "Zposition"] * (len(names) == 1)
            assert words[2:] == [*expected, "Zrotation", "Xrotation", "Yrotation"]
        elif words[0] == "{":
            stack.append(len(names) - 1)
        elif words[0] == "}":
            stack.pop()
            skip = False
    assert not stack
    lines = motion.splitlines()
    values = np.array([line.split() for line in lines[2:]], float)
    assert lines[0] == f"Frames: {len(values)}" and values.shape[1] == 3 + 3 * len(names)
    place, turn = [], []
    for n, (offset, parent) in enumerate(zip(offsets, parents, strict=True)):
        own = Rotation.from_euler("ZXY", values[:, 3 + 3 * n : 6 + 3 * n], degrees=True)
        if parent is None:
            place.append(values[:, :3])
            turn.append(own)
        else:
            place.append(place[parent] + turn[parent].apply(offset))
            turn.append(turn[parent] * own)
    return names, np.stack(place, axis=1), float(lines[1].split()[-1])


def moving(rng, frames=20, stretch=0.0):
    """A person (T, J, 3) mm whose bones keep their lengths, hips and shoulders move as one; arms and legs turn."""
    template = rng.normal(0, 200, (len(PANOPTIC15), 3))
    joints = np.zeros((frames, len(PANOPTIC15), 3))
    whole = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.1, (frames, 3)), axis=0))
    joints[:, ROOT] = np.cumsum(rng.normal(0, 30, (frames, 3)), axis=0) + [100, -50, 4000]
    order = [ROOT]
    for parent in order:
        for a, b in PANOPTIC15.bone_indices:
            child = b if a == parent else a if b == parent else None
            if child is None or child in order:
                continue
            order.append(child)
            vector = whole.apply(template[child])
            if PANOPTIC15.joints[parent] not in ("mid_hip", "neck"):
                vector = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.2, (frames, 3)), axis=0)).apply(vector)
            joints[:, child] = joints[:, parent] + vector * (1 + stretch * rng.normal(size=(frames, 1)))
    return joints


def test_a_rigid_motion_comes_back():
    joints = moving(np.random.default_rng(0))
    names, found, seconds = read_bvh(bvh(joints, PANOPTIC15, ALL, 1 / 30))
    assert set(names) == set(PANOPTIC15.joints) and names[0] == "mid_hip" and seconds == pytest.approx(1 / 30, abs=1e-6)
    expected = joints[:, [PANOPTIC15.index(name) for name in names]] * [0.1, -0.1, -0.1]
    np.testing.assert_allclose(found, expected, atol=2e-3)  # cm


def test_limbs_keep_their_directions_when_bone_lengths_vary():
    joints = moving(np.random.default_rng(1), stretch=0.1)
    names, found, _ = read_bvh(bvh(joints, PANOPTIC15, ALL, 1 / 30))
    for a, b in (("l_elbow", "l_wrist"), ("r_knee", "r_ankle"), ("l_shoulder", "l_elbow")):
        mine = found[:, names.index(b)] - found[:, names.index(a)]
        true = (joints[:, PANOPTIC15.index(b)] - joints[:, PANOPTIC15.index(a)]) * [0.1, -0.1, -0.1]
        cosine = (mine * true).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(true, axis=1)
        assert cosine.min() > 1 - 1e-6
        np.testing.assert_allclose(np.linalg.norm(mine, axis=1), np.linalg.norm(true, axis=1).mean(), rtol=1e-3)


def test_joints_that_training_never_saw_are_left_out():
    valid = [joint != "head" for joint in PANOPTIC15.joints]
    names, *_ = read_bvh(bvh(moving(np.random.default_rng(0)), PANOPTIC15, valid, 0.04))
    assert set(PANOPTIC15.joints) - set(names) == {"head"}


def test_joint_sets_without_one_way_to_every_joint_are_refused():
    joints = np.zeros((2, 17, 3))
    with pytest.raises(ValueError, match="has no root joint"):
        bvh(joints, COCO17, [True] * 17, 0.04)
    lone = Skeleton("lone", ("a", "b", "c"), (("a", "b"),), ("a",))
    with pytest.raises(ValueError, match="no bones lead to c"):
        bvh(joints[:, :3], lone, [True] * 3, 0.04)
    ring = Skeleton("ring", ("a", "b", "c"), (("a", "b"), ("b", "c"), ("c", "a")), ("a",))
    with pytest.raises(ValueError, match="bones form a ring"):
        bvh(joints[:, :3], ring, [True] * 3, 0.04)

"""Mean pose and supervised joints, against plain loops."""

from dataclasses import replace

import numpy as np

from das.recipe import ours, release_panoptic_recipe
from das.skeleton import COCO17, COCO19, MPI15, MUPOTS17, PANOPTIC15, conversion, skeleton_named
from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.pose_statistics import pose_statistics
from tests.pipeline.data.records import record


def some_records():
    for seed, skeleton in enumerate((COCO19, COCO19, MPI15, MUPOTS17, COCO17)):
        yield record(skeleton, people=4, seed=seed, in_3d=skeleton is not COCO17)
    yield record(COCO19, people=0)


def test_statistics_agree_with_a_plain_loop():
    found = pose_statistics(JointStatistics(some_records()), PANOPTIC15, ours())
    poses = {joint: [] for joint in PANOPTIC15.joints}
    labelled = dict.fromkeys(PANOPTIC15.joints, 0)
    people = 0
    for r in some_records():
        native = skeleton_named(r.skeleton)
        for i in range(len(r)):
            if r.ignore[i] or not r.valid[i] or not all(r.state[i, k] for k in native.root_indices):
                continue
            people += 1
            for joint, k in zip(PANOPTIC15.joints, conversion(native, PANOPTIC15).index, strict=True):
                if k >= 0 and r.state[i, k]:
                    labelled[joint] += 1
                    if r.joints_cam is not None:
                        root = r.joints_cam[i, list(native.root_indices)].astype(float).mean(axis=0)
                        poses[joint].append(r.joints_cam[i, k] - root)
    assert found.people == people > 5
    assert found.labelled.tolist() == list(labelled.values())
    wanted = [np.mean(p, axis=0) if p else np.zeros(3) for p in poses.values()]
    assert np.allclose(found.mean_pose, wanted)
    assert np.allclose(found.mean_pose[PANOPTIC15.index("mid_hip")], 0, atol=1e-9)


def test_joints_that_no_record_labels_are_unsupervised():
    assert pose_statistics(JointStatistics(), PANOPTIC15, ours()).unsupervised_joints == PANOPTIC15.joints
    photo = replace(
        record(COCO17, people=1, in_3d=False),
        state=np.full((1, 17), 2, np.uint8),
        ignore=np.zeros(1, bool),
        valid=np.ones(1, bool),
    )
    assert pose_statistics(JointStatistics([photo]), PANOPTIC15, ours()).unsupervised_joints == ("neck", "mid_hip")
    people = replace(record(COCO19, people=1), state=np.full((1, 19), 2, np.uint8), ignore=np.zeros(1, bool))
    people = replace(people, valid=np.ones(1, bool))
    assert pose_statistics(JointStatistics([people]), PANOPTIC15, ours()).unsupervised_joints == ()
    # The release does not use the nose as a label of the head.
    released = pose_statistics(JointStatistics([people]), PANOPTIC15, release_panoptic_recipe())
    assert released.unsupervised_joints == ("head",)

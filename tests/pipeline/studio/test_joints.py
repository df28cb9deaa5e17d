"""Joints of every joint set are on the body."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from das.skeleton import COCO17, COCO19, MPI15, MUCO21, MUPOTS17, Skeleton
from pipeline.studio.cameras import sequence_cameras
from pipeline.studio.joints import joint_points
from pipeline.studio.rasterize import View
from pipeline.studio.room import sequence_room
from pipeline.studio.shots import OUTSIDE, shots_of_take
from pipeline.studio.stage import plan_take
from tests.pipeline.studio.small_renderings import TINY


def test_every_joint_of_every_set_is_inside_its_persons_silhouette():
    """A person is painted alone, so no other body hides a joint."""
    config = replace(TINY, width=320, height=180, take_frames=1)
    sequence = "studio_train_haggling1"
    room = sequence_room(config, sequence)
    views = [View(config, room, sequence_cameras(config, sequence)[0], np.random.default_rng(0))]
    sets = (COCO17, COCO19, MPI15, MUPOTS17, MUCO21)
    checked = {name: 0 for skeleton in sets for name in skeleton.joints}
    for number in range(6):
        take = plan_take(config, sequence, number)
        for i, actor in enumerate(take.actors):
            alone = replace(take, actors=[actor], boxes=[])
            (shot,) = shots_of_take(config, sequence, number, 1, alone, room, views)
            for skeleton in sets:
                (figure,) = shot.figures(skeleton)
                near = cv2.dilate(figure.mask.astype(np.uint8), np.ones((3, 3), np.uint8))
                for name, uv, state in zip(skeleton.joints, figure.uv, figure.state):
                    if state != OUTSIDE:
                        x, y = np.round(uv).astype(int).clip(0, (319, 179))
                        assert near[y, x], (number, i, skeleton.name, name)
                        checked[name] += 1
    assert min(checked.values()) > 8
    unknown = Skeleton("animals", ("mid_hip", "tail"), (), ("mid_hip",))
    with pytest.raises(ValueError, match="'animals': the studio's people have no joint 'tail'"):
        joint_points(actor.person, actor.pose, unknown)

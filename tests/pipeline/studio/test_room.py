"""The room: floor coordinates per pixel, and which sequences share a room."""

from dataclasses import astuple, replace

import numpy as np

from pipeline.studio.cameras import sequence_cameras
from pipeline.studio.config import SPLITS, StudioConfig
from pipeline.studio.geometry import to_world
from pipeline.studio.room import floor_points, pixel_rays, sequence_room
from pipeline.studio.stage import plan_take
from tests.pipeline.studio.small_renderings import HD, cv2_pixels


def test_floor_points_project_to_their_pixels():
    for camera in sequence_cameras(replace(HD, width=320, height=180), "studio_train_mafia1"):
        ground = floor_points(camera, pixel_rays(camera, 320, 180))
        v, u = np.mgrid[100:180:8, 4:320:8]
        world = to_world(np.stack([ground[v, u, 0], np.zeros(v.shape), ground[v, u, 1]], -1).astype(float))
        assert np.abs(cv2_pixels(camera, world) - np.stack([u, v], -1)).max() < 0.15


def test_splits_share_rooms_but_not_people_or_clothes():
    config = StudioConfig(width=64, height=36, supersampling=1)
    rooms = {split: {sequence_room(config, s).floor.tobytes() for s in config.sequences(split)} for split in SPLITS}
    assert rooms["train"] == rooms["test"] == rooms["val"] and len(rooms["test"]) == 3

    def people(split: str) -> set:
        takes = (plan_take(config, s, n) for s in config.sequences(split)[:2] for n in range(5))
        return {astuple(actor.person) for take in takes for actor in take.actors}

    def clothes(split: str) -> set:
        takes = (plan_take(config, s, n) for s in config.sequences(split)[:2] for n in range(5))
        return {actor.outfit.top.tobytes() for take in takes for actor in take.actors}

    assert len(people("train")) > 20 and len(people("test")) > 15
    assert not people("train") & people("test") and not clothes("train") & clothes("test")

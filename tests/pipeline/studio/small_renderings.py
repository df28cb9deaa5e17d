"""Configurations of small renderings, and how tests compare files and pixels."""

from pathlib import Path

import cv2
import numpy as np

from pipeline.data.sources.base import DroppedFrame
from pipeline.studio.cameras import StudioCamera
from pipeline.studio.config import StudioConfig

RATE = 29.97
SMALL = StudioConfig(width=160, height=90, take_frames=3, chunk_frames=3, train_frames=6, val_frames=3, test_frames=3,
                     train_sequences=("studio_train_mafia1",), val_sequences=("studio_val_ultimatum1",),
                     test_sequences=("studio_test_pizza1",))  # fmt: skip
TINY = StudioConfig(width=192, height=108, take_frames=2, chunk_frames=2, train_frames=4, val_frames=2, test_frames=4,
                    train_sequences=("studio_train_mafia1", "studio_train_haggling1"),
                    val_sequences=("studio_val_mafia1",), people_min=3, seed=1,
                    test_sequences=("studio_test_pizza1", "studio_test_mafia1"))  # fmt: skip
HD = StudioConfig(seed=4)
VIDEO = StudioConfig(frame_seconds=1 / RATE, take_frames=90, seed=3)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def cv2_pixels(camera: StudioCamera, world: np.ndarray) -> np.ndarray:
    rotation = cv2.Rodrigues(camera.R)[0]
    points = np.ascontiguousarray(world.reshape(-1, 3))
    return cv2.projectPoints(points, rotation, camera.t, camera.K, camera.distortion)[0].reshape(*world.shape[:-1], 2)


def read_all(source, folder: Path, split: str) -> list:
    found = [record for chunk in source.chunks(folder, split) for record in source.records(chunk)]
    assert not any(isinstance(record, DroppedFrame) for record in found)
    return found

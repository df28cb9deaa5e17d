"""Plausible records for tests, written by no source."""

import hashlib
from dataclasses import fields, replace

import cv2
import numpy as np

from das.camera import project
from das.skeleton import MUPOTS17
from pipeline.data.record import Record, key_of

HEIGHT, WIDTH = 48, 64


def encoded(height: int = HEIGHT, width: int = WIDTH, suffix: str = ".jpg") -> bytes:
    pixels = np.random.default_rng(height * width).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def record(skeleton=MUPOTS17, people: int = 2, seed: int = 0, in_3d: bool = True, extras: bool = True) -> Record:
    """A record of plausible people; extras fills the columns that few sources have."""
    rng = np.random.default_rng(seed)
    n, j = people, len(skeleton)
    image = encoded()
    cam = (rng.normal(0, 400, (n, j, 3)) + (0, 0, 4000)).astype(np.float32)
    corner = rng.uniform(0, 30, (n, 2)).astype(np.float32)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    K = np.array([[70.0, 0, 32], [0, 71, 24], [0, 0, 1]])
    distortion = rng.normal(0, 0.1, 5) if extras else None
    return Record(
        key=key_of("source", "sequence", "00_16", 7),
        source="source",
        sequence="sequence",
        camera="00_16",
        frame=7,
        split="train",
        activity="haggling",
        skeleton=skeleton.name,
        image=image,
        image_sha256=hashlib.sha256(image).hexdigest(),
        height=HEIGHT,
        width=WIDTH,
        K=K if in_3d else None,
        distortion=distortion,
        R=turn * np.sign(np.linalg.det(turn)) if extras else None,
        t_mm=rng.normal(0, 1000, 3) if extras else None,
        person_id=rng.integers(0, 2**40, n),
        joints_uv=project(cam.astype(np.float64), K, distortion).astype(np.float32),
        joints_cam=cam if in_3d else None,
        joints_cam_univ=(cam * 1.1).astype(np.float32) if in_3d and extras else None,
        confidence=rng.uniform(-1, 1, (n, j)).astype(np.float32) if extras else None,
        state=rng.integers(0, 3, (n, j)).astype(np.uint8),
        bbox=np.concatenate([corner, corner + 9], axis=1),
        ignore=rng.random(n) < 0.3,
        valid=rng.random(n) < 0.7,
    )


def assert_equal(a: Record, b: Record) -> None:
    for field in fields(Record):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y), field.name
        else:
            assert type(x) is type(y) and x == y, field.name


def many(n: int):
    return (replace(record(seed=i), key=key_of("source", "sequence", "00_16", i), frame=i) for i in range(n))

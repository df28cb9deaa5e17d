"""A three-joint skeleton, a grey image and where a drawing changed it: what the tests of das/draw share."""

import numpy as np

from das.skeleton import Skeleton

STICK = Skeleton("stick", ("root", "l_hand", "r_hand"), (("root", "l_hand"), ("root", "r_hand")), ("root",))


def grey_image(height=240, width=320):
    return np.full((height, width, 3), 128, np.uint8)


def changed(before, after):
    return (before != after).any(-1)


def near_segments(shape, segments, radius):
    """(H, W) bool of the pixels within ``radius`` of any segment, by plain geometry."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    pixels = np.stack([x, y], -1).astype(float)
    near = np.zeros(shape[:2], bool)
    for a, b in np.asarray(segments, float):
        along = np.clip(((pixels - a) @ (b - a)) / max((b - a) @ (b - a), 1e-9), 0, 1)
        near |= np.linalg.norm(pixels - a - along[..., None] * (b - a), axis=-1) <= radius
    return near

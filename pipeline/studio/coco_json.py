"""COCO keypoint annotations (Lin et al., ECCV 2014) of a shot, in 2D only.

Outlines, areas and boxes are those of the pixels that show a person. As in COCO, small people have no keypoints, some
hidden joints are unlabelled, and a group in the background may be one crowd region.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy import ndarray

from das.skeleton import COCO17
from pipeline.studio.shots import HIDDEN, OUTSIDE, SEEN, Figure, Shot

_LONG_SIDES = {"l_": "left_", "r_": "right_"}
HEADER: dict[str, Any] = {
    "licenses": [{"id": 1, "name": "Rendered: free of third-party rights", "url": ""}],
    "categories": [
        {
            "id": 1,
            "name": "person",
            "supercategory": "person",
            "keypoints": [_LONG_SIDES.get(name[:2], name[:2]) + name[2:] for name in COCO17.joints],
            "skeleton": [[a + 1, b + 1] for a, b in COCO17.bone_indices],
        }
    ],
}
_MIN_KEYPOINT_AREA = 32 * 32 / (640 * 480)
"""Smallest share of the picture of a person with keypoints: COCO labels none below 32 x 32 pixels of 640 x 480."""
_MIN_PIXELS = 12
"""Fewest visible pixels of an annotated person."""
_HIDDEN_LABELLED = 0.75
"""Share of hidden joints that are labelled."""
_CROWD_PROBABILITY, _CROWD_PEOPLE, _MIN_PEOPLE_WITH_CROWD = 0.5, 3, 5
"""With at least 5 people, the farthest 3 form one crowd region in half of the pictures."""


def image(number: int, name: str, shot: Shot) -> dict[str, Any]:
    """The entry of a shot in ``images``; ``number`` is its id, ``name`` its file name."""
    size = {"width": shot.camera.width, "height": shot.camera.height}
    return {"license": 1, "file_name": name, **size, "id": number}


def people(number: int, shot: Shot, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The annotations of image ``number``: people, nearest first, then a crowd region if there is one."""
    figures = [figure for figure in shot.figures(COCO17) if figure.mask.sum() >= _MIN_PIXELS]
    figures.sort(key=lambda figure: figure.distance)
    crowd: list[Figure] = []
    if len(figures) >= _MIN_PEOPLE_WITH_CROWD and rng.random() < _CROWD_PROBABILITY:
        figures, crowd = figures[:-_CROWD_PEOPLE], figures[-_CROWD_PEOPLE:]
    found = [_person(number, figure, rng) for figure in figures]
    return found + ([_crowd(number, crowd)] if crowd else [])


def _person(number: int, figure: Figure, rng: np.random.Generator) -> dict[str, Any]:
    mask = figure.mask
    placed = (figure.state == SEEN) | ((figure.state == HIDDEN) & (rng.random(len(COCO17)) < _HIDDEN_LABELLED))
    if mask.sum() < _MIN_KEYPOINT_AREA * mask.size:
        placed[:] = False
    state = np.where(placed, figure.state, OUTSIDE)
    uv = np.where(placed[:, None], np.round(figure.uv), 0)
    return {
        "segmentation": outline(mask),
        "num_keypoints": int(placed.sum()),
        "iscrowd": 0,
        "keypoints": np.column_stack([uv, state]).astype(int).ravel().tolist(),
        **_region(number, mask),
    }


def _crowd(number: int, figures: list[Figure]) -> dict[str, Any]:
    mask = np.logical_or.reduce([figure.mask for figure in figures])
    return {
        "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
        "num_keypoints": 0,
        "iscrowd": 1,
        "keypoints": [0] * (3 * len(COCO17)),
        **_region(number, mask),
    }


def _region(number: int, mask: ndarray) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    return {"area": int(mask.sum()), "bbox": box, "image_id": number, "category_id": 1}


def outline(mask: ndarray) -> list[list[float]]:
    """Polygons round the pixels of a mask (H, W), as flat lists of x, y; pixel (0, 0) covers 0 to 1, as in COCO."""
    # OpenCV's contours pass through the centres of border pixels. On an enlarged mask that is close to the edge.
    scale = 4
    fine = np.repeat(np.repeat(mask.astype(np.uint8), scale, 0), scale, 1)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [(contour.reshape(-1, 2) + 0.5) / scale for contour in contours]
    return [np.round(polygon, 2).ravel().tolist() for polygon in polygons]


def run_lengths(mask: ndarray) -> list[int]:
    """COCO's uncompressed run lengths of a mask (H, W): column by column, background first."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths: list[int] = np.diff([0, *changes, len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths

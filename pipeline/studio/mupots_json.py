"""MuCo-3DHP and MuPoTS-3D annotations in the COCO-like JSON of Moon et al. (ICCV 2019): mm, pinhole cameras.

A person is annotated if at least one pixel shows them. ``keypoints_vis`` is 1 for joints inside the picture in MuCo,
hidden ones included; in MuPoTS it is always 1 and a separate ``occlusion`` flag marks hidden joints. Boxes are x, y,
width, height of the whole body inside the picture, in pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from das.skeleton import MUCO21, MUPOTS17
from pipeline.studio.cameras import StudioCamera
from pipeline.studio.person import Person
from pipeline.studio.shots import OUTSIDE, SEEN, Figure, Shot

HEADER = {"categories": [{"id": 1, "name": "person", "supercategory": "person"}]}

UNIVERSAL_KNEE_TO_NECK = 92.0
"""Knee to neck, cm, of the universal skeleton: MPI-INF-3DHP and MuPoTS-3D score poses scaled to it."""
_MIN_JOINTS = 4
"""Fewest joints inside the picture of a person with ``is_valid`` 1."""


def muco_image(number: int, name: str, shot: Shot) -> dict[str, Any]:
    """An image entry with ``f`` and ``c`` in pixels."""
    fx, fy, cx, cy = _intrinsic(shot.camera)
    return {**_image(number, name, shot), "f": [fx, fy], "c": [cx, cy]}


def mupots_image(number: int, name: str, shot: Shot) -> dict[str, Any]:
    """An image entry with ``intrinsic`` fx, fy, cx, cy in pixels."""
    return {**_image(number, name, shot), "intrinsic": _intrinsic(shot.camera)}


def muco_people(number: int, shot: Shot) -> list[dict[str, Any]]:
    """The annotations of a MuCo image, 21 joints."""
    figures = shot.figures(MUCO21)
    return [
        {**_person(number, figure), "keypoints_vis": (figure.state != OUTSIDE).tolist()}
        for figure in figures
        if figure.mask.any()
    ]


def mupots_people(number: int, shot: Shot) -> list[dict[str, Any]]:
    """The annotations of a MuPoTS image, 17 joints; ``keypoints_univ``, ``occlusion``, ``is_valid`` are added."""
    people = []
    for figure in shot.figures(MUPOTS17):
        if not figure.mask.any():
            continue
        root = figure.cam[MUPOTS17.root_index]
        scale = universal_scale(shot.take.actors[figure.actor].person)
        people.append(
            {
                **_person(number, figure),
                "keypoints_vis": [[1]] * len(MUPOTS17),
                "keypoints_univ": _rounded(root + scale * (figure.cam - root)),
                "occlusion": (figure.state != SEEN).astype(int).tolist(),
                "is_valid": int((figure.state != OUTSIDE).sum() >= _MIN_JOINTS),
            }
        )
    return people


def universal_scale(person: Person) -> float:
    """Factor that scales a person about the pelvis to the size of the universal skeleton."""
    return UNIVERSAL_KNEE_TO_NECK / (person.thigh + person.lower_spine + person.upper_spine)


def _image(number: int, name: str, shot: Shot) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": shot.camera.width, "height": shot.camera.height}


def _intrinsic(camera: StudioCamera) -> list[float]:
    assert not camera.distortion.any(), camera.name
    return [float(camera.K[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2))]


def _person(number: int, figure: Figure) -> dict[str, Any]:
    low, high = figure.bbox[:2], figure.bbox[2:]
    return {
        "image_id": number,
        "category_id": 1,
        "iscrowd": 0,
        "area": int(figure.mask.sum()),
        "bbox": _rounded(np.concatenate([low, high - low])),
        "keypoints_img": _rounded(figure.uv),
        "keypoints_cam": _rounded(figure.cam),
    }


def _rounded(values: ndarray) -> Any:
    return np.round(values, 3).tolist()

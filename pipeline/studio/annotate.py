"""The 19 joints of a person as a recording would list them: positions in world centimetres and confidences.

A recording's confidence tells how well many cameras see a joint. Here a ring of viewpoints stands for them: rays to
bubbles of bodies decide which of them see it.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from das.skeleton import COCO19
from pipeline.studio.geometry import smooth_noise, to_world
from pipeline.studio.stage import Actor

MAX_CONFIDENCE = 0.72
_VIEWPOINTS = 6
# Own body parts within this distance of a joint do not hide it, cm.
_OWN_BODY_RADIUS = 17.0


def annotate(actors: list[Actor], t: ndarray, rng: np.random.Generator) -> list[ndarray]:
    """For every actor (T, 19, 4): x, y, z in world cm and confidence, -1 where the joint is missing."""
    angles = 2 * np.pi * (np.arange(_VIEWPOINTS) + 0.3) / _VIEWPOINTS
    eyes = np.stack(
        [340 * np.sin(angles), np.where(np.arange(_VIEWPOINTS) % 2, 250.0, 150.0), 340 * np.cos(angles)], -1
    )
    annotated = []
    for actor in actors:
        joints = np.stack([actor.pose.points[name] for name in COCO19.joints], 1)  # (T, 19, 3)
        seen = np.zeros(joints.shape[:2])
        for eye in eyes:
            seen += ~_hidden(joints, eye, actors)
        sure = (0.08 + 0.62 * (seen / _VIEWPOINTS) ** 1.2) * rng.uniform(0.6, 1.0) * _DETECTION_FACTOR
        c = np.clip(sure + 0.05 * smooth_noise(rng, t, len(COCO19), 2.0), 0.02, MAX_CONFIDENCE)
        # Joints that few cameras see get lost, and now and then one for no reason.
        lost = rng.random(c.shape) < np.interp(seen, (0, 2, 4), (0.3, 0.08, 0.01)) * _LOSABLE
        world = to_world(joints)
        # A missing joint is usually, but not always, written as zeros: readers must test the confidence.
        world = np.where((lost & (rng.random(c.shape) < 0.9))[..., None], 0.0, world)
        annotated.append(np.concatenate([world, np.where(lost, -1.0, c)[..., None]], -1))
    return annotated


# How surely each kind of joint is found: the small ones at the ends less than the trunk's.
_DETECTION_FACTOR = np.array(
    [0.8 if name.endswith(("wrist", "ankle", "eye", "ear", "nose")) else 1.0 for name in COCO19.joints]
)
# The trunk's own joints are never lost: recordings that miss them drop the person.
_LOSABLE = np.array([name not in ("neck", "mid_hip", "l_shoulder", "r_shoulder") for name in COCO19.joints], float)


def _hidden(joints: ndarray, eye: ndarray, actors: list[Actor]) -> ndarray:
    """(T, 19) bool: a bubble of any actor lies between the eye and the joint."""
    gap = joints - eye
    distance = np.linalg.norm(gap, axis=-1)
    ray = gap / distance[..., None]
    hidden = np.zeros(distance.shape, bool)
    for actor in actors:
        towards = actor.spheres.centres - eye
        depth = ray @ towards.swapaxes(1, 2)  # (T, 19, M) along each ray
        miss = np.einsum("tmi,tmi->tm", towards, towards)[:, None] - depth**2
        between = (depth < distance[..., None] - _OWN_BODY_RADIUS) & (miss < (0.8 * actor.spheres.radii) ** 2)
        hidden |= between.any(-1)
    return hidden

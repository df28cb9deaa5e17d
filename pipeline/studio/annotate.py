"""Panoptic's annotations: positions of the 19 COCO19 joints in world centimetres, with confidences.

In CMU Panoptic a joint's confidence grows with the number of cameras that see it. Here a ring of viewpoints replaces
the dome's cameras; a viewpoint sees a joint if no sphere of a body intersects the ray between them.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from das.skeleton import COCO19
from pipeline.studio.geometry import smooth_noise, to_world
from pipeline.studio.stage import Actor

MAX_CONFIDENCE = 0.72
"""Largest confidence that is written."""
_VIEWPOINTS = 6
_OWN_BODY_RADIUS = 17.0
"""Spheres whose centre is less than this nearer than a joint do not hide it, cm: joints are inside their own body."""


def annotate(actors: list[Actor], t: ndarray, rng: np.random.Generator) -> list[ndarray]:
    """Annotates all actors of a take.

    Args:
        actors: the actors.
        t: (T,) times of the moments, seconds.
        rng: for the noise of confidences and for missing joints.

    Returns:
        For each actor (T, 19, 4): x, y, z in world cm (y down) and confidence, -1 where the joint is missing.
    """
    angles = 2 * np.pi * (np.arange(_VIEWPOINTS) + 0.3) / _VIEWPOINTS
    viewpoints = np.stack(
        [340 * np.sin(angles), np.where(np.arange(_VIEWPOINTS) % 2, 250.0, 150.0), 340 * np.cos(angles)], -1
    )
    annotated = []
    for actor in actors:
        joints = np.stack([actor.pose.points[name] for name in COCO19.joints], 1)  # (T, 19, 3)
        seen = np.zeros(joints.shape[:2])
        for viewpoint in viewpoints:
            seen += ~_hidden(joints, viewpoint, actors)
        confidence = (0.08 + 0.62 * (seen / _VIEWPOINTS) ** 1.2) * rng.uniform(0.6, 1.0) * _DETECTION_FACTOR
        c = np.clip(confidence + 0.05 * smooth_noise(rng, t, len(COCO19), 2.0), 0.02, MAX_CONFIDENCE)
        # Joints that few viewpoints see are often missing; well seen ones rarely.
        missing = rng.random(c.shape) < np.interp(seen, (0, 2, 4), (0.3, 0.08, 0.01)) * _MAY_BE_MISSING
        world = to_world(joints)
        # Most missing joints are written as zeros, but not all: readers must test the confidence.
        world = np.where((missing & (rng.random(c.shape) < 0.9))[..., None], 0.0, world)
        annotated.append(np.concatenate([world, np.where(missing, -1.0, c)[..., None]], -1))
    return annotated


# Small joints at the ends of limbs and on the head are detected with less confidence than the trunk's.
_DETECTION_FACTOR = np.array(
    [0.8 if name.endswith(("wrist", "ankle", "eye", "ear", "nose")) else 1.0 for name in COCO19.joints]
)
# Trunk joints are never missing: a recording without them leaves out the whole person.
_TRUNK = ("neck", "mid_hip", "l_shoulder", "r_shoulder")
_MAY_BE_MISSING = np.array([name not in _TRUNK for name in COCO19.joints], float)


def _hidden(joints: ndarray, viewpoint: ndarray, actors: list[Actor]) -> ndarray:
    """(T, J) bool: a sphere of any actor is between the viewpoint (3,) and the joint; ``joints`` (T, J, 3), cm."""
    gap = joints - viewpoint
    distance = np.linalg.norm(gap, axis=-1)
    ray = gap / distance[..., None]
    hidden = np.zeros(distance.shape, bool)
    for actor in actors:
        towards = actor.spheres.centres - viewpoint
        depth = ray @ towards.swapaxes(1, 2)  # (T, J, M) along each ray
        miss = np.einsum("tmi,tmi->tm", towards, towards)[:, None] - depth**2
        between = (depth < distance[..., None] - _OWN_BODY_RADIUS) & (miss < (0.8 * actor.spheres.radii) ** 2)
        hidden |= between.any(-1)
    return hidden

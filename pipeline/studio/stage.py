"""Who stands where in one take: people, their motions, stools and a table, without anybody inside anybody else.

A take is planned as a whole, always in the same way, so it does not matter which of its frames are rendered where.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from pipeline.studio.config import StudioConfig, sequence_activity
from pipeline.studio.motion import Pose, Walk, reach, sit, stand, walk
from pipeline.studio.outfit import Outfit, draw_outfit
from pipeline.studio.person import Person, draw_person

STAGE_RADIUS = 165.0
"""People stay within this distance of the middle of the room, cm."""
ATTEMPTS = 25

# Weights of 1..8 people, of formations and of what each person does.
PEOPLE = {
    "haggling": (1, 2, 6, 2, 0.5, 0, 0, 0),
    "mafia": (0.3, 0.5, 1, 2, 2, 2, 1.5, 1),
    "ultimatum": (1.5, 2, 2, 2, 1.5, 1, 0.5, 0.3),
    "pizza": (0.5, 1, 2, 3, 2, 1, 0.5, 0.2),
}
FORMATIONS = {
    "haggling": {"circle": 4.0, "scatter": 1.0},
    "mafia": {"circle": 3.0, "row": 1.0},
    "ultimatum": {"scatter": 3.0, "row": 1.0, "circle": 1.0},
    "pizza": {"table": 4.0, "scatter": 1.0},
}
DOING = {
    "haggling": {"stand": 7.0, "walk": 1.5, "reach": 1.5},
    "mafia": {"sit": 5.0, "stand": 4.0, "reach": 1.0},
    "ultimatum": {"stand": 4.0, "walk": 3.0, "sit": 1.5, "reach": 1.5},
    "pizza": {"sit": 3.0, "stand": 3.0, "reach": 2.0, "walk": 2.0},
}


@dataclass(frozen=True)
class Box:
    """A block on the floor: ``centre`` (x, y, z) cm, ``half`` sizes, turned by ``yaw``; RGB in 0..1."""

    centre: ndarray
    half: ndarray
    yaw: float
    colour: ndarray


@dataclass(frozen=True)
class Actor:
    """One person of a take, with the motion over all its frames and the bubbles that fill the body.

    Attributes:
        bubbles: (T, M, 3) centres of spheres that cover the body, cm.
        bubble_radii: (M,) cm.
    """

    person: Person
    outfit: Outfit
    pose: Pose
    bubbles: ndarray
    bubble_radii: ndarray


@dataclass(frozen=True)
class Take:
    """Everything on stage during one take, at T moments."""

    actors: list[Actor]
    boxes: list[Box]


# Chains of bones with their radii in cm at both ends, for a girth of 1; bubbles are strung along them.
_CHAINS = [("mid_hip", "waist", 14.0, 13.0), ("waist", "neck", 13.5, 11.5), ("neck", "head", 7.0, 12.0)]
for _s in "lr":
    _CHAINS += [
        (f"{_s}_shoulder", f"{_s}_elbow", 7.0, 5.0),
        (f"{_s}_elbow", f"{_s}_wrist", 5.0, 4.0),
        (f"{_s}_wrist", f"{_s}_fingers", 4.5, 4.0),
        (f"{_s}_hip", f"{_s}_knee", 10.5, 7.5),
        (f"{_s}_knee", f"{_s}_ankle", 7.5, 5.5),
        (f"{_s}_heel", f"{_s}_toe", 5.0, 5.0),
        ("neck", f"{_s}_shoulder", 9.0, 8.0),
    ]


def bubbles_of(pose: Pose, girth: float) -> tuple[ndarray, ndarray]:
    """Spheres along the bones: centres (T, M, 3) and radii (M,)."""
    centres, radii = [], []
    for a, b, r_a, r_b in _CHAINS:
        for u in (0.0, 1 / 3, 2 / 3, 1.0):
            centres.append((1 - u) * pose.points[a] + u * pose.points[b])
            radii.append(((1 - u) * r_a + u * r_b) * max(girth, 1.0))
    return np.stack(centres, 1), np.array(radii)


def overlap(a: tuple[ndarray, ndarray], b: tuple[ndarray, ndarray]) -> bool:
    """Whether two sets of bubbles meet at any moment."""
    (centres_a, radii_a), (centres_b, radii_b) = a, b
    if np.min(np.linalg.norm(centres_a[:, 0] - centres_b[:, 0], axis=-1)) > 230:
        return False
    gap = centres_a[:, :, None] - centres_b[:, None]
    near = (radii_a[:, None] + radii_b) ** 2
    return bool((np.einsum("tijk,tijk->tij", gap, gap) < near).any())


def box_bubbles(box: Box, moments: int) -> tuple[ndarray, ndarray]:
    """A box as bubbles for collision tests."""
    r = float(min(box.half[0], box.half[2]))
    steps = [np.linspace(-1, 1, max(2, int(np.ceil(h / (0.7 * r))))) * max(h - 0.75 * r, 0) for h in box.half]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
    c, s = np.cos(box.yaw), np.sin(box.yaw)
    turned = grid @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    return np.broadcast_to(turned + box.centre, (moments, *turned.shape)), np.full(len(grid), 0.8 * r)


def _pick(rng: np.random.Generator, weights: dict[str, float]) -> str:
    total = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=total / total.sum()))


def plan_take(config: StudioConfig, sequence: str, take: int) -> Take:
    """People, motions and furniture of one take; T = config.take_frames moments."""
    activity = sequence_activity(sequence)
    rng = config.rng(sequence, take)
    t = np.arange(config.take_frames) * config.frame_seconds
    weights = np.array(PEOPLE[activity])
    count = int(np.clip(rng.choice(np.arange(1, 9), p=weights / weights.sum()), config.people_min, config.people_max))
    formation = _pick(rng, FORMATIONS[activity])
    middle = rng.uniform(-35, 35, 2)
    boxes: list[Box] = []
    solids: list[tuple[ndarray, ndarray]] = []
    if formation == "table":
        height = rng.uniform(68, 78)
        half = np.array([rng.uniform(42, 60), 3.0, rng.uniform(32, 42)])
        wood = np.array([0.55, 0.40, 0.27]) * rng.uniform(0.7, 1.4)
        table = Box(np.array([middle[0], height - 3, middle[1]]), half, rng.uniform(0, np.pi), wood)
        boxes.append(table)
        solids.append(box_bubbles(table, len(t)))
        leg = Box(np.array([middle[0], (height - 6) / 2, middle[1]]), np.array([9, (height - 6) / 2, 9.0]), table.yaw,
                  0.7 * table.colour)  # fmt: skip
        boxes.append(leg)
        solids.append(box_bubbles(leg, len(t)))
    first_angle, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.25)
    actors: list[Actor] = []
    for i in range(count):
        person = draw_person(rng)
        outfit = draw_outfit(rng, person.female)
        for attempt in range(ATTEMPTS):
            spot, yaw = _place(rng, formation, i, count, middle, first_angle, spread, attempt)
            doing = _pick(rng, DOING[activity]) if attempt < ATTEMPTS // 2 else "stand"
            pose, seat = _act(rng, doing, person, t, spot, yaw, formation == "table")
            body = bubbles_of(pose, person.girth)
            own = [] if seat is None else [box_bubbles(seat, len(t))]
            if np.linalg.norm(body[0][..., [0, 2]], axis=-1).max() > STAGE_RADIUS + 45:
                continue
            others = [(a.bubbles, a.bubble_radii) for a in actors] + solids
            if any(overlap(x, y) for x in [body, *own] for y in others):
                continue
            actors.append(Actor(person, outfit, pose, *body))
            if seat is not None:
                boxes.append(seat)
                solids += own
            break
    return Take(actors, boxes)


def _place(
    rng: np.random.Generator,
    formation: str,
    i: int,
    count: int,
    middle: ndarray,
    first: float,
    spread: float,
    attempt: int,
) -> tuple[ndarray, float]:
    """Where person i of a formation stands (x, z) and looks; later attempts stray further."""
    stray = 8 + 4 * attempt
    if formation in ("circle", "table"):
        angle = first + 2 * np.pi * (i + rng.normal(0, 0.1)) / max(count, 3)
        radius = {"circle": 42 + 15 * count, "table": 88}[formation] * spread
        spot = middle + min(radius, STAGE_RADIUS - 20) * np.array([np.sin(angle), np.cos(angle)])
        yaw = angle + np.pi + rng.normal(0, 0.35)
    elif formation == "row":
        across = np.array([np.cos(first), -np.sin(first)])
        spot = middle + (i - (count - 1) / 2) * min(72 * spread, 300 / count) * across
        yaw = first + rng.normal(0, 0.3)
    else:
        spot = rng.uniform(-STAGE_RADIUS, STAGE_RADIUS, 2)
        yaw = rng.uniform(0, 2 * np.pi)
    spot = spot + rng.normal(0, stray, 2)
    return spot * min(1.0, STAGE_RADIUS / max(float(np.linalg.norm(spot)), 1e-6)), float(yaw)


def _act(
    rng: np.random.Generator, doing: str, person: Person, t: ndarray, spot: ndarray, yaw: float, table: bool
) -> tuple[Pose, Box | None]:
    """A motion, and the stool if it needs one."""
    if doing == "walk":
        half_axes = (rng.uniform(50, 130), rng.uniform(35, 110))
        path = Walk(0.45 * spot, half_axes, rng.uniform(0, np.pi), rng.choice([-1.0, 1.0]), rng.uniform())
        return walk(rng, person, t, path), None
    if doing == "reach":
        return reach(rng, person, t, spot, yaw), None
    if doing == "sit":
        seat = float(np.clip(rng.normal(0.25, 0.02) * person.stature, 34, 52))
        colour = np.array(
            [(0.42, 0.30, 0.20), (0.25, 0.25, 0.27), (0.75, 0.73, 0.70), (0.30, 0.36, 0.44)][rng.integers(4)]
        )
        back = 0.04 * np.array([np.sin(yaw), np.cos(yaw)]) * person.stature
        stool = Box(
            np.array([spot[0] + back[0], seat / 2, spot[1] + back[1]]), np.array([17.0, seat / 2, 17.0]), yaw, colour
        )
        return sit(rng, person, t, spot, yaw, seat, table), stool
    return stand(rng, person, t, spot, yaw), None

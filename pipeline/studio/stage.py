"""Plans a take: people, their places and motions, and furniture, without collisions.

A take is planned as a whole from the seed, sequence and number, so it does not depend on how its frames are divided
among workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy import ndarray

from pipeline.studio.config import StudioConfig, sequence_activity
from pipeline.studio.motion import Pose, Walk, reach, sit, stand, walk
from pipeline.studio.outfit import Outfit, add_layers, sample_outfit
from pipeline.studio.person import Person, sample_person
from pipeline.studio.spheres import Box, Spheres, body_spheres, box_spheres, overlap

STAGE_RADIUS = 165.0
"""People stay within this distance of the middle of the room, cm."""
ATTEMPTS = 25
"""Places and motions that are tried for a person; without a free one the person is left out."""

# By activity: weights of 1 to 8 people, of formations, and of each person's motion.
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
MOTIONS = {
    "haggling": {"stand": 5.0, "walk": 2.5, "reach": 2.5},
    "mafia": {"sit": 5.0, "stand": 3.0, "reach": 2.0},
    "ultimatum": {"stand": 3.0, "walk": 3.0, "sit": 2.0, "reach": 2.0},
    "pizza": {"sit": 3.0, "stand": 2.0, "reach": 3.0, "walk": 2.0},
}
# By interaction: the motion of all people, and the fewest and most people.
INTERACTIONS = {"table": ("sit", 2, 8), "bench": ("sit", 2, 5), "crossing": ("walk", 2, 4)}
SEAT_WIDTH = 58.0
"""Room for one person on a bench, cm."""
STOOL_TONES = ((0.42, 0.30, 0.20), (0.25, 0.25, 0.27), (0.75, 0.73, 0.70), (0.30, 0.36, 0.44))


@dataclass(frozen=True)
class Actor:
    """One person of a take, with clothes, motion, and the body's spheres over all moments."""

    person: Person
    outfit: Outfit
    pose: Pose
    spheres: Spheres


@dataclass(frozen=True)
class Take:
    """People and movable furniture of one take, over T moments."""

    actors: list[Actor]
    boxes: list[Box]


@dataclass(frozen=True)
class Formation:
    """An arrangement of people.

    Attributes:
        kind: circle, table, row, bench, crossing or scatter.
        count: number of people.
        middle: (2,) x, z in cm.
        angle: radians by which it is turned.
        spread: factor on distances.
    """

    kind: str
    count: int
    middle: ndarray
    angle: float
    spread: float

    def place(self, rng: np.random.Generator, i: int, attempt: int) -> tuple[ndarray, float]:
        """Place (x, z) in cm and heading in radians of person i; later attempts deviate further."""
        if self.kind in ("circle", "table"):
            angle = self.angle + 2 * np.pi * (i + rng.normal(0, 0.1)) / max(self.count, 3)
            radius = self.spread * (88 if self.kind == "table" else 42 + 15 * self.count)
            spot = self.middle + min(radius, STAGE_RADIUS - 20) * np.array([np.sin(angle), np.cos(angle)])
            yaw = angle + np.pi + rng.normal(0, 0.35)
        elif self.kind == "row":
            across = np.array([np.cos(self.angle), -np.sin(self.angle)])
            step = min(72 * self.spread, 300 / self.count)
            spot = self.middle + (i - (self.count - 1) / 2) * step * across
            yaw = self.angle + rng.normal(0, 0.3)
        elif self.kind == "bench":
            across = np.array([np.cos(self.angle), -np.sin(self.angle)])
            spot = self.middle + ((i - (self.count - 1) / 2) * SEAT_WIDTH + rng.normal(0, 1.5)) * across
            return spot, float(self.angle + rng.normal(0, 0.08))
        else:
            spot = rng.uniform(-STAGE_RADIUS, STAGE_RADIUS, 2)
            yaw = rng.uniform(0, 2 * np.pi)
        spot = spot + rng.normal(0, 8 + 4 * attempt, 2)
        return spot * min(1.0, STAGE_RADIUS / max(float(np.linalg.norm(spot)), 1e-6)), float(yaw)


def plan_take(config: StudioConfig, sequence: str, take: int) -> Take:
    """People, motions and furniture of one take; T = config.take_frames moments.

    People are added one after another. For each, places and motions are sampled until one collides with no person or
    furniture at any moment; after ``ATTEMPTS`` the person is left out.
    """
    activity = sequence_activity(sequence)
    rng = config.rng(sequence, take)
    t = np.arange(config.take_frames) * config.frame_seconds
    weights = dict(enumerate(PEOPLE[activity], start=1))
    count = int(np.clip(_weighted_choice(rng, weights), config.people_min, config.people_max))
    interaction = _interaction(config, sequence, take)
    if interaction is not None:
        _, fewest, most = INTERACTIONS[interaction]
        count = int(np.clip(np.clip(count, fewest, most), config.people_min, config.people_max))
    kind = _weighted_choice(rng, FORMATIONS[activity])
    formation = Formation(
        kind=kind if interaction is None else interaction,
        count=count,
        middle=rng.uniform(-35, 35, 2),
        angle=rng.uniform(0, 2 * np.pi),
        spread=rng.uniform(0.85, 1.25),
    )
    boxes = _table(rng, formation.middle) if formation.kind == "table" else []
    occupied = [box_spheres(box, len(t)) for box in boxes]
    bench = _bench(rng, formation) if formation.kind == "bench" else None
    actors = []
    for i in range(count):
        person = sample_person(rng)
        outfit = sample_outfit(rng, person.female)
        layers = config.rng(sequence, take, 6, i)
        if layers.random() < config.layers:
            outfit = add_layers(layers, outfit)
        for attempt in range(ATTEMPTS):
            spot, yaw = formation.place(rng, i, attempt)
            if interaction is not None:
                motion = INTERACTIONS[interaction][0]
            else:
                motion = _weighted_choice(rng, MOTIONS[activity]) if attempt < ATTEMPTS // 2 else "stand"
            pose, stool = _sample_motion(rng, motion, person, t, spot, yaw, formation.kind, bench)
            body = body_spheres(pose, person.girth)
            filled = [body] if stool is None else [body, box_spheres(stool, len(t))]
            if np.linalg.norm(body.centres[..., [0, 2]], axis=-1).max() > STAGE_RADIUS + 45:
                continue
            if any(overlap(mine, other) for mine in filled for other in occupied):
                continue
            actors.append(Actor(person, outfit, pose, body))
            occupied += filled
            boxes += [] if stool is None else [stool]
            break
    # All people of this take sit on the bench, so it is not tested for collisions.
    return Take(actors, boxes if bench is None else [*boxes, bench])


def _interaction(config: StudioConfig, sequence: str, take: int) -> str | None:
    """The interaction of a take, or None; uses a generator that no other sample depends on."""
    rng = config.rng(sequence, take, 5)
    return _weighted_choice(rng, dict.fromkeys(INTERACTIONS, 1.0)) if rng.random() < config.interactions else None


Choice = TypeVar("Choice")


def _weighted_choice(rng: np.random.Generator, weights: dict[Choice, float]) -> Choice:
    """A random key, with probability in proportion to its weight."""
    total = np.array(list(weights.values()), dtype=float)
    return list(weights)[rng.choice(len(total), p=total / total.sum())]


def _table(rng: np.random.Generator, middle: ndarray) -> list[Box]:
    """A table: its top and one leg."""
    height, yaw = rng.uniform(68, 78), rng.uniform(0, np.pi)
    wood = np.array([0.55, 0.40, 0.27]) * rng.uniform(0.7, 1.4)
    top = np.array([rng.uniform(42, 60), 3.0, rng.uniform(32, 42)])
    leg = np.array([9.0, height / 2 - 3, 9.0])
    return [
        Box(np.array([middle[0], height - 3, middle[1]]), top, yaw, wood),
        Box(np.array([middle[0], leg[1], middle[1]]), leg, yaw, 0.7 * wood),
    ]


def _bench(rng: np.random.Generator, formation: Formation) -> Box:
    """A bench: a block under the people and a little behind them, ``SEAT_WIDTH`` long per person."""
    half = np.array([formation.count * SEAT_WIDTH / 2, rng.uniform(20, 23), 18.0])
    back = 5 * np.array([np.sin(formation.angle), np.cos(formation.angle)])
    middle = np.array([formation.middle[0] - back[0], half[1], formation.middle[1] - back[1]])
    return Box(middle, half, formation.angle, np.array(STOOL_TONES[rng.integers(len(STOOL_TONES))]))


def _sample_motion(
    rng: np.random.Generator,
    motion: str,
    person: Person,
    t: ndarray,
    spot: ndarray,
    yaw: float,
    kind: str,
    bench: Box | None,
) -> tuple[Pose, Box | None]:
    """Samples a motion at a place; returns the pose and the stool, if the motion needs one."""
    if motion == "walk" and kind == "crossing":
        # Long loops round nearly the same middle, in random directions: the paths cross.
        half_axes = (rng.uniform(105, 150), rng.uniform(55, 90))
        path = Walk(0.15 * spot, half_axes, rng.uniform(0, np.pi), rng.choice([-1.0, 1.0]), rng.uniform())
        return walk(rng, person, t, path), None
    if motion == "walk":
        half_axes = (rng.uniform(50, 130), rng.uniform(35, 110))
        path = Walk(0.45 * spot, half_axes, rng.uniform(0, np.pi), rng.choice([-1.0, 1.0]), rng.uniform())
        return walk(rng, person, t, path), None
    if motion == "reach":
        return reach(rng, person, t, spot, yaw), None
    if motion == "sit" and bench is not None:
        return sit(rng, person, t, spot, yaw, 2 * float(bench.half[1]), table=False), None
    if motion == "sit":
        # A quarter of stature, about the height of the knee, within the heights of chairs, cm.
        seat = float(np.clip(rng.normal(0.25, 0.02) * person.stature, 34, 52))
        back = 0.04 * person.stature * np.array([np.sin(yaw), np.cos(yaw)])
        colour = np.array(STOOL_TONES[rng.integers(len(STOOL_TONES))])
        middle = np.array([spot[0] + back[0], seat / 2, spot[1] + back[1]])
        stool = Box(middle, np.array([17.0, seat / 2, 17.0]), yaw, colour)
        return sit(rng, person, t, spot, yaw, seat, kind == "table"), stool
    assert motion == "stand", motion
    return stand(rng, person, t, spot, yaw), None

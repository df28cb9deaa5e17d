"""One person's body measures: stature, bone lengths and girth.

Segment lengths are fractions of stature after Drillis and Contini (Body Segment Parameters, 1966), each varied by a
few per cent. The left and the right side have the same measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Person:
    """Lengths in cm.

    Attributes:
        ankle_height: of the ankle joint above the floor.
        hip_half: half the distance between the hip joints; ``shoulder_half`` likewise.
        lower_spine: mid hip to waist; ``upper_spine``: waist to neck.
        shoulder_drop: of the shoulder joints below the neck.
        head: half the height of the head.
        girth: factor on all radii of the body.
        female: blends between male (0) and female (1) shapes.
        belly: 0 (flat) to 1.
    """

    stature: float
    thigh: float
    shank: float
    foot: float
    ankle_height: float
    hip_half: float
    lower_spine: float
    upper_spine: float
    shoulder_half: float
    shoulder_drop: float
    upper_arm: float
    forearm: float
    hand: float
    neck: float
    head: float
    girth: float
    female: float
    belly: float

    @property
    def leg(self) -> float:
        """Hip to ankle of a straight leg."""
        return self.thigh + self.shank

    @property
    def arm(self) -> float:
        """Shoulder to wrist of a straight arm."""
        return self.upper_arm + self.forearm


def sample_person(rng: np.random.Generator) -> Person:
    """Samples an adult, or in 6 % of cases a person 16 % smaller."""
    female = float(np.clip(rng.choice([0.1, 0.9]) + rng.normal(0, 0.12), 0, 1))
    # Means of about 177 cm for men and 164 cm for women, standard deviation 7 cm.
    stature = float(rng.normal(177 - 13 * female, 7))
    if rng.random() < 0.06:
        stature *= 0.84
    stature = float(np.clip(stature, 132, 202))
    legs = rng.normal(1, 0.02)  # long legs mean a short trunk
    trunk = 2 - legs

    def part(fraction: float, spread: float = 0.03) -> float:
        return float(fraction * stature * np.clip(rng.normal(1, spread), 0.92, 1.08))

    return Person(
        stature=stature,
        thigh=part(0.243) * legs,
        shank=part(0.243) * legs,
        foot=part(0.150),
        ankle_height=part(0.042),
        hip_half=part(0.053 + 0.004 * female),
        lower_spine=part(0.105) * trunk,
        upper_spine=part(0.193) * trunk,
        shoulder_half=part(0.108 - 0.010 * female),
        shoulder_drop=part(0.010),
        upper_arm=part(0.168),
        forearm=part(0.146),
        hand=part(0.100),
        neck=part(0.062),
        # Heads grow much less than in proportion to stature.
        head=float(0.5 * (22.6 - 0.9 * female) * rng.normal(1, 0.02) * (stature / 170) ** 0.35),
        girth=float(np.clip(np.exp(rng.normal(0, 0.11)), 0.82, 1.32) * (stature / 171) ** 0.8),
        female=female,
        belly=float(np.clip(rng.normal(0.25, 0.3), 0, 1) ** 1.5),
    )

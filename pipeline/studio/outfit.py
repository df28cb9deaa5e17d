"""Clothes and looks: colours, lengths of sleeves and trousers, patterns, hair.

Both sides of the body have the same colours and patterns: otherwise a network could learn to separate left from
right by them instead of by the body's shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy import ndarray

# Colours are RGB, 0 to 255.
SKIN_TONES = ((236, 204, 178), (230, 184, 148), (214, 164, 120), (198, 134, 92), (141, 90, 58), (92, 58, 40))
HAIR_TONES = ((28, 22, 20), (44, 32, 26), (70, 48, 34), (104, 72, 46), (150, 112, 70), (196, 160, 108), (128, 124, 120),
              (120, 52, 30))  # fmt: skip
TROUSER_TONES = (
    (38, 44, 66), (52, 70, 104), (92, 112, 146), (34, 34, 38), (60, 58, 60), (108, 104, 100), (150, 130, 98),
    (184, 168, 136), (74, 60, 46), (62, 70, 50), (190, 190, 188), (110, 40, 44),
)  # fmt: skip
SHOE_TONES = (
    (24, 22, 22),
    (60, 44, 34),
    (226, 224, 220),
    (120, 116, 114),
    (150, 40, 40),
    (40, 60, 110),
    (170, 140, 100),
)


@dataclass(frozen=True)
class Outfit:
    """Colours are (3,) RGB in 0..1.

    Attributes:
        sleeve: end of the sleeve on a scale of shoulder 0, elbow 1, wrist 2.
        trouser: end of the trousers on a scale of hip 0, knee 1, ankle 2.
        skirt: end of the skirt on that scale; 0 for none.
        hem: end of the top on a scale of crotch 0, waist 1, neck 2.
        pattern: plain, rows, columns, checks, block or open (a jacket open in front).
        hair_style: bald, short, full, long, bun or tail.
        loose: distance of the clothes from the body, cm.
        stripes: number of stripes or checks per unit of length or turn of the pattern.
        wide: widening of the trouser legs towards the hem, cm.
        coat: end of the coat on a scale of hip 0, knee 1, ankle 2; 0 for none.
        head_wear: none, hood, cap or hat.
    """

    skin: ndarray
    hair: ndarray
    top: ndarray
    accent: ndarray
    trousers: ndarray
    shoes: ndarray
    lips: ndarray
    sleeve: float
    trouser: float
    skirt: float
    hem: float
    pattern: str
    hair_style: str
    beard: bool
    loose: float
    stripes: float
    wide: float = 0.0
    coat: float = 0.0
    head_wear: str = "none"

    def paint_top(self, s: float, angles: ndarray) -> ndarray:
        """Colours (S, 3) of the top at position ``s`` along the trunk or a sleeve and side angles (S,), radians."""
        if self.pattern == "rows":
            return self._two_tone(np.full(len(angles), np.sin(s * np.pi * self.stripes) > 0.2))
        around = np.cos((angles - np.pi / 2) * self.stripes)  # even in the angle from the front, so both sides match
        if self.pattern == "columns":
            return self._two_tone(around > 0.3)
        if self.pattern == "checks":
            return self._two_tone((np.sin(s * np.pi * self.stripes) > 0) ^ (around > 0))
        if self.pattern == "block":
            return self._two_tone(np.full(len(angles), s < 1.35))
        return np.tile(self.top, (len(angles), 1))

    def paint_chest(self, s: float, angles: ndarray) -> ndarray:
        """As ``paint_top``, on the trunk: an open jacket shows its lining in front (90 degrees)."""
        colours = self.paint_top(s, angles)
        if self.pattern == "open":
            colours[np.abs(angles - np.pi / 2) < 0.42] = self.accent
        return colours

    def _two_tone(self, accented: ndarray) -> ndarray:
        return np.where(accented[:, None], self.accent, self.top)


def _tone(rng: np.random.Generator, tones: tuple[tuple[int, int, int], ...], spread: float = 0.06) -> ndarray:
    base = np.array(tones[rng.integers(len(tones))]) / 255
    return np.clip(base * (1 + rng.normal(0, spread)) + rng.normal(0, 0.015, 3), 0.03, 0.97)


def _cloth(rng: np.random.Generator) -> ndarray:
    hue, light = rng.uniform(0, 360), rng.uniform(0.18, 0.95)
    saturation = rng.choice([rng.uniform(0, 0.12), rng.uniform(0.25, 0.85)], p=[0.4, 0.6])
    return cv2.cvtColor(np.array([[[hue, saturation, light]]], np.float32), cv2.COLOR_HSV2RGB)[0, 0].astype(float)


def sample_outfit(rng: np.random.Generator, female: float) -> Outfit:
    """Samples clothes and looks; skirts and long hair are more frequent for ``female`` near 1."""
    feminine = rng.random() < female
    skin = np.clip(_tone(rng, SKIN_TONES, 0.05), 0, 0.96)
    skirt = float(rng.choice([0.65, 0.95, 1.4])) if feminine and rng.random() < 0.3 else 0.0
    styles = ("full", "long", "bun", "tail", "short") if feminine else ("short", "short", "full", "bald")
    top = _cloth(rng)
    # Top and skirt of one cloth are a dress.
    trousers = top if skirt and rng.random() < 0.5 else _tone(rng, TROUSER_TONES)
    return Outfit(
        skin=skin,
        hair=_tone(rng, HAIR_TONES, 0.1),
        top=top,
        accent=_cloth(rng),
        trousers=trousers,
        shoes=_tone(rng, SHOE_TONES),
        lips=np.clip(skin * (0.82, 0.52, 0.5), 0, 1),
        sleeve=float(rng.choice([0.3, 0.5, 0.62, 0.95, 1.6, 1.96], p=[0.06, 0.3, 0.14, 0.08, 0.07, 0.35])),
        trouser=0.0 if skirt else float(rng.choice([0.7, 0.95, 1.6, 1.97], p=[0.12, 0.08, 0.06, 0.74])),
        skirt=skirt,
        hem=float(rng.choice([0.9, 0.45, 0.3], p=[0.3, 0.45, 0.25])),
        pattern=str(
            rng.choice(["plain", "rows", "columns", "checks", "block", "open"], p=[0.5, 0.14, 0.06, 0.1, 0.06, 0.14])
        ),  # fmt: skip
        hair_style=str(rng.choice(styles)),
        beard=not feminine and rng.random() < 0.25,
        loose=float(rng.uniform(0.3, 1.8)),
        stripes=float(rng.integers(4, 8)),
    )


def add_layers(rng: np.random.Generator, outfit: Outfit) -> Outfit:
    """The outfit with at least one of: a coat, a hood, cap or hat, wide trousers."""
    worn = rng.random(3) < (0.5, 0.5, 0.4)
    worn[rng.integers(3)] = True
    coat, head, wide = worn.tolist()
    if coat:  # one cloth for top, sleeves and skirts
        cloth = _tone(rng, TROUSER_TONES) if rng.random() < 0.6 else _cloth(rng)
        outfit = replace(outfit, top=cloth, accent=cloth, sleeve=1.96, hem=0.3, pattern="plain",
                         coat=float(rng.uniform(0.35, 1.35)), loose=float(rng.uniform(1.2, 3.0)))  # fmt: skip
    if head:
        wear = str(rng.choice(["hood", "cap", "hat"]))
        outfit = replace(outfit, head_wear=wear, hair_style="short" if wear == "hood" else outfit.hair_style)
    if wide and not outfit.skirt:
        outfit = replace(outfit, wide=float(rng.uniform(1.0, 3.2)), trouser=1.9)
    return outfit

"""The mesh of a dressed person: trunk, limbs, hands, shoes, head with hair and face.

Profiles are in cm for a person of girth 1 (see person.py), modelled by hand. Positions along a limb are 0, 1, 2 at its
three joints; along the trunk 0 is the crotch, 1 the waist, 2 the neck; along the head -1 is the chin, 1 the crown. Side
angles are degrees round a tube: 0 is the person's left, 90 the front.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy import ndarray

from pipeline.studio.geometry import ease
from pipeline.studio.motion import side_sign
from pipeline.studio.outfit import Outfit
from pipeline.studio.person import Person
from pipeline.studio.skin import Mesh, Mix, Paint, Profile, Surface, at, bent_line, mix, straight_line

LEG: Profile = (
    (-0.26, 0.3, 0.3), (-0.22, 4.0, 5.0), (-0.08, 7.6, 8.8), (0.12, 8.6, 9.2), (0.45, 7.7, 8.4), (0.8, 6.1, 6.5),
    (1.0, 5.5, 6.0), (1.15, 5.1, 5.6), (1.35, 5.2, 6.0), (1.65, 4.1, 4.6), (1.9, 3.3, 3.7),
    (2.04, 3.3, 3.9), (2.12, 2.4, 3.0),
)  # fmt: skip
ARM: Profile = (
    (-0.17, 1.2, 1.2), (-0.12, 3.6, 3.6), (0.02, 5.7, 5.7), (0.25, 5.3, 5.4), (0.6, 4.5, 4.6), (0.92, 3.9, 4.0),
    (1.05, 3.8, 3.9), (1.3, 4.0, 4.0), (1.7, 3.1, 3.0), (1.95, 2.7, 2.3), (2.0, 2.6, 2.1),
)  # fmt: skip
HAND: Profile = (
    (-0.03, 2.4, 2.0), (0.22, 3.6, 1.8), (0.5, 4.2, 1.7), (0.78, 3.7, 1.3), (0.97, 2.3, 0.9), (1.02, 0.3, 0.2),
)  # fmt: skip
SHOE: Profile = (
    (-0.13, 0.6, 0.6), (-0.09, 2.5, 2.2), (0.08, 3.4, 3.2), (0.45, 3.9, 2.8), (0.75, 4.6, 2.5), (1.0, 4.0, 2.0),
    (1.13, 2.2, 1.3), (1.17, 0.3, 0.3),
)  # fmt: skip
# Rows: height, radius to the side, radius to the front, forward shift; in half heights of the head.
HEAD = (
    (-1.0, 0.08, 0.10, 0.28), (-0.95, 0.30, 0.34, 0.27), (-0.8, 0.45, 0.56, 0.18), (-0.5, 0.58, 0.72, 0.08),
    (-0.15, 0.65, 0.80, 0.02), (0.25, 0.68, 0.86, -0.02), (0.6, 0.62, 0.78, -0.05), (0.85, 0.44, 0.56, -0.05),
    (0.97, 0.22, 0.28, -0.05), (1.0, 0.02, 0.02, -0.05),
)  # fmt: skip


def body_mesh(person: Person, outfit: Outfit, sides: int, detail: int) -> Mesh:
    """The mesh of a dressed person, with ``sides`` faces round each tube and ``detail`` rings per profile row."""
    surface = Surface(sides, detail)
    _trunk(surface, person, outfit)
    _yoke(surface, person, outfit)
    for side in "lr":
        _leg(surface, person, outfit, side)
        _arm(surface, person, outfit, side)
        _hand(surface, person, outfit, side)
        _shoe(surface, person, outfit, side)
    if outfit.skirt:
        _skirt(surface, person, outfit, outfit.skirt, outfit.trousers, 1.0)
    if outfit.coat:
        _skirt(surface, person, outfit, outfit.coat, outfit.top, 1.06)
    _head(surface, person, outfit)
    _hair(surface, person, outfit)
    _head_wear(surface, person, outfit)
    _face(surface, person, outfit)
    return surface.build()


def _uniform(colour: ndarray) -> Paint:
    return lambda s, angles: np.tile(colour, (len(angles), 1))


def _scaled(profile: Profile, factor: float) -> list[tuple[float, float, float]]:
    return [(s, a * factor, b * factor) for s, a, b in profile]


def _with_edge(profile: list[tuple[float, float, float]], edge: float, inside: float, sign: int) -> Profile:
    """Adds ``inside`` cm to the radii beyond ``edge`` (``sign`` 1) or before it (-1): the visible edge of a garment."""
    rows = np.array(profile)

    def thick(s: float) -> float:
        return inside * min(1.0, 4 * abs(s)) if (s - edge) * sign > 0 else 0.0

    # Two rows 0.008 apart make the step.
    places = sorted({*(s for s, _, _ in profile if abs(s - edge) > 0.03), edge - 0.004, edge + 0.004})
    radii = [[float(np.interp(s, rows[:, 0], rows[:, k])) + thick(s) for k in (1, 2)] for s in places]
    return [(s, a, b) for s, (a, b) in zip(places, radii)]


def _bump(angles: ndarray, centre: float, width: float) -> ndarray:
    """A Gaussian bump of height 1 over side angles (S,) in radians; ``centre`` and ``width`` are in degrees."""
    gap = np.angle(np.exp(1j * (angles - np.radians(centre))))
    return np.exp(-((gap / np.radians(width)) ** 2))


def _peak(s: float, centre: float, width: float) -> float:
    """A Gaussian bump of height 1 over the position along a tube."""
    return float(np.exp(-(((s - centre) / width) ** 2)))


def _trunk(surface: Surface, person: Person, outfit: Outfit) -> None:
    f, g = person.female, person.girth
    # The profile is for hip and shoulder joints at 9.4 and 18 cm from the middle.
    hips, shoulders = person.hip_half / 9.4, person.shoulder_half / 18.0
    waist = 1 + 0.22 * person.belly
    profile = [
        (0.0, 2.0, 3.0), (0.07, 7.0, 7.5), (0.34, 16.2 * hips, 10.6), (0.62, (16.0 + 0.4 * f) * hips, 10.6),
        (1.0, (14.2 - 1.7 * f) * waist, 9.8 * waist), (1.4, (15.6 - 1.4 * f) * shoulders, 11.0),
        (1.7, (16.6 - 1.2 * f) * shoulders, 11.2), (1.88, 16.4 * shoulders, 9.6), (1.99, 14.0 * shoulders, 7.6),
        (2.07, 9.0, 6.4), (2.15, 6.2 - 0.7 * f, 5.8 - 0.4 * f), (2.2, 5.2 - 0.7 * f, 5.2 - 0.4 * f),
    ]  # fmt: skip
    profile = [(s, a * g, b * g) for s, a, b in profile]
    crotch = at("mid_hip", pelvis_up=-0.05 * person.stature)
    line = bent_line(crotch, at("waist"), at("neck"), 0.55)

    def reference(s: float) -> Mix:
        blend = float(ease(np.array((s - 0.4) / 1.2)))
        return {"pelvis_left": 1 - blend, "chest_left": blend}

    def shape(s: float, angles: ndarray) -> ndarray:
        # A superellipse: a trunk's cross section is between an ellipse and a rectangle.
        boxy = (np.abs(np.cos(angles)) ** 2.6 + np.abs(np.sin(angles)) ** 2.6) ** (-1 / 2.6)
        bust = 0.26 * f * _peak(s, 1.56, 0.17) * (_bump(angles, 58, 24) + _bump(angles, 122, 24))
        belly = 0.45 * person.belly * _peak(s, 0.95, 0.35) * _bump(angles, 90, 50)
        seat = 0.30 * _peak(s, 0.28, 0.2) * (_bump(angles, 240, 30) + _bump(angles, 300, 30))
        return boxy * (1 + bust + belly + seat)

    def paint(s: float, angles: ndarray) -> ndarray:
        neckline = 2.14 - 0.07 * np.sin(angles)  # lower in front
        colours = outfit.paint_chest(s, angles) if s > outfit.hem else np.tile(outfit.trousers, (len(angles), 1))
        return np.where((s > neckline)[:, None], outfit.skin, colours)

    surface.tube(line, _with_edge(profile, outfit.hem, outfit.loose, 1), reference, paint, shape)


def _yoke(surface: Surface, person: Person, outfit: Outfit) -> None:
    """A tube from shoulder to shoulder, so that the shoulders slope into the neck."""
    profile = ((-0.02, 3.5, 3.5), (0.02, 5.2, 5.2), (0.2, 6.4, 6.6), (0.5, 7.4, 7.2), (0.8, 6.4, 6.6), (0.98, 5.2, 5.2),
               (1.02, 3.5, 3.5))  # fmt: skip
    size = person.girth * (1 - 0.14 * person.female)
    ends = [at(f"{side}_shoulder", chest_up=-0.4) for side in "lr"]
    surface.tube(straight_line(*ends), _scaled(profile, size), lambda s: {"chest_up": 1.0},
                 lambda s, angles: outfit.paint_top(1.9, angles))  # fmt: skip


def _leg(surface: Surface, person: Person, outfit: Outfit, side: str) -> None:
    line = bent_line(at(f"{side}_hip"), at(f"{side}_knee"), at(f"{side}_ankle"), 0.16)
    end = outfit.trouser

    def paint(s: float, angles: ndarray) -> ndarray:
        # Under a skirt or coat the leg has its colour: coarse meshes of cloth do not cover the leg everywhere.
        if outfit.coat and s < outfit.coat - 0.08:
            return np.tile(outfit.top, (len(angles), 1))
        return np.tile(outfit.trousers if s < max(end, outfit.skirt - 0.08) else outfit.skin, (len(angles), 1))

    def shape(s: float, angles: ndarray) -> ndarray:
        calf = 0.26 * _peak(s, 1.34, 0.2) * _bump(angles, 90, 60)
        kneecap = 0.10 * _peak(s, 1.0, 0.07) * _bump(angles, 270, 50)
        return 1 + (calf + kneecap) * (0.6 if s < end else 1.0)

    # Trouser legs hang straight, so they widen relative to the leg towards the hem.
    loose = outfit.loose
    profile = [
        (s, a + flare, b + flare)
        for s, a, b in _scaled(LEG, person.girth)
        for flare in [(s < end) * loose * 0.6 * max(s, 0) + (s < end) * outfit.wide * max(s, 0)]
    ]
    surface.tube(line, _with_edge(profile, end, 0.5 * loose, -1), lambda s: {f"{side}_leg": 1.0}, paint, shape)


def _arm(surface: Surface, person: Person, outfit: Outfit, side: str) -> None:
    line = bent_line(at(f"{side}_shoulder"), at(f"{side}_elbow"), at(f"{side}_wrist"), 0.18)
    end = outfit.sleeve

    def paint(s: float, angles: ndarray) -> ndarray:
        if s > end:
            return np.tile(outfit.skin, (len(angles), 1))
        return outfit.paint_top(2 - s, angles)

    profile = _scaled(ARM, person.girth * (1 - 0.14 * person.female))
    surface.tube(line, _with_edge(profile, end, 0.7 * outfit.loose, -1), lambda s: {f"{side}_arm": 1.0}, paint)


def _hand(surface: Surface, person: Person, outfit: Outfit, side: str) -> None:
    size = person.hand / 17.5
    paint = _uniform(outfit.skin)
    reference: Mix = {f"{side}_palm": 1.0}
    surface.tube(
        straight_line(at(f"{side}_wrist"), at(f"{side}_fingers")), _scaled(HAND, size), lambda s: reference, paint
    )
    if surface.detail > 1:
        base = mix((0.7, at(f"{side}_wrist")), (0.3, at(f"{side}_fingers")), (2.6 * size, reference))
        tip = mix((0.42, at(f"{side}_wrist")), (0.58, at(f"{side}_fingers")), (5.6 * size, reference))
        thumb = ((-0.2, 0.4, 0.4), (0.0, 1.5, 1.5), (0.6, 1.2, 1.2), (0.95, 0.9, 0.9), (1.05, 0.1, 0.1))
        across = {f"{side}_arm": 1.0, **reference}
        surface.tube(straight_line(base, tip), _scaled(thumb, size), lambda s: across, paint)


def _shoe(surface: Surface, person: Person, outfit: Outfit, side: str) -> None:
    def shape(s: float, angles: ndarray) -> ndarray:
        instep = 0.8 * _peak(s, 0.25, 0.28) * _bump(angles, 270, 55)
        boxy = (np.abs(np.cos(angles)) ** 3 + np.abs(np.sin(angles)) ** 3) ** (-1 / 3)
        return boxy * (1 + instep)

    line = straight_line(at(f"{side}_heel"), at(f"{side}_toe"))
    profile = _scaled(SHOE, person.ankle_height / 7.3)
    surface.tube(line, profile, lambda s: {f"{side}_foot": 1.0}, _uniform(outfit.shoes), shape)


def _skirt(surface: Surface, person: Person, outfit: Outfit, end: float, colour: ndarray, over: float) -> None:
    """A skirt, or a coat below the waist; its left half follows the left leg, its right half the right leg.

    It ends at ``end`` on the scale of hip 0, knee 1, ankle 2; ``over`` is a factor on the radii for cloth over cloth.
    """
    thick = over * person.girth * (1.0 + 0.06 * outfit.loose)

    def leg(side: str) -> Callable[[float], tuple[Mix, Mix]]:
        down = bent_line(at(f"{side}_hip"), at(f"{side}_knee"), at(f"{side}_ankle"), 0.3)
        # Above the hip joints both halves follow the pelvis.
        return lambda s: (at("mid_hip", pelvis_up=-40 * s), down(0)[1]) if s < 0 else down(s)

    left, right = leg("l"), leg("r")

    def line(s: float) -> tuple[Mix, Mix]:
        (centre, one), (_, other) = left(s), right(s)
        return centre, mix((1, one), (1, other), (-25 if s < 0 else 0, {"pelvis_up": 1.0}))

    profile = [(-0.30, 14.8, 10.6), (-0.20, 16.6, 11.0), (-0.02, 17.6, 12.0), (0.02, 8.6, 12.2), (0.4 * end, 9.4, 12.6),
               (0.75 * end, 10.0, 12.4), (end, 10.8, 12.6), (end + 0.02, 9.6, 11.0)]  # fmt: skip
    surface.tube(line, _scaled(profile, thick), lambda s: {"pelvis_left": 1.0}, _uniform(colour),
                 twin=lambda s: right(s)[0])  # fmt: skip


def _head(surface: Surface, person: Person, outfit: Outfit) -> None:
    f, h = person.female, person.head
    neck = _scaled(
        ((0.0, 6.4, 6.2), (0.3, 5.4, 5.6), (0.75, 5.2, 5.6), (1.0, 4.2, 4.6)), (1 - 0.13 * f) * person.girth**0.5
    )
    surface.tube(straight_line(at("neck", chest_up=-1.0), at("head", head_up=-0.25 * h, head_forward=-0.1 * h)), neck,
                 lambda s: {"chest_left": 0.5, "head_left": 0.5}, _uniform(0.9 * outfit.skin))  # fmt: skip
    rows = np.array(HEAD)

    def line(s: float) -> tuple[Mix, Mix]:
        forward = float(np.interp(s, rows[:, 0], rows[:, 3]))
        return at("head", head_up=s * h, head_forward=forward * h), {"head_up": 1.0}

    volume = {"bald": 0.0, "short": 0.05, "full": 0.16, "long": 0.13, "bun": 0.07, "tail": 0.08}[outfit.hair_style]
    hood = outfit.head_wear == "hood"
    volume = 0.34 if hood else volume

    def covered(s: float, angles: ndarray) -> ndarray:
        """Share of hair, 0..1: 1 above a line from the forehead over the ears to the nape."""
        away = np.degrees(np.abs(np.angle(np.exp(1j * (angles - np.pi / 2)))))
        nape = -0.95 if outfit.hair_style in ("full", "long") or hood else -0.6
        hairline = np.interp(away, (0, 45, 70, 95, 125, 180), (0.60, 0.55, 0.25, -0.15, nape, nape))
        return ease((s - hairline) / 0.16 + 0.5)

    def shape(s: float, angles: ndarray) -> ndarray:
        jaw = 0.06 * (1 - f) * _peak(s, -0.75, 0.25) * (_bump(angles, 30, 40) + _bump(angles, 150, 40))
        return 1 + jaw + volume * covered(s, angles) * (1 + 0.3 * (s > 0.9))

    def paint(s: float, angles: ndarray) -> ndarray:
        hair = covered(s, angles)[:, None] if outfit.hair_style != "bald" else np.zeros((len(angles), 1))
        tone = outfit.top if hood else outfit.hair
        face = np.tile(outfit.skin, (len(angles), 1))
        away = np.abs(np.angle(np.exp(1j * (angles - np.pi / 2))))
        if outfit.beard and s < -0.42:
            face[away < 1.5] = 0.35 * outfit.skin + 0.65 * outfit.hair
        return hair * tone + (1 - hair) * face

    surface.tube(line, [(y, a * h, b * h) for y, a, b, _ in HEAD], lambda s: {"head_left": 1.0}, paint, shape)


def _hair(surface: Surface, person: Person, outfit: Outfit) -> None:
    """Hair that leaves the head: long hair, a bun or a ponytail."""
    h = person.head
    paint = _uniform(outfit.hair)
    if outfit.hair_style == "long":
        top = at("head", head_up=0.2 * h, head_forward=-0.42 * h)
        low = mix((0.35, at("head", head_up=-1.5 * h, head_forward=-0.75 * h)),
                  (0.65, at("neck", chest_up=-0.4 * h, chest_forward=-0.95 * h)))  # fmt: skip
        profile = (
            (0.0, 0.62 * h, 0.50 * h),
            (0.45, 0.74 * h, 0.46 * h),
            (0.8, 0.76 * h, 0.34 * h),
            (1.0, 0.62 * h, 0.14 * h),
        )
        surface.tube(straight_line(top, low), profile, lambda s: {"head_left": 1.0}, paint)
    if outfit.hair_style == "bun":
        a, b = at("head", head_up=0.45 * h, head_forward=-0.7 * h), at("head", head_up=0.75 * h, head_forward=-1.2 * h)
        profile = (
            (0.0, 0.2 * h, 0.2 * h),
            (0.3, 0.36 * h, 0.36 * h),
            (0.7, 0.36 * h, 0.36 * h),
            (1.0, 0.04 * h, 0.04 * h),
        )
        surface.tube(straight_line(a, b), profile, lambda s: {"head_left": 1.0}, paint)
    if outfit.hair_style == "tail":
        a, b = at("head", head_up=0.3 * h, head_forward=-0.8 * h), at("head", head_up=-0.5 * h, head_forward=-1.25 * h)
        c = mix((0.5, at("head", head_up=-1.6 * h, head_forward=-1.1 * h)), (0.5, at("neck", chest_forward=-1.2 * h)))
        profile = (
            (0.0, 0.12 * h, 0.12 * h),
            (0.4, 0.26 * h, 0.24 * h),
            (1.2, 0.28 * h, 0.24 * h),
            (2.0, 0.05 * h, 0.05 * h),
        )
        surface.tube(bent_line(a, b, c, 0.6), profile, lambda s: {"head_left": 1.0}, paint)


def _head_wear(surface: Surface, person: Person, outfit: Outfit) -> None:
    """A cap with a peak or a hat with a brim; ``_head`` models a hood."""
    h = person.head
    if outfit.head_wear not in ("cap", "hat"):
        return
    paint = _uniform(outfit.accent)
    low, high = (at("head", head_up=up * h, head_forward=-0.04 * h) for up in (0.42, 1.22))
    crown = ((-0.02, 0.74, 0.92), (0.0, 0.80, 0.98), (0.45, 0.76, 0.94), (0.8, 0.52, 0.66), (1.0, 0.04, 0.05))
    wide, long, ahead = (1.30, 1.50, 0.0) if outfit.head_wear == "hat" else (0.72, 0.62, 0.92)
    below, above = (at("head", head_up=up * h, head_forward=(ahead - 0.04) * h) for up in (0.42, 0.50))
    brim = ((-0.1, 0.1, 0.1), (0.0, wide, long), (0.9, wide, long), (1.0, 0.1, 0.1))
    for line, rows in ((straight_line(low, high), crown), (straight_line(below, above), brim)):
        surface.tube(line, [(s, a * h, b * h) for s, a, b in rows], lambda s: {"head_left": 1.0}, paint)


def _face(surface: Surface, person: Person, outfit: Outfit) -> None:
    """Nose, ears, eyes, brows and mouth: they show which way a person faces."""
    h = person.head

    def spot(
        name: str, colour: ndarray, wide: float, high: float, out: float, up: float = 0.0, side: float = 0.0
    ) -> None:
        """A flat patch ``out`` in front of a named point of the face; lengths are in half heights of the head."""
        base = at(name, head_up=up * h, head_left=side * h)
        centre = mix((1, base), (out * h, {"head_forward": 1.0}))
        tip = mix((1, base), ((out + 0.02) * h, {"head_forward": 1.0}))
        profile = ((0.0, wide * h, high * h), (1.0, 0.02 * h, 0.02 * h))
        surface.tube(straight_line(centre, tip), profile, lambda s: {"head_left": 1.0}, _uniform(colour))

    dark = np.array([0.10, 0.08, 0.08])
    for side in "lr":
        if surface.detail > 1:
            spot(f"{side}_eye", np.array([0.93, 0.92, 0.90]), 0.135, 0.075, 0.04)
            spot(f"{side}_eye", dark, 0.062, 0.068, 0.06)
        else:
            spot(f"{side}_eye", dark, 0.12, 0.075, 0.05)
        spot(f"{side}_eye", 0.7 * outfit.hair + 0.1 * outfit.skin, 0.17, 0.032, 0.06, up=0.17)
        s = side_sign(side)
        inner = at(f"{side}_ear", head_left=-0.04 * h * s)
        outer = at(f"{side}_ear", head_left=0.10 * h * s)
        ear = ((0.0, 0.25 * h, 0.16 * h), (0.8, 0.22 * h, 0.14 * h), (1.0, 0.02 * h, 0.02 * h))
        surface.tube(straight_line(inner, outer), ear, lambda _: {"head_up": 1.0}, _uniform(0.92 * outfit.skin))
    spot("nose", outfit.lips, 0.21, 0.05, -0.06, up=-0.33)
    bridge = at("nose", head_up=0.30 * h, head_forward=-0.14 * h)
    below = at("nose", head_up=-0.12 * h, head_forward=-0.02 * h)
    nose = ((0.0, 0.05 * h, 0.04 * h), (0.5, 0.09 * h, 0.12 * h), (0.9, 0.14 * h, 0.15 * h), (1.0, 0.05 * h, 0.05 * h))
    surface.tube(straight_line(bridge, below), nose, lambda _: {"head_left": 1.0}, _uniform(0.97 * outfit.skin))

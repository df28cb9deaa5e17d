"""Surfaces of skin, clothes and hair: tubes of elliptic rings along a line of joints.

Centre, direction and reference axis of every ring are linear combinations of the pose's points and axes, so the mesh
of a person at one moment is a few small matrix products. A limb's centre line follows a Bezier curve round its middle
joint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy import ndarray

from pipeline.studio.motion import Pose

Mix = dict[str, float]
"""A linear combination of a pose's points and axes: name -> weight; weights of axes are in cm."""
Profile = Sequence[tuple[float, ...]]
"""Rows (position along the tube, radius, radius, ...), radii in cm, interpolated between the rows."""


def mix(*terms: tuple[float, Mix]) -> Mix:
    """The weighted sum of linear combinations."""
    total: Mix = {}
    for weight, part in terms:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + weight * value
    return total


def at(name: str, **axes: float) -> Mix:
    """A named point, moved along named axes by the given cm."""
    return {name: 1.0, **axes}


@dataclass
class Ring:
    """One ring of a tube; radii along and across the reference axis are in cm.

    Attributes:
        shape: (S,) factor on the radius at every side; side angle 0 is on the reference axis, 90 degrees on
            reference x direction.
        colour: (S, 3) RGB in 0..1 of the faces between this ring and the next.
        twin: second centre, which the side opposite to the reference axis follows; a skirt has one per leg.
    """

    centre: Mix
    direction: Mix
    reference: Mix
    radii: tuple[float, float]
    shape: ndarray
    colour: ndarray
    twin: Mix | None = None


Paint = Callable[[float, ndarray], ndarray]
"""(position along the tube, side angles (S,)) -> RGB (S, 3)."""


def bent_line(a: Mix, b: Mix, c: Mix, bend: float) -> Callable[[float], tuple[Mix, Mix]]:
    """Centre and direction at s in [0, 2] of the line a-b-c, rounded within ``bend`` (share of a bone) of b.

    Outside [0, 2] the line continues straight.
    """

    def line(s: float) -> tuple[Mix, Mix]:
        first, second = mix((1, b), (-1, a)), mix((1, c), (-1, b))
        if s <= 1 - bend:
            return mix((1 - s, a), (s, b)), first
        if s >= 1 + bend:
            return mix((2 - s, b), (s - 1, c)), second
        u = (s - 1 + bend) / (2 * bend)
        start, end = mix((bend, a), (1 - bend, b)), mix((1 - bend, b), (bend, c))
        centre = mix(((1 - u) ** 2, start), (2 * u * (1 - u), b), (u**2, end))
        return centre, mix((1 - u, first), (u, second))

    return line


def straight_line(a: Mix, b: Mix) -> Callable[[float], tuple[Mix, Mix]]:
    """Centre and direction at s in [0, 1] from a to b."""
    return lambda s: (mix((1 - s, a), (s, b)), mix((1, b), (-1, a)))


@dataclass
class Surface:
    """A mesh under construction: ``sides`` S faces round each ring, ``detail`` rings per profile row."""

    sides: int
    detail: int
    tubes: list[list[Ring]] = field(default_factory=list)

    @property
    def angles(self) -> ndarray:
        """(S,) angle of every side."""
        return 2 * np.pi * np.arange(self.sides) / self.sides

    def tube(
        self,
        line: Callable[[float], tuple[Mix, Mix]],
        profile: Profile,
        reference: Callable[[float], Mix],
        paint: Paint,
        shape: Callable[[float, ndarray], ndarray] | None = None,
        twin: Callable[[float], Mix] | None = None,
    ) -> None:
        """Adds a tube.

        Args:
            line: position along the tube -> centre and direction.
            profile: rows (position, radius along the reference axis, radius across it).
            reference: position -> reference axis.
            paint: colours of the faces.
            shape: factor on the radii at a position and side angles (S,); 1 by default.
            twin: position -> second centre (see ``Ring``).
        """
        rows = np.array(profile, dtype=float)
        s = _refined(rows[:, 0], self.detail)
        radii = np.stack([_smooth_interp(s, rows[:, 0], rows[:, k]) for k in (1, 2)], -1)
        between = self.angles + np.pi / self.sides
        rings = []
        for i, place in enumerate(s):
            centre, direction = line(place)
            form = np.ones(self.sides) if shape is None else shape(place, self.angles)
            colour = paint(0.5 * (place + s[min(i + 1, len(s) - 1)]), between)
            other = None if twin is None else twin(place)
            rings.append(Ring(centre, direction, reference(place), (radii[i, 0], radii[i, 1]), form, colour, other))
        self.tubes.append(rings)

    def build(self) -> Mesh:
        """The finished mesh."""
        return Mesh(self.tubes, self.sides)


def _refined(s: ndarray, detail: int) -> ndarray:
    """Inserts ``detail`` - 1 equally spaced positions between neighbours."""
    fine = np.interp(np.arange((len(s) - 1) * detail + 1) / detail, np.arange(len(s)), s)
    return fine


def _smooth_interp(x: ndarray, xs: ndarray, ys: ndarray) -> ndarray:
    """Monotone cubic interpolation through (xs, ys), without overshoot (Fritsch and Butland, 1984)."""
    h = np.diff(xs)
    slope = np.diff(ys) / np.maximum(h, 1e-9)
    # Harmonic mean of the neighbouring slopes, 0 at extrema: keeps every piece monotone.
    inner = np.where(slope[:-1] * slope[1:] > 0, 2 * slope[:-1] * slope[1:] / (slope[:-1] + slope[1:] + 1e-12), 0)
    m = np.concatenate([slope[:1], inner, slope[-1:]])
    i = np.clip(np.searchsorted(xs, x, side="right") - 1, 0, len(h) - 1)
    u = np.clip((x - xs[i]) / np.maximum(h[i], 1e-9), 0, 1)
    return (
        (1 + 2 * u) * (1 - u) ** 2 * ys[i]
        + u * (1 - u) ** 2 * h[i] * m[i]
        + u * u * (3 - 2 * u) * ys[i + 1]
        - u * u * (1 - u) * h[i] * m[i + 1]
    )


class Mesh:
    """A dressed person as quads between rings; ``pose`` computes the vertices of one moment.

    Attributes:
        faces: (F, 4) vertex indices.
        colours: (F, 3) RGB in 0..1.
    """

    def __init__(self, tubes: list[list[Ring]], sides: int) -> None:
        rings = [ring for tube in tubes for ring in tube]
        parts = [(r.centre, r.direction, r.reference, r.centre if r.twin is None else r.twin) for r in rings]
        self.names = sorted({name for row in parts for part in row for name in part})
        column = {name: i for i, name in enumerate(self.names)}
        self.weights = np.zeros((4, len(rings), len(self.names)))
        for i, row in enumerate(parts):
            for k, part in enumerate(row):
                for name, value in part.items():
                    self.weights[k, i, column[name]] = value
        angle = 2 * np.pi * np.arange(sides) / sides
        self.share = 0.5 + 0.5 * np.cos(angle)  # weight of the first centre at every side
        form = np.stack([r.shape for r in rings])
        radii = np.array([r.radii for r in rings])
        # (R, S) cm: offsets of each vertex along the reference axis and across it.
        self.along = form * radii[:, :1] * np.cos(angle)
        self.across = form * radii[:, 1:] * np.sin(angle)

        first = np.concatenate([[0], np.cumsum([len(tube) for tube in tubes])])
        rows = np.concatenate([np.arange(a, b - 1) for a, b in zip(first[:-1], first[1:])])
        side = np.arange(sides)
        here, there = side, (side + 1) % sides
        quad = np.stack([rows[:, None] * sides + here, rows[:, None] * sides + there], -1)
        self.faces = np.concatenate([quad, quad[..., ::-1] + sides], -1).reshape(-1, 4)
        self.colours = np.stack([rings[i].colour for i in rows]).reshape(-1, 3)

    def pose(self, pose: Pose, moment: int) -> ndarray:
        """Vertices (V, 3) at one moment, cm, stage frame."""
        controls = np.stack([(pose.points if n in pose.points else pose.axes)[n][moment] for n in self.names])
        centre, direction, reference, twin = self.weights @ controls
        direction /= np.sqrt(np.einsum("ri,ri->r", direction, direction))[:, None]
        x = reference - np.einsum("ri,ri->r", reference, direction)[:, None] * direction
        x /= np.sqrt(np.einsum("ri,ri->r", x, x))[:, None]
        y = np.cross(x, direction)
        middle = twin[:, None] + self.share[:, None] * (centre - twin)[:, None]
        vertices = middle + self.along[..., None] * x[:, None] + self.across[..., None] * y[:, None]
        return vertices.reshape(-1, 3)

"""Motions of one person over T moments: standing, reaching, sitting, walking.

A motion samples targets for feet and hands and orientations of pelvis, chest and head; arms and legs follow by two-bone
inverse kinematics. So feet stay on the floor, bone lengths are constant, and knees and elbows keep their limits.
All positions are in the stage frame (see geometry.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from pipeline.studio.geometry import ease, interpolate_keys, rotated, rotation, smooth_noise, two_bone_ik, unit
from pipeline.studio.person import Person

# Largest flexion, radians; a straight limb has 0.
KNEE_LIMIT = np.radians(148)
ELBOW_LIMIT = np.radians(146)
LEFT, UP, FORWARD = np.eye(3)

# Wrist positions of the LEFT arm in chest axes (left, up, forward), relative to the shoulder, in arm lengths, and the
# direction in which the elbow points. The right arm uses the mirror images.
ARM_POSES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "hang": ((0.14, -0.96, 0.08), (0.5, 0.0, -1.0)),
    "loose": ((0.18, -0.84, 0.28), (0.5, -0.2, -1.0)),
    "hip": ((0.05, -0.66, 0.10), (1.0, 0.0, -0.5)),
    "clasped": ((-0.26, -0.58, 0.46), (0.7, -0.5, -0.3)),
    "crossed": ((-0.34, -0.30, 0.50), (0.6, -0.8, 0.1)),
    "behind": ((-0.12, -0.72, -0.32), (0.9, 0.0, -0.5)),
    "talk_low": ((0.08, -0.50, 0.58), (0.5, -0.9, -0.3)),
    "talk": ((0.02, -0.22, 0.66), (0.5, -0.9, -0.2)),
    "talk_wide": ((0.46, -0.28, 0.50), (0.4, -0.9, -0.4)),
    "offer": ((0.02, -0.18, 0.90), (0.4, -1.0, 0.0)),
    "point": ((0.05, 0.05, 0.98), (0.4, -1.0, 0.0)),
    "point_side": ((0.88, 0.02, 0.38), (0.0, -1.0, -0.3)),
    "wave": ((0.36, 0.48, 0.34), (1.0, -0.6, 0.0)),
    "up": ((0.14, 0.90, 0.28), (1.0, 0.0, 0.4)),
    "phone": ((-0.02, 0.28, 0.26), (0.7, -0.8, 0.3)),
    "read": ((-0.16, -0.26, 0.58), (0.6, -0.9, -0.1)),
    "chin": ((-0.22, 0.12, 0.40), (0.5, -0.9, 0.2)),
    "lap": ((-0.06, -0.62, 0.52), (0.8, -0.3, -0.5)),
}
RESTING = ("hang", "hang", "loose", "hip", "clasped", "crossed", "behind")
TALKING = ("talk_low", "talk", "talk_wide", "offer", "point", "wave", "talk_low", "talk", "chin", "loose")
RARE = ("point_side", "up", "phone", "read", "wave", "point")
BOTH_HANDS = ("clasped", "crossed", "behind", "read")


@dataclass(frozen=True)
class Pose:
    """A person at T moments.

    Attributes:
        points: name -> (T, 3) cm. axes: name -> (T, 3) unit vectors.

    Points: mid_hip, waist, neck, skull, head, and l_/r_ shoulder, elbow, wrist, fingers, hip, knee, ankle, heel, toe,
    eye, ear, and nose. Axes: pelvis_, chest_ and head_ left, up, forward; l_/r_ arm and leg (the hinge, to the
    person's left), foot (to the left), palm (across the hand).
    """

    points: dict[str, ndarray]
    axes: dict[str, ndarray]


@dataclass(frozen=True)
class MotionTargets:
    """Targets of a motion at T moments; ``solve`` computes the pose.

    Attributes:
        ankles: side -> (T, 3) target positions, cm.
        feet: side -> (T, 3, 3) orientation of each foot.
        pelvis: (T, 3) mid-hip, cm.
        pelvis_R: (T, 3, 3) columns left, up, forward.
        chest_R: (T, 3, 3), likewise.
        head_R: (T, 3, 3), likewise.
        wrists: side -> (T, 3) in chest axes, arm lengths from the shoulder, mirrored for the right arm.
        elbows: side -> (T, 3) elbow direction in chest axes, mirrored likewise.
    """

    ankles: dict[str, ndarray]
    feet: dict[str, ndarray]
    pelvis: ndarray
    pelvis_R: ndarray
    chest_R: ndarray
    head_R: ndarray
    wrists: dict[str, ndarray]
    elbows: dict[str, ndarray]


def side_sign(side: str) -> float:
    """+1 for the left side, -1 for the right one: the sign of x."""
    return 1.0 if side == "l" else -1.0


def solve(person: Person, targets: MotionTargets) -> Pose:
    """The pose that meets the targets: forward kinematics of the trunk, inverse kinematics of the limbs."""
    p, a = {}, {}
    for name, R in (("pelvis", targets.pelvis_R), ("chest", targets.chest_R), ("head", targets.head_R)):
        for i, axis in enumerate(("left", "up", "forward")):
            a[f"{name}_{axis}"] = R[:, :, i]
    p["mid_hip"] = targets.pelvis
    p["waist"] = targets.pelvis + person.lower_spine * a["pelvis_up"]
    p["neck"] = p["waist"] + person.upper_spine * a["chest_up"]
    neck_up = unit(a["chest_up"] + a["head_up"])
    p["skull"] = p["neck"] + person.neck * neck_up + 0.12 * person.neck * a["chest_forward"]
    h = person.head
    p["head"] = p["skull"] + rotated(targets.head_R, np.array([0.0, 0.62 * h, 0.16 * h]))

    def on_head(left: float, up: float, forward: float) -> ndarray:
        return p["head"] + rotated(targets.head_R, h * np.array([left, up, forward]))

    p["nose"] = on_head(0, -0.16, 0.93)
    for side in "lr":
        s = side_sign(side)
        mirror = np.array([s, 1.0, 1.0])
        p[f"{side}_eye"] = on_head(0.29 * s, 0.10, 0.74)
        p[f"{side}_ear"] = on_head(0.66 * s, -0.03, -0.08)

        shoulder = p["neck"] + rotated(
            targets.chest_R, np.array([s * person.shoulder_half, -person.shoulder_drop, 0.0])
        )
        target = shoulder + rotated(targets.chest_R, person.arm * mirror * targets.wrists[side])
        pole = rotated(targets.chest_R, mirror * targets.elbows[side])
        elbow, wrist, hinge = two_bone_ik(shoulder, target, pole, person.upper_arm, person.forearm, ELBOW_LIMIT)
        forearm = unit(wrist - elbow)
        inward = -s * a["chest_left"]
        # A relaxed hand continues the forearm, turned slightly inwards; the axis across the palm is close to the plane
        # in which the elbow bends.
        p[f"{side}_fingers"] = wrist + person.hand * unit(forearm + 0.15 * inward)
        p[f"{side}_shoulder"], p[f"{side}_elbow"], p[f"{side}_wrist"] = shoulder, elbow, wrist
        a[f"{side}_arm"] = hinge
        a[f"{side}_palm"] = unit(np.cross(forearm, hinge) + 0.4 * s * hinge)

        hip = targets.pelvis + s * person.hip_half * a["pelvis_left"]
        foot = targets.feet[side]
        pole = foot[:, :, 2] + a["pelvis_forward"] + 0.12 * s * a["pelvis_left"] + 0.35 * UP
        knee, ankle, hinge = two_bone_ik(hip, targets.ankles[side], pole, person.thigh, person.shank, KNEE_LIMIT)
        down = person.ankle_height
        p[f"{side}_hip"], p[f"{side}_knee"], p[f"{side}_ankle"] = hip, knee, ankle
        p[f"{side}_heel"] = ankle + rotated(foot, np.array([0.0, -0.55 * down, -0.24 * person.foot]))
        p[f"{side}_toe"] = ankle + rotated(foot, np.array([0.0, -0.72 * down, 0.70 * person.foot]))
        a[f"{side}_leg"], a[f"{side}_foot"] = -hinge, foot[:, :, 0]
    return Pose(p, a)


def pelvis_over_feet(
    person: Person, ankles: dict[str, ndarray], pelvis_xz: ndarray, yaw: ndarray, stretch: float
) -> ndarray:
    """Pelvis positions (T, 3), cm, above ``pelvis_xz`` (T, 2): as high as both legs allow.

    Args:
        person: for hip width and leg length.
        ankles: side -> (T, 3) positions, cm.
        pelvis_xz: (T, 2) floor coordinates, cm.
        yaw: (T,) heading, radians.
        stretch: distance of hip and ankle as a share of the leg's length.
    """
    left = np.stack([np.cos(yaw), -np.sin(yaw)], -1)
    heights = []
    for side in "lr":
        hip = pelvis_xz + side_sign(side) * person.hip_half * left
        flat = np.linalg.norm(ankles[side][:, [0, 2]] - hip, axis=-1)
        leg = stretch * person.leg
        heights.append(ankles[side][:, 1] + np.sqrt(np.maximum(leg**2 - flat**2, (0.6 * leg) ** 2)))
    return np.stack([pelvis_xz[:, 0], np.minimum(*heights), pelvis_xz[:, 1]], -1)


def arm_targets(
    rng: np.random.Generator, t: ndarray, pool: tuple[str, ...]
) -> tuple[dict[str, ndarray], dict[str, ndarray]]:
    """Wrist and elbow targets of both arms, side -> (T, 3), passing between arm poses of ``pool``.

    Both sides have the same distribution: motion must not reveal which side is which.
    """
    names = [str(rng.choice(pool if rng.random() > 0.06 else RARE)) for _ in range(4)]
    hold, start = rng.uniform(1.6, 4.0), rng.uniform(0, 12)
    wrists, elbows = {}, {}
    for side in "lr":
        own = [n if n in BOTH_HANDS or rng.random() < 0.3 else str(rng.choice(pool)) for n in names]
        own = [n if m not in BOTH_HANDS else m for n, m in zip(own, names)]
        if not any(n in BOTH_HANDS for n in names):
            own = [o if o not in BOTH_HANDS else "hang" for o in own]
        keys = np.array([ARM_POSES[n] for n in own]) + rng.normal(0, 0.05, (4, 2, 3))
        path = interpolate_keys(keys, t, hold, start + rng.uniform(0, 0.6))
        wrists[side] = path[:, 0] + 0.05 * smooth_noise(rng, t, 3, 1.6)
        elbows[side] = path[:, 1]
    return wrists, elbows


def _trunk_orientations(
    rng: np.random.Generator, t: ndarray, yaw: ndarray, lean: ndarray
) -> tuple[ndarray, ndarray, ndarray]:
    """Pelvis, chest and head orientations (T, 3, 3) for a heading ``yaw`` (T,) and a forward ``lean`` (T,), radians."""
    sway = smooth_noise(rng, t, 6, 4.0)
    pelvis = rotation("y", yaw + 0.07 * sway[:, 0]) @ rotation("x", 0.25 * lean)
    twist = yaw + 0.18 * sway[:, 1]
    chest = rotation("y", twist) @ rotation("x", lean + 0.04 * sway[:, 2]) @ rotation("z", 0.05 * sway[:, 3])
    looks = interpolate_keys(rng.normal(0, 1, (5, 2)) * (0.42, 0.16), t, rng.uniform(1.2, 3.0), rng.uniform(0, 9))
    nod = 0.4 * lean + 0.06 + looks[:, 1] + 0.05 * sway[:, 4]
    head = rotation("y", twist + np.clip(looks[:, 0], -1.1, 1.1)) @ rotation("x", np.clip(nod, -0.5, 0.9))
    return pelvis, chest, head @ rotation("z", 0.07 * sway[:, 5])


def _fixed_feet(
    rng: np.random.Generator, person: Person, t: ndarray, centre: ndarray, yaw: float, half: float
) -> tuple[dict[str, ndarray], dict[str, ndarray]]:
    """Positions (T, 3) and orientations (T, 3, 3) of feet that do not move, ``half`` cm to each side of ``centre``."""
    ankles, feet = {}, {}
    ahead = rng.normal(0, 4)
    for side in "lr":
        s = side_sign(side)
        R = rotation("y", np.full(len(t), yaw + s * abs(rng.normal(0.14, 0.1))))
        offset = rotation("y", np.array([yaw]))[0] @ np.array([s * half, 0, s * ahead])
        ankles[side] = np.array([centre[0], person.ankle_height, centre[1]]) + offset + np.zeros((len(t), 1))
        feet[side] = R
    return ankles, feet


def stand(
    rng: np.random.Generator,
    person: Person,
    t: ndarray,
    centre: ndarray,
    yaw: float,
    pool: tuple[str, ...] = RESTING + TALKING,
) -> Pose:
    """Standing at ``centre`` (x, z) cm, facing ``yaw`` radians: shifting weight, turning the head, moving the arms."""
    ankles, feet = _fixed_feet(rng, person, t, centre, yaw, rng.uniform(6, 15))
    shift = smooth_noise(rng, t, 2, 5.0) * (3.5, 2.0) + rng.normal(0, 1, 2) * (1.5, 1.0)
    left = np.array([np.cos(yaw), -np.sin(yaw)])
    ahead = np.array([np.sin(yaw), np.cos(yaw)])
    pelvis_xz = centre + shift[:, :1] * left + (shift[:, 1:] - 1) * ahead
    yaws = np.full(len(t), yaw)
    lean = 0.04 + abs(rng.normal(0, 0.05)) + 0.04 * smooth_noise(rng, t, 1, 3.0)[:, 0]
    pelvis_R, chest_R, head_R = _trunk_orientations(rng, t, yaws, lean)
    pelvis = pelvis_over_feet(person, ankles, pelvis_xz, yaws, rng.uniform(0.975, 0.996))
    wrists, elbows = arm_targets(rng, t, pool)
    return solve(person, MotionTargets(ankles, feet, pelvis, pelvis_R, chest_R, head_R, wrists, elbows))


def reach(rng: np.random.Generator, person: Person, t: ndarray, centre: ndarray, yaw: float) -> Pose:
    """Standing and reaching with one or both hands to low, high and far places; knees and trunk follow."""
    ankles, feet = _fixed_feet(rng, person, t, centre, yaw, rng.uniform(9, 19))
    hold, start = rng.uniform(1.5, 3.0), rng.uniform(0, 9)
    # Columns: knee bend as a share of the deepest, trunk lean in radians, wrist of the reaching arm (chest axes).
    goals = {
        "floor": (0.55, 1.05, 0.0, -0.45, 0.85),
        "low": (0.25, 0.75, 0.1, -0.55, 0.75),
        "table": (0.04, 0.35, 0.1, -0.45, 0.80),
        "far": (0.02, 0.30, 0.0, 0.10, 0.97),
        "high": (0.0, -0.06, 0.1, 0.92, 0.35),
        "side": (0.03, 0.10, 0.75, 0.10, 0.55),
        "rest": (0.0, 0.05, 0.15, -0.90, 0.25),
    }
    keys = np.array([goals[str(rng.choice(list(goals)))] for _ in range(4)])
    path = interpolate_keys(keys + rng.normal(0, 0.05, keys.shape), t, hold, start)
    depth, lean = np.clip(path[:, 0], 0, 0.7), path[:, 1]
    ahead = np.array([np.sin(yaw), np.cos(yaw)])
    pelvis_xz = centre - (2 + 14 * depth + 9 * np.clip(lean, 0, 1))[:, None] * ahead
    yaws = np.full(len(t), yaw)
    pelvis = pelvis_over_feet(person, ankles, pelvis_xz, yaws, 0.99)
    pelvis[:, 1] = np.minimum(pelvis[:, 1], person.ankle_height + person.leg * (1 - 0.72 * depth))
    pelvis_R, chest_R, head_R = _trunk_orientations(rng, t, yaws, lean)
    wrists, elbows = arm_targets(rng, t, RESTING[:4])
    busy = "lr" if rng.random() < 0.25 else str(rng.choice(["l", "r"]))
    for side in busy:
        wrists[side] = path[:, 2:] + 0.04 * smooth_noise(rng, t, 3, 1.5)
        elbows[side] = np.broadcast_to(np.array([0.6, -0.8, -0.2]), (len(t), 3))
    return solve(person, MotionTargets(ankles, feet, pelvis, pelvis_R, chest_R, head_R, wrists, elbows))


def sit(
    rng: np.random.Generator, person: Person, t: ndarray, centre: ndarray, yaw: float, seat: float, table: bool
) -> Pose:
    """Sitting on a seat of height ``seat`` cm at ``centre``; hands in the lap, gesturing, or at a table."""
    yaws = np.full(len(t), yaw) + 0.05 * smooth_noise(rng, t, 1, 5.0)[:, 0]
    R = rotation("y", np.array([yaw]))[0]
    forward = person.thigh * rng.uniform(0.86, 1.12)
    half = rng.uniform(7, 19)
    ankles, feet = {}, {}
    for side in "lr":
        s = side_sign(side)
        shuffle = ease(smooth_noise(rng, t, 1, 9.0)[:, 0]) * rng.uniform(-6, 6)
        step = np.stack([np.full(len(t), s * half), np.zeros(len(t)), forward + rng.normal(0, 3) + shuffle], -1)
        ankles[side] = np.array([centre[0], person.ankle_height, centre[1]]) + step @ R.T
        feet[side] = rotation("y", np.full(len(t), yaw + s * abs(rng.normal(0.12, 0.12))))
    pelvis = np.array([centre[0], seat + 0.058 * person.stature * person.girth, centre[1]]) + 0.8 * smooth_noise(
        rng, t, 3, 5
    )
    pelvis[:, 1] -= 0.8
    slouch = rng.choice([-0.12, 0.05, 0.25, 0.5 if not table else 0.2], p=[0.25, 0.35, 0.25, 0.15])
    lean = slouch + 0.08 * smooth_noise(rng, t, 1, 4.0)[:, 0]
    pelvis_R, chest_R, head_R = _trunk_orientations(rng, t, yaws, lean)
    pool: tuple[str, ...] = ("lap", "lap", "lap", "crossed", "clasped", *TALKING)
    if table:
        pool = ("read", "talk", "talk_low", "offer", "chin", "talk_low", "offer")
    wrists, elbows = arm_targets(rng, t, pool)
    return solve(person, MotionTargets(ankles, feet, pelvis, pelvis_R, chest_R, head_R, wrists, elbows))


@dataclass(frozen=True)
class Walk:
    """A closed elliptic path on the floor.

    Attributes:
        centre: (2,) x, z in cm.
        half_axes: cm.
        angle: of the first axis, radians.
        sense: +1 or -1, the direction of walking.
        start: share of the path's length at which distance 0 is.
    """

    centre: ndarray
    half_axes: tuple[float, float]
    angle: float
    sense: float
    start: float

    def at(self, distance: ndarray) -> tuple[ndarray, ndarray]:
        """Position (T, 2) and heading (T,) after walking ``distance`` (T,) cm."""
        u = np.linspace(0, 2 * np.pi, 257)
        c, s = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[c, s], [-s, c]])
        track = np.stack([np.cos(u) * self.half_axes[0], self.sense * np.sin(u) * self.half_axes[1]], -1) @ turn
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(track, axis=0), axis=1))])
        place = np.interp((distance + self.start * length[-1]) % length[-1], length, u)
        slope = np.stack([-np.sin(place) * self.half_axes[0], self.sense * np.cos(place) * self.half_axes[1]], -1)
        slope = slope @ turn
        spot = np.stack([np.cos(place) * self.half_axes[0], self.sense * np.sin(place) * self.half_axes[1]], -1)
        return self.centre + spot @ turn, np.arctan2(slope[:, 0], slope[:, 1])


def walk(rng: np.random.Generator, person: Person, t: ndarray, path: Walk) -> Pose:
    """Walking along the path with swinging arms; each foot is on the floor for 0.62 of a stride."""
    speed = rng.uniform(70, 135)
    stride = person.leg * np.interp(speed, (70, 135), (1.15, 1.6)) * rng.uniform(0.95, 1.05)
    travelled = speed * (t + rng.uniform(0, 5))
    half = rng.uniform(5, 10)
    stance = 0.62  # share of the gait cycle with the foot on the floor; about 0.6 at comfortable speed
    ankles, feet = {}, {}
    ball = np.array([0.0, -person.ankle_height, 0.66 * person.foot])
    heel = np.array([0.0, -person.ankle_height, -0.22 * person.foot])
    for side, offset in (("l", 0.0), ("r", 0.5)):
        cycle = travelled / stride + offset
        n = np.floor(cycle)
        u = cycle - n
        v = np.clip((u - stance) / (1 - stance), 0, 1)
        planted = (n - offset + stance / 2 + ease(v)) * stride
        spot, heading = path.at(planted)
        # Pitch of the foot, radians: the heel rises at the end of the stance, the toes before the next contact.
        raised = 0.65 * ease((u - 0.4) / 0.22) * (1 - ease(v / 0.7)) - 0.30 * ease((v - 0.55) / 0.35)
        raised -= 0.30 * (1 - ease(u / 0.08)) * (u < stance)
        R = rotation("y", heading + side_sign(side) * 0.1) @ rotation("x", raised)
        pivot = np.where(raised[:, None] > 0, ball, heel)
        flat = rotation("y", heading + side_sign(side) * 0.1)
        left = np.stack([np.cos(heading), np.zeros_like(heading), -np.sin(heading)], -1)
        ground = np.stack([spot[:, 0], np.full(len(t), person.ankle_height), spot[:, 1]], -1)
        lift = 0.055 * person.leg * np.sin(np.pi * v) ** 2
        rolled = np.einsum("tij,tj->ti", flat, pivot) - np.einsum("tij,tj->ti", R, pivot)
        ankles[side] = ground + side_sign(side) * half * left + rolled + lift[:, None] * UP
        feet[side] = R
    spot, yaw = path.at(travelled)
    beat = 2 * np.pi * travelled / stride
    pelvis = pelvis_over_feet(person, ankles, spot, yaw, 0.985)
    lean = np.full(len(t), 0.05 + speed / 3000)
    pelvis_R, chest_R, head_R = _trunk_orientations(rng, t, yaw, lean)
    chest_R = chest_R @ rotation("y", 0.10 * np.cos(beat))
    wrists, elbows = arm_targets(rng, t, ("hang",) if rng.random() < 0.75 else RESTING + ("talk_low", "phone", "read"))
    swing = rng.uniform(0.25, 0.42) * np.cos(beat)
    for side in "lr":
        hanging = np.clip(-wrists[side][:, 1:2] - 0.55, 0, 0.4) / 0.4
        forward = -side_sign(side) * swing[:, None]
        wrists[side] = wrists[side] + hanging * (forward * FORWARD + (0.10 + 0.25 * forward**2) * UP)
    return solve(person, MotionTargets(ankles, feet, pelvis, pelvis_R, chest_R, head_R, wrists, elbows))

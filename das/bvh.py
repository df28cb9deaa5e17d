"""Motion as BVH, the file form that animation programs read: a tree of joints, and their rotations frame by frame.

Axes are those of animation, y up: x is the camera's x, y and z are turned round. Lengths are cm. Bones have the mean
length that they have over the motion, as BVH wants; directions are those of the motion. A joint with one bone turns by
the least rotation that follows it, one with several by the rotation that fits all of them best.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from das.skeleton import Skeleton

_TO_YUP_CM = np.array([0.1, -0.1, -0.1])


def bvh(joints_cam: np.ndarray, skeleton: Skeleton, valid: Sequence[bool], seconds: float) -> str:
    """The text of a BVH file of one person.

    Args:
        joints_cam: (T, J, 3) mm, camera frame (x right, y down, z forward).
        skeleton: the joint set; its bones must lead from the root joint to every valid joint once.
        valid: (J,) joints that are written, the root among them.
        seconds: from one frame to the next.

    Raises:
        ValueError: a joint set without a root joint, or a valid joint that no bones or several ways of bones lead to.
    """
    children = _tree(skeleton, valid)
    points = joints_cam * _TO_YUP_CM
    order = list(_depth_first(children, skeleton.root_index))
    offsets = {c: _mean_bone(points[:, c] - points[:, p]) for p in order for c in children[p]}
    turns = _turns(points, children, order, offsets)
    lines = ["HIERARCHY", *_hierarchy(skeleton, children, offsets, skeleton.root_index, 0)]
    lines += ["MOTION", f"Frames: {len(points)}", f"Frame Time: {seconds:.7f}"]
    angles = [turns[joint].as_euler("ZXY", degrees=True, suppress_warnings=True) for joint in order]
    motion = np.concatenate([points[:, skeleton.root_index], *angles], axis=1)
    lines += [" ".join(f"{value:.4f}" for value in frame) for frame in motion]
    return "\n".join(lines) + "\n"


def _tree(skeleton: Skeleton, valid: Sequence[bool]) -> dict[int, list[int]]:
    """Children of every valid joint, by bones that lead away from the root."""
    root = skeleton.root_index
    bones = [bone for bone in skeleton.bone_indices if valid[bone[0]] and valid[bone[1]]]
    children: dict[int, list[int]] = {root: []}
    waiting, used = [root], 0
    for joint in waiting:  # grows while it is read
        for a, b in bones:
            other = b if a == joint else a if b == joint else None
            if other is not None and other not in children:
                children[joint].append(other)
                children[other] = []
                waiting.append(other)
                used += 1
    lonely = sorted(skeleton.joints[i] for i in range(len(skeleton)) if valid[i] and i not in children)
    if lonely or used != len(bones):
        which = f"no bones lead to {', '.join(lonely)}" if lonely else "bones form a ring"
        raise ValueError(f"joint set {skeleton.name!r} as BVH: {which}, wanted one way to every joint")
    return children


def _depth_first(children: dict[int, list[int]], joint: int) -> Iterator[int]:
    yield joint
    for child in children[joint]:
        yield from _depth_first(children, child)


def _mean_bone(vectors: np.ndarray) -> np.ndarray:
    """A bone at rest: the direction of the first frame (T, 3), the mean length of all."""
    lengths = np.linalg.norm(vectors, axis=1)
    return vectors[0] / max(lengths[0], 1e-9) * lengths.mean()


def _turns(
    points: np.ndarray, children: dict[int, list[int]], order: list[int], offsets: dict[int, np.ndarray]
) -> dict[int, Rotation]:
    """Rotation of every joint within its parent's axes, T each."""
    parent = {child: joint for joint in order for child in children[joint]}
    still = Rotation.identity(len(points))
    world: dict[int, Rotation] = {}
    for joint in order:
        above = world[parent[joint]] if joint in parent else still
        seen = [points[:, child] - points[:, joint] for child in children[joint]]
        rest = [offsets[child] for child in children[joint]]
        if not seen:
            world[joint] = above
        elif len(seen) == 1:
            world[joint] = _least_turn(above.apply(rest[0]), seen[0]) * above
        else:
            fitted = (Rotation.align_vectors(now, np.array(rest))[0] for now in np.stack(seen, axis=1))
            world[joint] = Rotation.concatenate(list(fitted))
    return {joint: world[parent[joint]].inv() * world[joint] if joint in parent else world[joint] for joint in order}


def _least_turn(old: np.ndarray, new: np.ndarray) -> Rotation:
    """The shortest rotations that turn the directions ``old`` (T, 3) into ``new`` (T, 3)."""
    axis = np.cross(old, new)
    length = np.linalg.norm(axis, axis=1)
    angle = np.arctan2(length, (old * new).sum(axis=1))
    return Rotation.from_rotvec(axis / np.maximum(length, 1e-12)[:, None] * angle[:, None])


def _hierarchy(
    skeleton: Skeleton, children: dict[int, list[int]], offsets: dict[int, np.ndarray], joint: int, depth: int
) -> list[str]:
    """The lines of a joint and of all below it."""
    indent, root = "  " * depth, depth == 0
    offset = np.zeros(3) if root else offsets[joint]
    place = "6 Xposition Yposition Zposition" if root else "3"
    lines = [
        f"{indent}{'ROOT' if root else 'JOINT'} {skeleton.joints[joint]}",
        f"{indent}{{",
        f"{indent}  OFFSET " + " ".join(f"{value:.4f}" for value in offset),
        f"{indent}  CHANNELS {place} Zrotation Xrotation Yrotation",
    ]
    for child in children[joint]:
        lines += _hierarchy(skeleton, children, offsets, child, depth + 1)
    if not children[joint]:
        lines += [f"{indent}  End Site", f"{indent}  {{", f"{indent}    OFFSET 0 0 0", f"{indent}  }}"]
    return [*lines, f"{indent}}}"]

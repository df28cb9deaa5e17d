"""Subsets of annotated people by number in the image, depth, distance to the next person, and occlusion.

Predictions and people are paired on the whole image; a subset only selects which people are averaged over. A kind with
fewer than two non-empty subsets, such as occlusion in a source that does not label it, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from das.metrics.tables import Truth, pairs_of_people, root_of
from das.skeleton import Skeleton, conversion, skeleton_named
from pipeline.data.record import OCCLUDED, Record

# Upper end (exclusive) and name of each subset; the last has no end.
_PEOPLE = ((2, "1 person"), (3, "2 people"), (5, "3 to 4"), (9, "5 to 8"), (np.inf, "over 8"))
_METRES = ((2, "under 2 m"), (3, "2 to 3 m"), (4, "3 to 4 m"), (5, "4 to 5 m"), (6, "5 to 6 m"), (8, "6 to 8 m"),
           (np.inf, "over 8 m"))  # fmt: skip
_OCCLUDED = ((1e-9, "no joint occluded"), (0.25, "under a quarter"), (0.5, "a quarter to half"), (np.inf, "over half"))
# Distance of a person's root to the nearest other root in the image, as a share of the diagonal of the person's box.
_GAPS = ((0.05, "under 0.05"), (0.15, "0.05 to 0.15"), (0.3, "0.15 to 0.3"), (0.6, "0.3 to 0.6"), (np.inf, "over 0.6"))
_ALONE = "alone"

TITLES = {
    "people": "people in the image",
    "distance": "depth of the root",
    "overlap": "distance of the root to the nearest other root in the image, in diagonals of the person's box (a "
    "limitation named in section 5 of the paper)",
    "occlusion": "share of the person's labelled joints that are occluded",
}


def people_subsets(records: Sequence[Record], truth: Truth, skeleton: Skeleton) -> dict[str, dict[str, np.ndarray]]:
    """As ``all_subsets``, without empty subsets and without kinds that have a single one that is not.

    Args:
        records: the images.
        truth: from ``strict_truth``.
        skeleton: joint set of ``truth``.
    """
    found = {}
    for kind, parts in all_subsets(records, truth, skeleton).items():
        parts = {name: people for name, people in parts.items() if people.any()}
        if len(parts) > 1:
            found[kind] = parts
    return found


def all_subsets(records: Sequence[Record], truth: Truth, skeleton: Skeleton) -> dict[str, dict[str, np.ndarray]]:
    """Kind of subset -> name of the subset -> which people (T,) bool are in it.

    Args:
        records: the images.
        truth: from ``strict_truth``.
        skeleton: joint set of ``truth``.
    """
    # Only people who count in the strict protocol; a person with an invisible root does not.
    counted = truth.counted(skeleton.root_indices)
    crowd = np.bincount(truth.frame[counted], minlength=len(records))[truth.frame]
    occluded = occluded_joints(records, truth, skeleton).sum(axis=1) / np.maximum(truth.scored.sum(axis=1), 1)
    depth = root_of(truth.joints_cam, skeleton.root_indices)[:, 2] / 1000  # mm to m
    classes = {
        "people": _classes(crowd, _PEOPLE),
        "distance": _classes(depth, _METRES),
        # 1e9 ends the largest finite gap: people without neighbours have an infinite one and a subset of their own.
        "overlap": _classes(_gaps(truth, skeleton), (*_GAPS[:-1], (1e9, _GAPS[-1][1]), (np.inf, _ALONE))),
        "occlusion": _classes(occluded, _OCCLUDED),
    }
    return {kind: {name: counted & (of == i) for i, name in enumerate(names)} for kind, (names, of) in classes.items()}


def occluded_joints(records: Sequence[Record], truth: Truth, skeleton: Skeleton) -> np.ndarray:
    """Which scored joints are labelled as occluded: (T, J) bool."""
    parts = [np.zeros((0, len(skeleton)), bool)]
    for record in records:
        index = np.array(conversion(skeleton_named(record.skeleton), skeleton).index)
        parts.append(np.where(index >= 0, record.state[:, index], 0) == OCCLUDED)
    return np.concatenate(parts) & truth.scored


def _gaps(truth: Truth, skeleton: Skeleton) -> np.ndarray:
    """Distance to the nearest other root over the box's diagonal, (T,); infinite for a person without others."""
    assert truth.joints_uv is not None and truth.bbox is not None
    root = root_of(truth.joints_uv, skeleton.root_indices)
    known: np.ndarray = np.all(truth.scored[:, list(skeleton.root_indices)], axis=1)
    a, b = pairs_of_people(truth)
    a, b = a[known[b]], b[known[b]]  # ignored people count as neighbours too
    gaps = np.full(len(truth), np.inf)
    np.minimum.at(gaps, a, np.linalg.norm(root[a] - root[b], axis=1))
    return gaps / np.maximum(np.linalg.norm(truth.bbox[:, 2:] - truth.bbox[:, :2], axis=1), 1e-9)


def _classes(values: np.ndarray, ends: Sequence[tuple[float, str]]) -> tuple[list[str], np.ndarray]:
    limits, names = zip(*ends, strict=True)
    return list(names), np.minimum(np.searchsorted(limits, values, side="right"), len(names) - 1)

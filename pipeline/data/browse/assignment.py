"""What a stored image asks of the network: its people at network size, and the feature points that answer for them.

The image is only resized, as at test time: training draws sizes around that (``RecipeConfig``), and people change
levels with them. For looking at data; training itself goes through pipeline/training/batches.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from das.assign import Positives, assign, farthest_joint, person_centers
from das.config import VARIANTS, DASConfig
from das.recipe import RECIPES, RecipeConfig
from das.sample import Sample, collate
from das.transforms import convert_joints, inside, move, resize_matrix
from pipeline.data.record import Record, left_out, to_sample

# Why nobody answers for a person who could be learnt.
OUTSIDE = "root outside the image"
CROWDED_OUT = "every point nearer to somebody else"

_MUPOTS_LIKE = {"mupots17", "muco21"}


@dataclass(frozen=True)
class Network:
    """The model and the data recipe through which data are looked at, and their names."""

    model: DASConfig
    recipe: RecipeConfig
    name: str


def network(variant: str | None, recipe: str | None, skeletons: Sequence[str]) -> Network:
    """A named model and recipe; None takes the released experiment of these joint sets, its recipe mended."""
    mupots_like = bool(_MUPOTS_LIKE & set(skeletons))
    if variant is None:
        variant = "release_mupots" if mupots_like else "release_panoptic"
    if recipe is None:
        recipe = "small" if variant == "small" else "ours_mupots" if mupots_like else "ours_panoptic"
    return Network(VARIANTS[variant](), RECIPES[recipe](), f"{variant} with recipe {recipe}")


@dataclass(frozen=True)
class Targets:
    """One image as the network is taught it.

    Attributes:
        sample: resized, in the model's joint set; M people.
        people: (M,) which of the record's N people they are.
        r_max: (M,) px of the network input, distance from the center to the farthest visible joint.
        level: (M,) int, the pyramid level of that size; -1 where nobody answers for the person.
        points: (M,) int, how many feature points answer for the person.
        positives: per level, what the criterion would be given.
        why: (N,) str, why nobody answers for a person of the record, or "".
    """

    sample: Sample
    people: np.ndarray
    r_max: np.ndarray
    level: np.ndarray
    points: np.ndarray
    positives: list[Positives]
    why: np.ndarray


def targets_of(record: Record, seen_by: Network, with_image: bool = True) -> Targets:
    """The targets of a record; ``with_image`` False leaves the picture black and needs no image bytes.

    Raises:
        ValueError: from ``decode_image``.
    """
    blank = None if with_image else np.zeros((record.height, record.width, 3), np.uint8)
    native, _ = to_sample(record, blank)
    model, recipe = seen_by.model, seen_by.recipe
    A, (height, width) = resize_matrix(record.height, record.width, recipe.test_size)
    sample = move(convert_joints(native, model.skeleton, recipe), A, height, width)
    batch = collate([sample])
    positives = assign(batch, model)
    n = len(sample.root_uv)
    per_level = np.array([np.bincount(level.person.numpy(), minlength=n) for level in positives])  # (L, M)
    points = per_level.sum(axis=0)
    level = np.where(points > 0, per_level.argmax(axis=0) if n else 0, -1)
    r_max = farthest_joint(batch.joints_uv, batch.visible, person_centers(batch, model.center))[0].numpy()
    why = left_out(record).astype(object)
    people = np.flatnonzero(why == "")
    root_inside = inside(sample.root_uv, height, width)
    why[people[points == 0]] = np.where(root_inside, CROWDED_OUT, OUTSIDE)[points == 0]
    return Targets(sample, people, r_max, level, points, positives, why.astype(str))

"""Assignment of feature points to the people of one stored image (Section 3.2), for looking at data.

The image is only resized to the test size of a recipe. Training draws a scale around that size (``RecipeConfig``), so
the same person may be assigned to another pyramid level there; its batches are made in pipeline/training/batches.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from das.config import VARIANTS, DASConfig
from das.recipe import RECIPES, RecipeConfig
from das.sample import Sample, collate
from das.transforms import convert_joints, inside, move, resize_matrix
from pipeline.data.record import Record, left_out
from pipeline.data.samples import to_sample

if TYPE_CHECKING:
    from das.assign import Positives

# Reasons why a person who could be used for training has no positives.
OUTSIDE = "root outside the image"
OVERLAPPED = "every feature point closer to another person"

_MUPOTS_LIKE = {"mupots17", "muco21"}


@dataclass(frozen=True)
class Preset:
    """The model and the data recipe that an assignment depends on.

    Attributes:
        model: its levels, strides and choice of positives.
        recipe: its size of test images, and how joints are converted.
        name: both names, for titles.
    """

    model: DASConfig
    recipe: RecipeConfig
    name: str


def preset_for(variant: str | None, recipe: str | None, skeletons: Sequence[str]) -> Preset:
    """The preset of a named model variant and recipe.

    Args:
        variant: of VARIANTS; None takes the released model for these joint sets.
        recipe: of RECIPES; None takes the released recipe for these joint sets with its faults corrected, or "small"
            for the model "small".
        skeletons: names of the joint sets of the data.
    """
    mupots_like = bool(_MUPOTS_LIKE & set(skeletons))
    if variant is None:
        variant = "release_mupots" if mupots_like else "release_panoptic"
    if recipe is None:
        recipe = "small" if variant == "small" else "ours_mupots" if mupots_like else "ours_panoptic"
    return Preset(VARIANTS[variant](), RECIPES[recipe](), f"{variant} with recipe {recipe}")


@dataclass(frozen=True)
class Assignment:
    """The positives of one image. N people are in the record, M of them can be used for training.

    Attributes:
        sample: the resized image with the M people in the model's joint set.
        people: (M,) int, index of each in the record.
        r_max: (M,) px of the network input, distance from the center to the farthest visible joint.
        level: (M,) int, the pyramid level whose range holds r_max; -1 for a person without positives.
        points: (M,) int, number of positives of each person.
        positives: of each level, as the criterion takes them.
        reasons: (N,) str, why a person of the record has no positives; "" for a person who has some.
    """

    sample: Sample
    people: np.ndarray
    r_max: np.ndarray
    level: np.ndarray
    points: np.ndarray
    positives: list[Positives]
    reasons: np.ndarray


def assign_record(record: Record, preset: Preset, with_image: bool = True) -> Assignment:
    """Assigns feature points to the people of a record.

    Args:
        record: one stored image.
        preset: model and recipe.
        with_image: False takes a black image and needs no image bytes.

    Raises:
        ValueError: an image that cannot be decoded.
    """
    # Here: it imports torch, and a folder that cannot be read is refused without.
    from das.assign import assign, farthest_joint, person_centers

    blank = None if with_image else np.zeros((record.height, record.width, 3), np.uint8)
    native, _ = to_sample(record, blank)
    model, recipe = preset.model, preset.recipe
    A, (height, width) = resize_matrix(record.height, record.width, recipe.test_size)
    sample = move(convert_joints(native, model.skeleton, recipe), A, height, width)
    batch = collate([sample])
    positives = assign(batch, model)
    n = len(sample.root_uv)
    per_level = np.array([np.bincount(level.person.numpy(), minlength=n) for level in positives])  # (L, M)
    points = per_level.sum(axis=0)
    level = np.where(points > 0, per_level.argmax(axis=0) if n else 0, -1)
    r_max = farthest_joint(batch.joints_uv, batch.visible, person_centers(batch, model.center))[0].numpy()
    reasons = left_out(record).astype(object)
    people = np.flatnonzero(reasons == "")
    root_inside = inside(sample.root_uv, height, width)
    reasons[people[points == 0]] = np.where(root_inside, OVERLAPPED, OUTSIDE)[points == 0]
    return Assignment(sample, people, r_max, level, points, positives, reasons.astype(str))

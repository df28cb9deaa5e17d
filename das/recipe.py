"""How stored images become network inputs, as settings: sizes, augmentation, what is left out.

Where the official release treats samples differently, the choice is a field; its default is ours (docs/release.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from das.fields import at_least, check_json, check_types, check_values
from das.skeleton import Synthesised


@dataclass(frozen=True)
class InputSize:
    """Images are resized, keeping their proportions, to the largest size within both limits."""

    long_side: int
    """Longest side of the network input at most, pixels."""
    short_side: int
    """Shortest side of the network input at most, pixels."""

    def __post_init__(self) -> None:
        check_types(self)
        good = 1 <= self.short_side <= self.long_side
        check_values(self, ("short_side", good, f"1 to long_side = {self.long_side}"))

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """New height and width, pixels, of an image of height x width pixels."""
        scale = min(self.long_side / max(height, width), self.short_side / min(height, width))
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


@dataclass(frozen=True)
class Augmentation:
    """Ranges from which one image's augmentation is drawn. Defaults: the release's for photos (COCO)."""

    scale: tuple[float, float] = (0.8, 1.2)
    """Size of the window that fills the new picture, relative to the image; above 1 people get smaller."""
    rotation: float = 0.15
    """Largest angle of the window, radians, either way."""
    shift: float = 0.15
    """Standard deviation of the window's displacement per axis, in halves of the image."""
    brightness: float = 32.0
    """Largest gray value added or removed."""
    contrast: tuple[float, float] = (0.8, 1.2)
    """Factor on gray values."""
    saturation: tuple[float, float] = (0.8, 1.2)
    """Factor on saturation (HSV)."""
    hue: float = 14.0
    """Largest turn of the hue (HSV), degrees."""
    colour_probability: float = 0.5
    """How often each of brightness, contrast, saturation and hue is changed."""

    def __post_init__(self) -> None:
        check_types(self)
        ranges = {name: getattr(self, name) for name in ("scale", "contrast", "saturation")}
        largest = {"rotation": math.pi, "shift": 10, "brightness": 255, "hue": 180, "colour_probability": 1}
        check_values(
            self,
            *((name, 0 < low <= high, "(low, high) with 0 < low <= high") for name, (low, high) in ranges.items()),
            *((name, 0 <= getattr(self, name) <= most, f"0 to {most:g}") for name, most in largest.items()),
        )


# No rotation: Panoptic's people are upright and its cameras are fixed.
_PANOPTIC = Augmentation(scale=(0.6, 1.4), rotation=0.0, contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=18.0)
_MUCO = Augmentation(scale=(0.9, 1.1), rotation=0.1)


@dataclass(frozen=True)
class RecipeConfig:
    """How samples become network inputs. Defaults are ours, at the Panoptic experiment's sizes."""

    test_size: InputSize = InputSize(1333, 640)
    """Size of images at validation, test and prediction."""
    train_long_side: int = 1333
    """Longest side in training at most, pixels."""
    train_short_side: tuple[int, int] = (512, 640)
    """Shortest side in training at most is drawn from this range, both ends included, pixels."""
    flip_probability: float = 0.5
    """How often an image is mirrored, with left and right names swapped."""
    with_depth: Augmentation = _PANOPTIC
    """For images in which at least one person is annotated in 3D."""
    without_depth: Augmentation = Augmentation()
    """For images annotated in 2D only."""
    min_visible_joints: int = 1
    """Images with fewer visible joints before augmentation, all people together, are dropped (release: 6)."""
    min_people: int = 1
    """Images with fewer people left after augmentation are dropped; 0 keeps background (release: 2)."""
    keep_images_with_invalid_people: bool = True
    """Keep the other people of an image in which the source marks one as invalid; the release drops the image."""
    mask_people_without_root: bool = True
    """The area of a visible person who is not taught, as no root is labelled or inside the image, is no background: the
    tight box of the visible joints is left out of the confidence loss. In the release it is background."""
    coco19_nose_is_head: bool = True
    """The nose of coco19 annotations supervises the joint ``head``; in the release it is invisible."""
    synthesised_joints: tuple[Synthesised, ...] = ()
    """Joints computed from shoulders and hips where a source lacks them (das/skeleton.py); none in the release."""
    scaled_decoding: bool = True
    """JPEGs that are seen at half their size or less are decoded at half of it, which is faster; the geometry is the
    same, the pixels are averaged by the decoder. Off in the release."""
    depth_scaled_for: Literal["everyone", "first_person"] = "everyone"
    """People whose normalised depth is scaled with the window; in the release only the first person of an image."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, min_people=0, min_visible_joints=0)
        low, high = self.train_short_side
        checks = (
            (
                "train_short_side",
                1 <= low <= high <= self.train_long_side,
                f"(low, high) with 1 <= low <= high <= train_long_side = {self.train_long_side}",
            ),
            ("flip_probability", 0 <= self.flip_probability <= 1, "0 to 1"),
            (
                "min_visible_joints",
                self.min_visible_joints == 0 or self.min_people > 0,
                "0 with min_people = 0, because an image without people has no joints",
            ),
        )
        check_values(self, *checks)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for config.json; ``from_json`` inverts it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RecipeConfig:
        """Inverse of ``to_json``; ValueError names unknown, missing or bad fields.

        Recipes of checkpoints without ``mask_people_without_root`` or ``scaled_decoding`` are of a time when nothing
        was masked, or every image was decoded at its full size.
        """
        value = {"mask_people_without_root": False, "scaled_decoding": False, **value}
        check_json(cls, value, cls.__name__)
        parts = {"test_size": InputSize, "with_depth": Augmentation, "without_depth": Augmentation}
        for name, part in parts.items():
            check_json(part, value[name], part.__name__)
        return cls(**{**value, **{name: part(**value[name]) for name, part in parts.items()}})


def ours() -> RecipeConfig:
    """The Panoptic experiment with COCO beside it, the release's errors corrected."""
    return RecipeConfig()


def ours_mupots() -> RecipeConfig:
    """The MuCo/MuPoTS experiment with COCO beside it, the release's errors corrected."""
    return RecipeConfig(
        test_size=InputSize(1280, 768),
        train_long_side=1280,
        train_short_side=(512, 800),
        with_depth=_MUCO,
    )


def release_panoptic_recipe() -> RecipeConfig:
    """What the release does to Panoptic frames, and to COCO beside them (exp_panoptic)."""
    return _as_released(ours())


def release_mupots_recipe() -> RecipeConfig:
    """What the release does to MuCo images, and to COCO beside them (exp_mupots)."""
    return _as_released(ours_mupots())


def _as_released(recipe: RecipeConfig) -> RecipeConfig:
    """The recipe with the release's choices about which people and images are used, and how depth is augmented."""
    return replace(
        recipe,
        min_visible_joints=6,
        min_people=2,
        keep_images_with_invalid_people=False,
        mask_people_without_root=False,
        coco19_nose_is_head=False,
        scaled_decoding=False,
        depth_scaled_for="first_person",
    )


def small_recipe(width: int = 256, height: int = 144, strength: float = 1.0) -> RecipeConfig:
    """For small models: images that fit in width x height pixels (either way round), mild augmentation.

    ``strength`` 0 to 1 scales the ranges and the probability of colour changes: a training of one or two passes over
    its images learns more from nearly unchanged ones. Mirroring is not affected.
    """
    size = InputSize(max(width, height), min(width, height))
    mild = Augmentation(
        scale=(1 - 0.2 * strength, 1 + 0.25 * strength),
        rotation=0.1 * strength,
        shift=0.1 * strength,
        hue=9.0,
        colour_probability=0.5 * strength,
    )
    return RecipeConfig(
        test_size=size,
        train_long_side=size.long_side,
        train_short_side=(size.short_side, size.short_side),
        with_depth=mild,
        without_depth=mild,
    )


RECIPES: dict[str, Callable[[], RecipeConfig]] = {
    "ours_panoptic": ours,
    "ours_mupots": ours_mupots,
    "release_panoptic": release_panoptic_recipe,
    "release_mupots": release_mupots_recipe,
    "small": small_recipe,
}
"""Every recipe that a command line can name."""

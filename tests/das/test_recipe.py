"""Recipes have the published numbers, survive JSON and refuse bad values by name."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from das import transforms
from das.recipe import (
    Augmentation,
    InputSize,
    RecipeConfig,
    ours,
    ours_mupots,
    release_mupots_recipe,
    release_panoptic_recipe,
    small_recipe,
)
from das.transforms import move
from tests.das.test_transforms import sample


def test_release_recipes_have_the_published_numbers():
    panoptic, mupots = release_panoptic_recipe(), release_mupots_recipe()
    coco = Augmentation(scale=(0.8, 1.2), rotation=0.15, shift=0.15, brightness=32, contrast=(0.8, 1.2),
                        saturation=(0.8, 1.2), hue=14)  # fmt: skip
    assert panoptic.without_depth == mupots.without_depth == coco
    assert panoptic.with_depth == Augmentation(scale=(0.6, 1.4), rotation=0, shift=0.15, brightness=32,
                                               contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=18)  # fmt: skip
    assert mupots.with_depth == replace(coco, scale=(0.9, 1.1), rotation=0.1)
    assert panoptic.test_size == InputSize(1333, 640) and mupots.test_size == InputSize(1280, 768)
    assert (panoptic.train_long_side, panoptic.train_short_side) == (1333, (512, 640))
    assert (mupots.train_long_side, mupots.train_short_side) == (1280, (512, 800))
    for recipe in (panoptic, mupots):
        assert recipe.flip_probability == 0.5
        assert (recipe.min_people, recipe.min_visible_joints) == (2, 6)
        assert recipe.depth_scaled_for == "first_person" and not recipe.coco19_nose_is_head
        assert not recipe.keep_images_with_invalid_people and recipe.synthesised_joints == ()


def test_ours_differs_from_the_release_only_in_corrected_errors_and_faster_decoding():
    corrected = {
        "min_people",
        "min_visible_joints",
        "keep_images_with_invalid_people",
        "mask_people_without_root",
        "depth_scaled_for",
        "coco19_nose_is_head",
        "scaled_decoding",
    }
    for mended, release in ((ours(), release_panoptic_recipe()), (ours_mupots(), release_mupots_recipe())):
        different = {f.name for f in fields(mended) if getattr(mended, f.name) != getattr(release, f.name)}
        assert different == corrected


@pytest.mark.parametrize("make", [ours, ours_mupots, release_panoptic_recipe, release_mupots_recipe, small_recipe])
def test_recipes_survive_json(make):
    assert RecipeConfig.from_json(json.loads(json.dumps(make().to_json()))) == make()


def test_the_small_recipe_fits_its_frame_either_way_round():
    recipe = small_recipe(256, 144)
    for shape in ((360, 640), (640, 360), (374, 374)):
        s = replace(sample(), image=np.zeros((*shape, 3), np.uint8))
        drawn = transforms.draw(recipe, True, *shape, np.random.default_rng(0))
        assert max(drawn.size) <= 256 and min(drawn.size) <= 144 and drawn.size == recipe.test_size.fit(*shape)
        assert move(s, drawn.matrix(*shape), *drawn.size).image.shape[:2] == drawn.size


BAD = [
    (InputSize, {"long_side": 100, "short_side": 101}, "short_side"),
    (InputSize, {"long_side": 100, "short_side": 0}, "short_side"),
    (InputSize, {"long_side": 100.5, "short_side": 10}, "long_side"),
    (Augmentation, {"scale": (0.0, 1.0)}, "scale"),
    (Augmentation, {"scale": (1.2, 0.8)}, "scale"),
    (Augmentation, {"scale": 1.0}, "scale"),
    (Augmentation, {"rotation": -0.1}, "rotation"),
    (Augmentation, {"shift": float("nan")}, "shift"),
    (Augmentation, {"brightness": 300.0}, "brightness"),
    (Augmentation, {"contrast": (0.5, 1.0, 2.0)}, "contrast"),
    (Augmentation, {"saturation": (-0.5, 1.0)}, "saturation"),
    (Augmentation, {"hue": 200.0}, "hue"),
    (Augmentation, {"colour_probability": 1.1}, "colour_probability"),
    (RecipeConfig, {"test_size": (1333, 640)}, "test_size"),
    (RecipeConfig, {"train_long_side": 0}, "train_short_side"),
    (RecipeConfig, {"train_long_side": "1333"}, "train_long_side"),
    (RecipeConfig, {"train_short_side": (640, 512)}, "train_short_side"),
    (RecipeConfig, {"train_short_side": (512, 2000)}, "train_short_side"),
    (RecipeConfig, {"flip_probability": 2.0}, "flip_probability"),
    (RecipeConfig, {"with_depth": None}, "with_depth"),
    (RecipeConfig, {"without_depth": {}}, "without_depth"),
    (RecipeConfig, {"min_visible_joints": -1}, "min_visible_joints"),
    (RecipeConfig, {"min_people": -1}, "min_people"),
    (RecipeConfig, {"min_people": 0}, "min_visible_joints"),
    (RecipeConfig, {"coco19_nose_is_head": "yes"}, "coco19_nose_is_head"),
    (RecipeConfig, {"keep_images_with_invalid_people": 1}, "keep_images_with_invalid_people"),
    (RecipeConfig, {"mask_people_without_root": None}, "mask_people_without_root"),
    (RecipeConfig, {"scaled_decoding": None}, "scaled_decoding"),
    (RecipeConfig, {"synthesised_joints": ("tail",)}, "synthesised_joints"),
    (RecipeConfig, {"depth_scaled_for": "nobody"}, "depth_scaled_for"),
]


@pytest.mark.parametrize(("cls", "change", "name"), BAD)
def test_bad_recipes_are_refused_by_field_and_value(cls, change, name):
    with pytest.raises(ValueError, match=rf"^{name} = .*wanted"):
        cls(**change)


def test_every_field_of_a_recipe_has_its_bad_value_above():
    for cls in (InputSize, Augmentation, RecipeConfig):
        assert {key for c, change, _ in BAD if c is cls for key in change} == {f.name for f in fields(cls)}


@pytest.mark.parametrize("make", [ours, release_panoptic_recipe])
def test_a_recipe_written_before_people_without_root_were_masked_reads_as_one_that_masks_nobody(make):
    older = {name: value for name, value in make().to_json().items() if name != "mask_people_without_root"}
    assert RecipeConfig.from_json(older) == replace(make(), mask_people_without_root=False)


def test_json_of_another_form_is_refused_by_name():
    value = ours().to_json()
    with pytest.raises(ValueError, match=r"RecipeConfig: unknown fields \['blur'\]"):
        RecipeConfig.from_json({**value, "blur": 1})
    with pytest.raises(ValueError, match=r"InputSize: unknown fields \[\], missing fields \['short_side'\]"):
        RecipeConfig.from_json({**value, "test_size": {"long_side": 3}})

import json
from dataclasses import fields, replace

import pytest

from das.config import (
    VARIANTS,
    DASConfig,
    paper_mspn,
    paper_resnet50,
    release_mupots,
    release_panoptic,
    small,
)
from das.skeleton import COCO17, MUCO21, PANOPTIC15

# One bad value per field at least; every one must be refused by the field's own name.
BAD = [
    ("skeleton", COCO17),
    ("skeleton", "panoptic15"),
    ("backbone", "vgg"),
    ("backbone_width", 0),
    ("backbone_width", 12),
    ("backbone_width", 64.0),
    ("mspn_stages", 0),
    ("mspn_stages", 5),
    ("strides", ()),
    ("strides", (4, 8)),
    ("strides", (8, 32)),
    ("strides", 8),
    ("range_ends", (80.0, 160.0)),
    ("range_ends", (80.0, 80.0, 320.0)),
    ("range_ends", (0.0, 160.0, 320.0)),
    ("range_ends", (80.0, 160.0, float("inf"))),
    ("fpn_channels", 0),
    ("fpn_channels", 100),
    ("fpn_norm", 1),
    ("head_norm", "yes"),
    ("tower_deformable", None),
    ("update", "double"),
    ("update_layers", -1),
    ("update_layers", 4),
    ("update_layers", 0),  # with update="multi", the default
    ("update_layers", True),
    ("update_samples", 0),
    ("offset_origin", "neck"),
    ("root_depth_scale", 0.0),
    ("joint_depth_unit", -500.0),
    ("joint_depth_unit", "500"),
    ("center", "head"),
    ("positives", "all"),
    ("positive_radius", 0.0),
    ("n_positive", 0),
    ("regress_root_xy", 0),
    ("root_depth_loss", "l2"),
    ("pose_likelihood", "mse"),
    ("supervise_initial", "no"),
    ("sigma_floor", 0.0),
    ("background_without_people", 2),
    ("centerness_weight", -1.0),
    ("root_weight", float("nan")),
    ("pose_weight", float("inf")),
    ("threshold_on", "centerness"),
    ("score_threshold", 1.0),
    ("score_threshold", -0.1),
    ("suppression", "greedy"),
    ("oks_threshold", 0.0),
    ("oks_threshold", 1.1),
    ("candidates_per_level", 0),
    ("max_people", 0),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_by_its_field_and_found_value(name, value):
    with pytest.raises(ValueError, match=rf"^{name} = ") as caught:
        DASConfig(**{name: value})
    assert "wanted" in str(caught.value)


def test_every_field_has_its_bad_value_above():
    assert {name for name, _ in BAD} == {f.name for f in fields(DASConfig)}


def test_an_update_needs_layers_and_none_needs_none():
    for update in ("multi", "release"):
        with pytest.raises(ValueError, match=f"update_layers = 0.*update={update}"):
            DASConfig(update=update, update_layers=0)
    assert DASConfig(update="none", update_layers=2).layers == 0
    assert DASConfig(update="single", update_layers=0).layers == 0
    assert DASConfig(update="multi", update_layers=3).layers == 3


def test_level_ranges_join_and_the_last_is_open():
    assert DASConfig().level_ranges == ((-1, 80), (80, 160), (160, 320), (320, 1e8))
    assert DASConfig(strides=(8,), range_ends=()).level_ranges == ((-1, 1e8),)
    assert small().level_ranges == ((-1, 40), (40, 80), (80, 1e8))


@pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)
def test_variants_survive_json_and_stay_hashable(make):
    config = make()
    again = DASConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config and hash(again) == hash(config)
    assert config.n_joints == len(config.skeleton.joints)


def test_json_with_unknown_or_missing_fields_is_refused_by_name():
    value = small().to_json()
    with pytest.raises(ValueError, match=r"unknown fields \['depth'\]"):
        DASConfig.from_json({**value, "depth": 3})
    with pytest.raises(ValueError, match=r"missing fields \['center'\]"):
        DASConfig.from_json({k: v for k, v in value.items() if k != "center"})
    with pytest.raises(ValueError, match="^update_layers = '1'"):
        DASConfig.from_json({**value, "update_layers": "1"})


# The table of variants: what the release has (Panoptic, MuPoTS) and what the paper says.
TABLE = {
    "root_depth_scale": (2.0, 1.0, 2.0),
    "joint_depth_unit": (500.0, 50.0, 500.0),
    "offset_origin": ("pixel", "pixel", "root"),
    "regress_root_xy": (False, False, True),
    "positives": ("square", "square", "nearest"),
    "n_positive": (9, 9, 9),
    "positive_radius": (1.5, 1.5, 1.5),
    "update": ("release", "release", "multi"),
    "update_layers": (1, 2, 3),
    "update_samples": (4, 4, 4),
    "pose_likelihood": ("rle_release", "rle_release", "rle"),
    "supervise_initial": (True, True, False),
    "root_depth_loss": ("smooth_l1", "smooth_l1", "l1"),
    "sigma_floor": (1e-9, 1e-9, 1e-3),
    "background_without_people": (False, False, True),
    "centerness_weight": (1.0, 1.0, 1.0),
    "root_weight": (1.0, 1.0, 1.0),
    "pose_weight": (2.0, 2.0, 1.0),
    "threshold_on": ("score", "score", "confidence"),
    "score_threshold": (0.07, 0.07, 0.05),
    "suppression": ("hard", "hard", "hard"),
    "oks_threshold": (0.9, 0.9, 0.9),
    "candidates_per_level": (1000, 1000, 1000),
    "max_people": (100, 100, 100),
    "center": ("root", "root", "root"),
    "strides": ((8, 16, 32, 64),) * 3,
    "range_ends": ((80.0, 160.0, 320.0),) * 3,
    "fpn_channels": (256, 256, 256),
    "backbone_width": (64, 64, 64),
    "fpn_norm": (True, True, True),
    "head_norm": (True, True, True),
    "tower_deformable": (True, True, True),
}


@pytest.mark.parametrize("name", TABLE)
def test_release_and_paper_variants_have_the_published_values(name):
    panoptic, mupots, paper = TABLE[name]
    assert getattr(release_panoptic(), name) == panoptic
    assert getattr(release_mupots(), name) == mupots
    assert getattr(paper_resnet50(), name) == getattr(paper_mspn(), name) == paper


def test_variants_differ_in_backbone_and_joints():
    assert [(c.backbone, c.mspn_stages) for c in (release_panoptic(), release_mupots(), paper_mspn())] == [
        ("mspn", 2),
        ("mspn", 3),
        ("mspn", 2),
    ]
    assert paper_resnet50().backbone == "resnet50"
    assert release_panoptic().skeleton is PANOPTIC15 and release_mupots().skeleton is MUCO21
    assert set(TABLE) | {"skeleton", "backbone", "mspn_stages"} == {f.name for f in fields(DASConfig)}


def test_the_small_variant_is_one_too():
    config = small()
    assert config.backbone_width < 64 and config.fpn_channels < 256
    assert replace(config, skeleton=MUCO21).n_joints == 21

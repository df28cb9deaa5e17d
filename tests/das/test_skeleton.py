from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from das.skeleton import (
    ALIASES,
    COCO17,
    COCO19,
    MPI15,
    MUCO21,
    MUPOTS17,
    PANOPTIC15,
    SKELETONS,
    Skeleton,
    conversion,
    skeleton_named,
)

EVERY = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)


@EVERY
def test_flipping_twice_is_the_identity(skeleton):
    flip = skeleton.flip_permutation
    assert sorted(flip) == list(range(len(skeleton)))
    assert [flip[k] for k in flip] == list(range(len(skeleton)))


@EVERY
def test_flipping_swaps_sides_and_keeps_the_middle(skeleton):
    for joint, k in zip(skeleton.joints, skeleton.flip_permutation, strict=True):
        other = skeleton.joints[k]
        if joint.startswith(("l_", "r_")):
            assert other[2:] == joint[2:] and other[0] != joint[0]
        else:
            assert other == joint


@EVERY
def test_bones_join_all_joints_and_mirror_onto_bones(skeleton):
    reached = {skeleton.bone_indices[0][0]}
    for _ in skeleton.joints:
        reached |= {i for bone in skeleton.bone_indices if reached & set(bone) for i in bone}
    # COCO has no neck: its face hangs on nothing.
    missing = {skeleton.joints[i] for i in set(range(len(skeleton))) - reached}
    assert not missing or skeleton is COCO17
    mirrored = {frozenset(skeleton.flip_permutation[i] for i in bone) for bone in skeleton.bone_indices}
    assert mirrored == {frozenset(bone) for bone in skeleton.bone_indices}


@EVERY
def test_json_round_trip(skeleton):
    assert Skeleton.from_json(skeleton.to_json()) == skeleton


def test_sizes_and_roots_are_the_published_ones():
    sizes = {s.name: (len(s), s.root_indices) for s in SKELETONS.values()}
    assert sizes == {
        "panoptic15": (15, (2,)),
        "coco19": (19, (2,)),
        "mpi15": (15, (2,)),
        "coco17": (17, (11, 12)),
        "mupots17": (17, (14,)),
        "muco21": (21, (14,)),
    }
    assert PANOPTIC15.root_index == 2 and MUCO21.root_index == 14
    with pytest.raises(ValueError, match="coco17.*no root joint"):
        assert COCO17.root_index


def test_flip_pairs_are_the_published_ones():
    def pairs(skeleton):
        return [(i, k) for i, k in enumerate(skeleton.flip_permutation) if i < k]

    assert pairs(PANOPTIC15) == [(i, i + 6) for i in range(3, 9)]
    muco = [(2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13)]
    assert pairs(MUPOTS17) == muco
    assert pairs(MUCO21) == [*muco, (17, 18), (19, 20)]
    assert pairs(COCO17) == [(i, i + 1) for i in range(1, 17, 2)]


def test_panoptic_files_start_with_the_predicted_joints():
    # The converter of the release simply takes the first 15; only slot 1 has another name.
    for source in (COCO19, MPI15):
        assert conversion(source, PANOPTIC15).index == tuple(range(15))
        assert [a for a, b in zip(source.joints, PANOPTIC15.joints) if a != b] == [source.joints[1]]


def test_coco_reaches_the_joints_that_the_release_maps():
    panoptic = (-1, 0, -1, 5, 7, 9, 11, 13, 15, 6, 8, 10, 12, 14, 16)
    assert conversion(COCO17, PANOPTIC15).index == panoptic
    muco = (-1, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, *[-1] * 7)
    assert conversion(COCO17, MUCO21).index == muco


def test_mupots_is_the_first_part_of_muco():
    assert conversion(MUCO21, MUPOTS17).index == tuple(range(17))
    assert conversion(MUPOTS17, MUCO21).index == (*range(17), -1, -1, -1, -1)
    assert MUPOTS17.joints.index("pelvis") == conversion(MUPOTS17, PANOPTIC15).index[2] == 14


@pytest.mark.parametrize("pair", list(product(SKELETONS.values(), repeat=2)), ids=lambda p: "-".join(s.name for s in p))
def test_conversions_read_equal_names_or_aliases_and_commute_with_flips(pair):
    source, target = pair
    table = conversion(source, target)
    aliases = {(s, a, t, b) for s, a, t, b in ALIASES}
    for name, i in zip(target.joints, table.index, strict=True):
        if i >= 0:
            other = source.joints[i]
            assert other == name or (source.name, other, target.name, name) in aliases
        else:
            assert name not in source.joints
    # Converting the flipped pose is flipping the converted pose.
    flipped = tuple(source.flip_permutation[i] if i >= 0 else -1 for i in table.index)
    assert flipped == tuple(table.index[k] for k in target.flip_permutation)
    if source is target:
        assert table.index == tuple(range(len(source)))


def test_every_alias_is_used_and_prints():
    for source, joint, target, name in ALIASES:
        table = conversion(skeleton_named(source), skeleton_named(target))
        assert f"  {name} <- {joint}" in str(table).splitlines()


def test_a_printed_conversion_names_every_joint():
    lines = str(conversion(COCO17, PANOPTIC15)).splitlines()
    assert lines[0] == "coco17 -> panoptic15"
    assert lines[1:4] == ["  neck <- -", "  head <- nose", "  mid_hip <- -"]
    assert len(lines) == 16


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'halpe26'.*panoptic15.*muco21"):
        skeleton_named("halpe26")
    with pytest.raises(ValueError, match="mpi15.*'nose'.*head_top"):
        MPI15.index("nose")
    assert skeleton_named("mpi15") is MPI15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": ("a", "a")}, "each once"),
        ({"joints": (), "bones": ()}, "each once"),
        ({"root": ()}, "root"),
        ({"root": ("hip",)}, "'hip'"),
        ({"bones": (("a", "tail"),)}, "'tail'"),
        ({"joints": ("a", "b", "l_hand")}, "'r_hand'"),
    ],
)
def test_impossible_joint_sets_are_refused(change, message):
    good = {"name": "toy", "joints": ("a", "b"), "bones": (("a", "b"),), "root": ("a",)}
    assert len(Skeleton(**good)) == 2
    with pytest.raises(ValueError, match=f"'toy'.*{message}"):
        Skeleton(**{**good, **change})


@pytest.mark.parametrize("broken", ["name", "joints", "bones", "root"])
def test_json_without_a_field_or_with_a_wrong_one_is_refused(broken):
    value = MPI15.to_json()
    with pytest.raises(ValueError, match="name, joints, bones and root"):
        Skeleton.from_json({k: v for k, v in value.items() if k != broken})
    if broken != "name":
        with pytest.raises(ValueError, match="name, joints, bones and root"):
            Skeleton.from_json({**value, broken: 7})


@given(st.lists(st.sampled_from(["hand", "foot", "eye", "knee"]), unique=True, min_size=1), st.randoms())
def test_flips_follow_from_names_in_any_order(parts, random):
    joints = ["root", *(f"{side}_{part}" for part in parts for side in "lr")]
    random.shuffle(joints)
    skeleton = Skeleton("toy", tuple(joints), (), ("root",))
    swapped = [joints[k] for k in skeleton.flip_permutation]
    assert [j.replace("l_", "R_").replace("r_", "l_").lower() for j in joints] == swapped

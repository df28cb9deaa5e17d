import json
from itertools import product
from pathlib import Path

import numpy as np
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
    SYNTHESIS,
    Skeleton,
    conversion,
    read_skeleton,
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


# Joint sets that are no known ones, and joints that are made up of others.


def test_a_set_of_ones_own_is_its_own_text():
    toy = Skeleton("toy", ("a", "b"), (("a", "b"),), ("a",))
    assert skeleton_named(toy.text) == toy and json.loads(toy.text) == toy.to_json()
    assert all(s.text == s.name and skeleton_named(s.text) is s for s in SKELETONS.values())
    impostor = Skeleton("coco17", ("a", "b"), (), ("a",))
    with pytest.raises(ValueError, match="'coco17' is a known set of other joints"):
        skeleton_named(impostor.text)
    with pytest.raises(ValueError, match="not JSON"):
        skeleton_named("{toy")


def test_a_skeleton_file_is_read_or_named(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(MPI15.to_json()))
    assert read_skeleton(path) == MPI15
    path.write_text("mpi15")
    with pytest.raises(ValueError, match="mine.json: wanted a JSON object"):
        read_skeleton(path)
    with pytest.raises(ValueError, match="none.json: cannot be read"):
        read_skeleton(tmp_path / "none.json")


def test_pelvis_and_mid_hip_stand_for_each_other_both_ways():
    for cmu in (PANOPTIC15, COCO19, MPI15):
        for mpi in (MUPOTS17, MUCO21):
            assert conversion(cmu, mpi).index[mpi.index("pelvis")] == cmu.index("mid_hip")
            assert conversion(mpi, cmu).index[cmu.index("mid_hip")] == mpi.index("pelvis")


@pytest.mark.parametrize("pair", list(product(SKELETONS.values(), repeat=2)), ids=lambda p: "-".join(s.name for s in p))
def test_joints_are_made_up_only_on_request_and_only_where_they_lack(pair):
    source, target = pair
    plain, made = conversion(source, target), conversion(source, target, ("neck", "mid_hip"))
    assert plain.mixtures == () and made.index == plain.index
    for k, parts in made.mixtures:
        assert plain.index[k] == -1 and sum(weight for _, weight in parts) == 1
        assert f"{target.joints[k]} <- 0.5" in str(made)
        # Left and right enter alike, so mixtures commute with flips.
        flipped = {(source.flip_permutation[i], weight) for i, weight in parts}
        assert flipped == set(parts) and target.flip_permutation[k] == k


def test_coco_reaches_neck_and_root_of_both_models_on_request():
    made = {PANOPTIC15.name: {"neck", "mid_hip"}, MUCO21.name: {"neck", "pelvis"}}
    for target in (PANOPTIC15, MUCO21):
        table = conversion(COCO17, target, ("neck", "mid_hip"))
        assert {target.joints[k] for k, _ in table.mixtures} == made[target.name]
    assert [PANOPTIC15.joints[k] for k, _ in conversion(COCO17, PANOPTIC15, ("neck",)).mixtures] == ["neck"]


def made_up(joints, skeleton, name):
    """Distance (n,) of the real joints from the mixture that replaces them."""
    kind = {"neck": "neck"}.get(name, "mid_hip")
    joint, weights = SYNTHESIS[kind][skeleton.name]
    assert joint == name
    mixture = sum(weight * joints[:, skeleton.index(part)] for part, weight in weights.items())
    return np.linalg.norm(joints[:, skeleton.index(name)] - mixture, axis=-1)


def test_made_up_joints_lie_where_the_table_says_on_real_labels(das_data):
    bodies = [
        np.array(body["joints19"]).reshape(19, 4)
        for file in sorted((das_data / "panoptic/160906_band1/hdPose3d_stage1_coco19").iterdir())
        for body in json.loads(file.read_text())["bodies"]
    ]
    panoptic = 10 * np.array(bodies)[..., :3]
    assert made_up(panoptic, COCO19, "neck").mean() < 10 and made_up(panoptic, COCO19, "mid_hip").mean() < 30
    frames = json.loads((das_data / "mupots_small/annotations/MuPoTS-3D.json").read_text())["annotations"]
    mupots = np.array([a["keypoints_cam"] for a in frames], float)
    assert made_up(mupots, MUPOTS17, "neck").mean() < 40 and made_up(mupots, MUPOTS17, "pelvis").max() < 0.1


def test_the_page_of_joint_sets_lists_every_alias_and_set():
    page = (Path(__file__).resolve().parents[2] / "docs" / "joint_sets.md").read_text()
    for skeleton in SKELETONS.values():
        assert f"| {skeleton.name} | {len(skeleton)} | " in page
    for source, joint, target, name in ALIASES:
        rows = [row.split("|") for row in page.splitlines() if row.count("|") == 5]
        assert any(source in r[1] and r[2].strip() == joint and target in r[3] and r[4].strip() == name for r in rows)

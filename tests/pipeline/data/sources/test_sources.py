"""Sources read the original layouts: units, joints, cameras and every reason to leave something out."""

import io
import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from das.camera import project
from das.skeleton import COCO19, MUPOTS17
from pipeline.data.prepare.convert import SOURCES
from pipeline.data.record import to_sample
from pipeline.data.sources import coco, muco, mupots, panoptic
from pipeline.data.sources.base import FRAMES_PER_CHUNK
from tests.pipeline.data.original_layouts import (
    COCO_PERSON,
    HEIGHT,
    WIDTH,
    coco_like_person,
    jpeg,
    read,
    write_muco,
    write_mupots,
    write_panoptic,
)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_states_its_terms_joint_sets_and_splits(name):
    source = SOURCES[name]
    assert source.TERMS and "\n" not in source.TERMS
    assert bool(source.SKELETONS) == (name != "custom"), "your own data bring a joint set of their own"
    assert {part.split for part in source.SPLITS.parts} <= {"train", "val", "test"}


@pytest.mark.parametrize("name", SOURCES)
def test_a_missing_folder_is_named(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name}: no folder .*/nothing"):
        SOURCES[name].chunks(tmp_path / "nothing", "train")


@pytest.mark.parametrize("name", ["mupots", "muco", "coco"])
def test_a_folder_without_annotations_is_refused_by_the_file_it_lacks(name, tmp_path):
    with pytest.raises(ValueError, match=r"annotations: no file .*\.json"):
        SOURCES[name].chunks(tmp_path, "train")


# MuPoTS-3D


def test_the_real_mupots_frames_load(das_data):
    items = read(mupots, das_data / "mupots_small", "test")
    assert Counter(item.sequence for item in items) == {"TS1": 21, "TS6": 55, "TS10": 26}
    assert sum(map(len, items)) == 204 and all(item.skeleton == "mupots17" for item in items)
    assert {item.state.min() for item in items} == {1, 2}, "some frames have occluded joints, none unlabelled ones"
    for item in items:
        # The universal skeleton is a scaling about the pelvis.
        from_pelvis, universal = (x - x[:, 14:15] for x in (item.joints_cam, item.joints_cam_univ))
        scale = np.linalg.norm(universal, axis=(1, 2)) / np.linalg.norm(from_pelvis, axis=(1, 2))
        assert np.allclose(universal, scale[:, None, None] * from_pelvis, atol=0.05)
        assert np.abs(project(item.joints_cam.astype(np.float64), item.K) - item.joints_uv).max() < 0.01
    assert mupots.chunks(das_data / "mupots_small", "train") == []


def test_a_spine_that_does_not_fit_the_camera_is_projected(tmp_path):
    right = coco_like_person(0, 0, 17)
    spine = MUPOTS17.index("spine")
    shifted = [[u + 9.0, v] if k == spine else [u, v] for k, (u, v) in enumerate(right["keypoints_img"])]
    slightly = [[u + 1.0, v] for u, v in coco_like_person(1, 0, 17)["keypoints_img"]]
    changes = {0: {"keypoints_img": shifted}, 1: {"keypoints_img": slightly}}
    (item,) = read(mupots, write_mupots(tmp_path, ["TS1/img_000000.jpg"], changes), "test")
    assert np.allclose(item.joints_uv[0], right["keypoints_img"], atol=1e-3)
    assert np.allclose(item.joints_uv[1], slightly, atol=1e-4), "small differences are the labels' own"


def test_mupots_states_and_validity(tmp_path):
    occlusion = [1] * 5 + [0] * 12
    hidden = [[1]] * 16 + [[0]]
    nowhere = {"keypoints_cam": np.zeros((17, 3)).tolist(), "is_valid": 0}
    changes = {0: {"occlusion": occlusion, "keypoints_vis": hidden}, 1: nowhere}
    root = write_mupots(tmp_path, ["TS2/img_000010.jpg"], changes, images_in="MultiPersonTestSet")
    (item,) = read(mupots, root, "test")
    assert item.key == "mupots/TS2/0/00000010" and item.joints_cam_univ is None
    assert item.state[0].tolist() == [1] * 5 + [2] * 11 + [0]
    assert (item.state[1] == 0).all() and item.valid.tolist() == [True, False]
    x, y, w, h = coco_like_person(0, 0, 17)["bbox"]
    assert np.allclose(item.bbox[0], [x, y, x + w, y + h], atol=1e-3)


# MuCo-3DHP


def test_muco_images_load_with_their_pseudo_camera(tmp_path):
    names = [f"{s}_set/{i:06d}.jpg" for s in ("unaugmented", "augmented") for i in range(100)]
    unseen = {3: {"keypoints_vis": [[1]] * 20 + [[0]]}}
    root = write_muco(tmp_path, names, unseen)
    train, val = (read(muco, root, split) for split in ("train", "val"))
    assert len(train) == 196 and read(muco, root, "test") == []
    assert [item.frame for item in val] == [98, 99, 198, 199], "val is the end of each set"
    assert train[3].key == "muco/unaugmented_set/0/00000003"
    assert train[3].image == (root / names[3]).read_bytes()
    assert np.array_equal(train[3].K, [[300, 0, 160], [0, 301, 90], [0, 0, 1]])
    assert train[3].state.tolist() == [[2] * 20 + [0]] and train[3].skeleton == "muco21"
    assert np.allclose(train[3].joints_cam[0], coco_like_person(3, 3, 21)["keypoints_cam"], atol=1e-3)
    assert to_sample(train[3])[0].has_depth.tolist() == [True]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"keypoints_cam": [[1, 2, 3000]] * 17}, r"entry 0: keypoints_cam: found size 51, wanted .* \(21, 3\)"),
        ({"keypoints_cam": [[1, 2, float("nan")]] * 21}, "entry 0: keypoints_cam: found NaN"),
        ({"bbox": None}, "entry 0: bbox: found size 1"),
        ({"bbox": [1, 2, 3]}, "entry 0: bbox: found size 3"),
        ({"keypoints_vis": "all"}, "entry 0: keypoints_vis"),
        ({"image_id": 77}, "entry 0: image_id: found 77, wanted the id of one of the images"),
    ],
)
def test_a_malformed_annotation_is_named(change, reason, tmp_path):
    root = write_muco(tmp_path, ["augmented_set/0.jpg"], {0: change})
    with pytest.raises(ValueError, match=f"MuCo-3DHP.json: .*{reason}"):
        read(muco, root, "train")


def test_an_image_named_twice_is_refused(tmp_path):
    root = write_muco(tmp_path, ["augmented_set/0.jpg", "augmented_set/0.jpg"])
    with pytest.raises(ValueError, match="2 images share 2 ids and 1 file names"):
        muco.chunks(root, "train")


# COCO


def test_the_real_coco_photos_load(das_data):
    items = read(coco, das_data / "coco", "train")
    assert len(items) == 28 and read(coco, das_data / "coco", "val") == []
    original = json.loads((das_data / "coco/annotations/person_keypoints_train2017.json").read_text())
    crowds = {a["id"] for a in original["annotations"] if a["iscrowd"]}
    people = {i: (ignore, state) for item in items for i, ignore, state in zip(item.person_id, item.ignore, item.state)}
    assert len(people) == len(original["annotations"]) and len(crowds) == 5
    assert sum(not ignore for ignore, _ in people.values()) == 86
    assert all(people[i][0] for i in crowds)
    for a in original["annotations"]:
        assert people[a["id"]][1].tolist() == a["keypoints"][2::3]
    assert {item.camera for item in items} == {"unknown"} and all(item.K is None for item in items)
    for item in items:
        assert item.image == (das_data / "coco/train2017" / f"{item.frame:012d}.jpg").read_bytes()
        sample, _ = to_sample(item)
        assert not sample.has_depth.any() and item.joints_cam is None


def write_coco(root: Path, photos: str, annotations: list[dict]) -> Path:
    image = {"id": 9, "file_name": "000000000009.jpg", "height": HEIGHT, "width": WIDTH}
    content = {"images": [image], "annotations": annotations, "categories": [COCO_PERSON]}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"person_keypoints_{photos}.json").write_text(json.dumps(content))
    (root / photos).mkdir()
    (root / photos / image["file_name"]).write_bytes(jpeg(HEIGHT, WIDTH))
    return root


def coco_person(id_: int, keypoints, crowd: int = 0) -> dict:
    return {
        "id": id_, "image_id": 9, "category_id": 1, "iscrowd": crowd, "bbox": [10, 20, 30, 40], "area": 900,
        "keypoints": keypoints, "num_keypoints": sum(v > 0 for v in keypoints[2::3]), "segmentation": [],
    }  # fmt: skip


def test_coco_labels_are_states_and_people_without_any_are_ignore_areas(tmp_path, capsys):
    labelled = [x for k in range(17) for x in (10 + k, 20 + k, k % 3)]
    people = [coco_person(5, labelled), coco_person(6, [0] * 51), coco_person(7, [0] * 51, crowd=1)]
    (item,) = read(coco, write_coco(tmp_path, "val2017", people), "val")
    assert item.key == "coco/val2017/unknown/00000009" and item.split == "val"
    assert item.state[0].tolist() == [k % 3 for k in range(17)]
    assert np.array_equal(item.joints_uv[0], [(10 + k, 20 + k) for k in range(17)])
    assert item.ignore.tolist() == [False, True, True] and item.bbox[0].tolist() == [10, 20, 40, 60]
    assert coco.chunks(tmp_path, "train") == [], "train2017 need not be there"
    assert capsys.readouterr().out == ""


def test_a_malformed_coco_file_is_named(tmp_path):
    root = write_coco(tmp_path, "val2017", [coco_person(5, [0] * 50)])
    with pytest.raises(ValueError, match=r"person_keypoints_val2017.json: entry 5: keypoints: found size 50"):
        read(coco, root, "val")
    wrong = {
        "[]": "found list, wanted an object",
        "{": "not JSON",
        '{"images": 3}': "images: found 3, wanted a list",
        '{"images": [], "annotations": [3]}': r"annotations\[0\]: found int, wanted an object",
        '{"images": [], "annotations": []}': "categories: found 0 with an id and the name person",
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}': "categories: keypoints of",
    }
    for content, reason in wrong.items():
        (root / "annotations" / "person_keypoints_val2017.json").write_text(content)
        with pytest.raises(ValueError, match=f"person_keypoints_val2017.json: {reason}"):
            read(coco, root, "val")


# All of them


def test_shards_travel_and_have_names_of_their_own(tmp_path):
    frames = range(2 * FRAMES_PER_CHUNK + 10)
    poses = write_panoptic(tmp_path, "160906_pizza1", frames=[0]) / "160906_pizza1" / "hdPose3d_stage1_coco19"
    for frame in frames:
        (poses / f"body3DScene_{frame:08d}.json").write_text('{"bodies": []}')
    found = panoptic.chunks(tmp_path, "test", replace(panoptic.SPLITS, test_frames=None))
    assert [len(s.frames) for s in found] == [FRAMES_PER_CHUNK, FRAMES_PER_CHUNK, 10] * 2
    assert len({s.name for s in found}) == 6 and sorted(s.name for s in found) == [s.name for s in found]
    assert pickle.load(io.BytesIO(pickle.dumps(found))) == found
    assert COCO19.name == "coco19"

"""COCO keypoints: real photos, labels and ignore areas, and malformed files."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.samples import to_sample
from pipeline.data.sources import coco
from tests.pipeline.data.original_layouts import COCO_PERSON, HEIGHT, WIDTH, jpeg, read


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


def write_one_photo(root: Path, photos: str, annotations: list[dict]) -> Path:
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
    (item,) = read(coco, write_one_photo(tmp_path, "val2017", people), "val")
    assert item.key == "coco/val2017/unknown/00000009" and item.split == "val"
    assert item.state[0].tolist() == [k % 3 for k in range(17)]
    assert np.array_equal(item.joints_uv[0], [(10 + k, 20 + k) for k in range(17)])
    assert item.ignore.tolist() == [False, True, True] and item.bbox[0].tolist() == [10, 20, 40, 60]
    assert coco.chunks(tmp_path, "train") == [], "train2017 need not be there"
    assert capsys.readouterr().out == ""


def test_a_malformed_coco_file_is_named(tmp_path):
    root = write_one_photo(tmp_path, "val2017", [coco_person(5, [0] * 50)])
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

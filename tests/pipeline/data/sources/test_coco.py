"""COCO keypoints: real photos, labels and ignore areas, and malformed files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.data.record import decode_image
from pipeline.data.samples import to_sample
from pipeline.data.sources import coco
from tests.pipeline.data.original_layouts import COCO_PERSON, HEIGHT, WIDTH, jpeg, read
from tests.pipeline.data.test_encoded_image import tagged


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
        "[]": "found a list, wanted an object",
        "{": "not JSON",
        '{"images": 3}': "images: found 3, wanted a list",
        '{"images": [], "annotations": [3]}': r"annotations\[0\]: found a number, wanted an object",
        '{"images": [], "annotations": []}': "categories: found 0 with an id and the name person",
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}': "categories: keypoints of",
    }
    for content, reason in wrong.items():
        (root / "annotations" / "person_keypoints_val2017.json").write_text(content)
        with pytest.raises(ValueError, match=f"person_keypoints_val2017.json: {reason}"):
            read(coco, root, "val")


def change(root: Path, edit) -> None:
    file = root / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def test_fields_that_other_tools_leave_out_have_their_meaning(tmp_path):
    people = [coco_person(5, [20, 30, 2] * 17), coco_person(6, []), coco_person(7, [])]
    root = write_one_photo(tmp_path, "val2017", people)

    def edit(content):
        for person in content["annotations"]:
            person["category_id"] = 0
            del person["iscrowd"]
        del content["annotations"][2]["keypoints"]
        content["categories"] = [{"id": 1, "name": "dog"}, {**COCO_PERSON, "id": 0}]
        del content["images"][0]["width"], content["images"][0]["height"]

    change(root, edit)
    (item,) = read(coco, root, "val")
    assert item.person_id.tolist() == [5, 6, 7] and item.ignore.tolist() == [False, True, True]
    assert (item.height, item.width) == (HEIGHT, WIDTH) and item.bbox[2].tolist() == [10, 20, 40, 60]


@pytest.mark.parametrize("given_as", ["displayed", "stored"])
def test_a_photo_with_an_orientation_tag_is_turned_and_its_annotation_kept(tmp_path, given_as):
    """Annotations refer to displayed pixels, whichever size the tool wrote."""
    root = write_one_photo(tmp_path, "val2017", [coco_person(5, [100.5, 60, 2] * 17)])
    upright = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    upright[56:65, 96:106] = 255
    stored = cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE)  # tag 6: turned clockwise for display
    (root / "val2017" / "000000000009.jpg").write_bytes(tagged(cv2.imencode(".jpg", stored)[1].tobytes(), 6))
    if given_as == "stored":
        change(root, lambda content: content["images"][0].update(width=HEIGHT, height=WIDTH))
    (item,) = read(coco, root, "val")
    assert (item.height, item.width) == (HEIGHT, WIDTH) and item.joints_uv[0, 0].tolist() == [100.5, 60]
    assert decode_image(item)[60, 100].min() > 200 and decode_image(item)[60, 140].max() < 50
    change(root, lambda content: content["images"][0].update(width=WIDTH + 1))
    (drop,) = read(coco, root, "val")
    assert drop.reason == "image size differs from annotation" and drop.file == "val2017/000000000009.jpg"

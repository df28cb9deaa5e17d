"""The mark of own results: where it stands, and that files without it are refused."""

import os

import cv2
import numpy as np
import pytest

from pipeline.infra.images import encode_image, read_photo
from pipeline.predict.own_files import check_folder, is_own, refuse_foreign, sign_picture, sign_video, writing
from tests.pipeline.predict.prediction_cases import refused, write_video, written


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_signed_picture_is_recognised_and_still_the_same_picture(tmp_path, ending):
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    signed, plain = tmp_path / f"signed{ending}", tmp_path / f"plain{ending}"
    plain.write_bytes(encode_image(image, ending))
    signed.write_bytes(sign_picture(plain.read_bytes()))
    assert is_own(signed) and not is_own(plain)
    assert (read_photo(signed) == read_photo(plain)).all()


def test_a_signed_video_is_recognised_and_still_plays(tmp_path):
    path = write_video(tmp_path / "walk.mp4")
    assert not is_own(path)
    sign_video(path)
    assert is_own(path)
    capture = cv2.VideoCapture(str(path))
    assert sum(capture.grab() for _ in range(9)) == 4


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"imagePath": "scene.png", "written_by": "das predict"}', b"\xff\xd8"]
)
@pytest.mark.parametrize("ending", [".json", ".jsonl", ".mp4", ".png", ".jpg"])
def test_any_other_file_is_foreign(tmp_path, ending, content):
    path = tmp_path / f"scene{ending}"
    path.write_bytes(content)
    refused(lambda: refuse_foreign([path]), str(path), "not written by das predict", "--out")


def test_folders_and_links_are_foreign_and_absent_files_are_not(tmp_path):
    (tmp_path / "a.json").mkdir()
    os.symlink(tmp_path / "nowhere", tmp_path / "b.json")
    refused(lambda: refuse_foreign(tmp_path / f"{n}.json" for n in "abc"), "a.json", "b.json exist and were")
    refuse_foreign([tmp_path / "c.json"])


def test_a_folder_is_checked_and_left_as_it_was(tmp_path):
    check_folder(tmp_path / "a" / "b")
    assert written(tmp_path) == []
    (tmp_path / "a").touch()
    refused(lambda: check_folder(tmp_path / "a"), str(tmp_path / "a"), "cannot be written")
    refused(lambda: check_folder(tmp_path / "a" / "b"), str(tmp_path / "a" / "b"), "cannot be written")


def test_a_failure_of_the_disk_names_the_file(tmp_path):
    def fail():
        with writing(tmp_path / "a.json"):
            raise OSError(28, "No space left on device")

    refused(fail, "a.json: cannot be written (No space left on device)")

"""Frames of videos: exact frame numbers in any order of reading, and the reasons for missing frames."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.data.record import Record, decode_image
from pipeline.data.sources import panoptic
from pipeline.data.sources import video_frames as frames_module
from pipeline.data.sources.base import EncodedImage, NoImage
from pipeline.data.sources.video_frames import JPEG_QUALITY, decodable_frames, jpeg_of, video_frame
from pipeline.data.validate_record import validate
from tests.pipeline.data.original_layouts import CAMERAS, write_panoptic
from tests.pipeline.data.videos import number_of, write_video

PROJECT = Path(__file__).resolve().parents[4]


def shown(image):
    assert isinstance(image, EncodedImage), image
    pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[:2] == image.size
    return number_of(pixels)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "hd_00_16.mp4", 100)


@pytest.mark.parametrize("order", [range(100), range(1, 100, 7), [99, 0, 98, 98, 3, 50, 49]], ids=str)
def test_frames_have_the_requested_numbers(video, order):
    assert [shown(video_frame(video, n)) for n in order] == list(order)


def test_ascending_frames_decode_a_video_once_with_one_decoder(video, tmp_path):
    frames_module._opened.cache_clear()
    for n in range(0, 100, 2):
        video_frame(video, n)
    assert frames_module._opened.cache_info().misses == 1
    other = write_video(tmp_path / "other.mp4", 3)
    assert shown(video_frame(other, 2)) == 2 and frames_module._opened.cache_info().currsize == 1


def test_a_replaced_video_is_opened_again(tmp_path):
    path = write_video(tmp_path / "v.mp4", 5)
    assert shown(video_frame(path, 4)) == 4
    write_video(path, 30)
    assert shown(video_frame(path, 29)) == 29


def test_missing_frames_give_their_reason(video, tmp_path):
    gone = video_frame(video, 100)
    assert isinstance(gone, NoImage) and gone.reason == "image missing" and "ends before frame 100" in gone.detail
    assert isinstance(video_frame(video, 5000), NoImage)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video.read_bytes()[:900])
    found = video_frame(broken, 0)
    assert isinstance(found, NoImage) and found.reason == "image damaged" and found.file == broken
    nothing = video_frame(tmp_path / "nothing.mp4", 0)
    assert isinstance(nothing, NoImage) and (nothing.reason, nothing.detail) == ("image missing", "no such video")


@pytest.mark.parametrize("step", [1, 2])
def test_a_video_ends_at_its_first_damaged_part(video, tmp_path, step):
    data = bytearray(video.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    numbers = range(0, 102, step)
    found = [video_frame(broken, n) for n in numbers]
    good = [isinstance(item, EncodedImage) for item in found].index(False)
    # The last frame before the damage may repeat the one before it.
    assert 10 < good * step < 90 and [shown(i) for i in found[: good - 1]] == [*numbers][: good - 1]
    damaged = [item for n, item in zip(numbers, found, strict=True) if numbers[good] <= n < 100]
    assert {item.reason for item in damaged} == {"image damaged"} and " of 100 can be decoded" in damaged[0].detail
    assert [item.reason for item in found if item not in found[:good] + damaged] == ["image missing"] * (2 // step)
    assert decodable_frames(broken, 102) <= good * step < decodable_frames(broken, 102) + step
    assert decodable_frames(video, 102) == 100 and decodable_frames(video, 7) == 7


def test_a_damaged_video_is_read_without_the_decoders_remarks(video, tmp_path):
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(video.read_bytes()[:900])
    # FFmpeg's level is read once a process, so another one reads.
    code = """
import sys
from pathlib import Path
from pipeline.data.sources.video_frames import decodable_frames, video_frame
print(decodable_frames(Path(sys.argv[1]), 9), video_frame(Path(sys.argv[1]), 0).reason)
"""
    others = {name: value for name, value in os.environ.items() if name != "OPENCV_FFMPEG_LOGLEVEL"}
    command = [sys.executable, "-c", code, str(damaged)]
    done = subprocess.run(command, cwd=PROJECT, env=others, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0 image damaged\n", "")


def test_frames_become_jpegs_of_the_stated_quality():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    expected = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    assert JPEG_QUALITY == 95 and jpeg_of(pixels) == EncodedImage(expected, (40, 60))


def test_a_panoptic_camera_without_images_is_read_from_its_video(tmp_path):
    sequence = "160224_haggling1"
    root = write_panoptic(tmp_path, sequence, frames=range(20, 40))
    from_images = [i for s in panoptic.chunks(root, "train") for i in panoptic.records(s)]
    images = root / sequence / "hdImgs" / CAMERAS[0]
    for image in images.iterdir():
        image.unlink()
    images.rmdir()
    write_video(root / sequence / "hdVideos" / f"hd_{CAMERAS[0]}.mp4", 35)
    write_video(root / sequence / "hdVideos" / f"hd_{CAMERAS[1]}.mp4", 35)  # its images exist, and are read

    found = [i for s in panoptic.chunks(root, "train") for i in panoptic.records(s)]
    assert len(found) == len(from_images) == 20 and all(s.image_bytes > 0 for s in panoptic.chunks(root, "train"))
    for item, other in zip(found, from_images, strict=True):
        if item.key.startswith(f"panoptic/{sequence}/00_16/000000") and int(item.key[-8:]) >= 35:
            assert item.reason == "image missing" and item.file == f"{sequence}/hdVideos/hd_00_16.mp4"
            continue
        assert isinstance(item, Record)
        validate(item)
        assert np.array_equal(item.joints_uv, other.joints_uv) and item.key == other.key
        if item.camera == CAMERAS[0]:
            assert number_of(decode_image(item)) == item.frame
        else:
            assert item.image == other.image


def test_any_camera_of_the_calibration_can_be_read(tmp_path):
    sequence = "160224_haggling1"
    root = write_panoptic(tmp_path, sequence, frames=range(4))
    calibration = root / sequence / f"calibration_{sequence}.json"
    content = json.loads(calibration.read_text())
    content["cameras"].append({**content["cameras"][0], "name": "00_07"})
    calibration.write_text(json.dumps(content))
    write_video(root / sequence / "hdVideos" / "hd_00_07.mp4", 4)
    splits = replace(panoptic.SPLITS, cameras=("00_07", "00_16"))
    found = [i for s in panoptic.chunks(root, "train", splits) for i in panoptic.records(s)]
    wanted = [("00_07", 0), ("00_07", 2), ("00_16", 0), ("00_16", 2)]
    assert [(item.camera, item.frame) for item in found] == wanted
    assert [number_of(decode_image(item)) for item in found[:2]] == [0, 2]


def test_a_pipe_in_place_of_a_video_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "hd_00_16.mp4")
    found = video_frame(tmp_path / "hd_00_16.mp4", 0)
    assert isinstance(found, NoImage) and found.detail == "a pipe or device, wanted a regular file"

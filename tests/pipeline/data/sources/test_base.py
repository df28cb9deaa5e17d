"""Chunks of a source: their size, their names, that they can be pickled; and which files a source opens."""

import io
import os
import pickle
from dataclasses import replace

import pytest

from das.skeleton import COCO19
from pipeline.data.sources import panoptic
from pipeline.data.sources.base import (
    FRAMES_PER_CHUNK,
    IMAGE_DAMAGED,
    IMAGE_MISSING,
    IMAGE_UNREADABLE,
    EncodedImage,
    NoImage,
    read_file,
    read_image,
)
from tests.pipeline.data.original_layouts import write_panoptic
from tests.pipeline.data.test_encoded_image import png_of_one_colour


def test_chunks_can_be_pickled_and_have_unique_sorted_names(tmp_path):
    frames = range(2 * FRAMES_PER_CHUNK + 10)
    poses = write_panoptic(tmp_path, "160906_pizza1", frames=[0]) / "160906_pizza1" / "hdPose3d_stage1_coco19"
    for frame in frames:
        (poses / f"body3DScene_{frame:08d}.json").write_text('{"bodies": []}')
    found = panoptic.chunks(tmp_path, "test", replace(panoptic.SPLITS, test_frames=None))
    assert [len(s.frames) for s in found] == [FRAMES_PER_CHUNK, FRAMES_PER_CHUNK, 10] * 2
    assert len({s.name for s in found}) == 6 and sorted(s.name for s in found) == [s.name for s in found]
    assert pickle.load(io.BytesIO(pickle.dumps(found))) == found
    assert COCO19.name == "coco19"


@pytest.fixture
def root(tmp_path):
    """A folder of data with one image, beside a secret one."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(png_of_one_colour(20, 30))
    (tmp_path / "secret.png").write_bytes(png_of_one_colour(20, 30))
    return folder


def test_images_inside_the_folder_are_read_also_through_links_that_stay_in_it(root):
    (root / "b.png").symlink_to("images/a.png")
    (root.parent / "elsewhere").symlink_to(root)
    for path in (root / "images/a.png", root / "b.png", root.parent / "elsewhere" / "b.png", root / "images/../b.png"):
        found = read_image(path, root)
        assert isinstance(found, EncodedImage) and found.size == (20, 30)
    assert isinstance(read_image(root / "b.png", root.parent / "elsewhere"), EncodedImage)


@pytest.mark.parametrize(
    "name", ["../secret.png", "images/../../secret.png", "{absolute}", "link.png", "out/secret.png"]
)
def test_a_name_that_leads_out_of_the_folder_is_never_opened(root, name):
    (root / "link.png").symlink_to("../secret.png")
    (root / "out").symlink_to("..")
    path = root / name.format(absolute=root.parent / "secret.png")
    assert read_image(path, root) == NoImage(IMAGE_UNREADABLE, path, f"leads out of {root}")
    (root.parent / "secret.png").unlink()  # whether it exists is not told either
    assert read_image(path, root) == NoImage(IMAGE_UNREADABLE, path, f"leads out of {root}")


def test_pipes_and_devices_are_no_images(root):
    os.mkfifo(root / "pipe.png")
    found = read_image(root / "pipe.png", root)
    assert isinstance(found, NoImage) and found.detail == "a pipe or device, wanted a regular file"
    with pytest.raises(OSError, match="a pipe or device"):
        read_file(root / "/dev/zero")


def test_a_file_over_the_limit_of_bytes_is_refused_unread(root):
    os.truncate(root / "images" / "a.png", 1 << 40)  # sparse
    found = read_image(root / "images" / "a.png", root)
    assert isinstance(found, NoImage) and found.reason == IMAGE_UNREADABLE
    assert found.detail == f"{1 << 40} bytes, wanted at most {1 << 28}"


def test_names_that_no_file_can_have_are_dropped(root):
    assert read_image(root / "a\0b.png", root).reason == IMAGE_DAMAGED
    assert read_image(root / ("a" * 300), root).reason == IMAGE_UNREADABLE
    assert read_image(root / "none.png", root).reason == IMAGE_MISSING


def test_an_image_of_too_many_pixels_is_dropped_with_its_size(root):
    (root / "bomb.png").write_bytes(png_of_one_colour(30_000, 30_000))
    found = read_image(root / "bomb.png", root)
    assert isinstance(found, NoImage) and found.reason == IMAGE_DAMAGED and "30000x30000 pixels" in found.detail

"""MPI-INF-3DHP in mmpose's form, tested on real photos, and in its owners' form, on generated files."""

import pickle
from collections import Counter

import cv2
import numpy as np
import pytest

from das.camera import project
from das.skeleton import MUPOTS17
from pipeline.data.record import Record, decode_image
from pipeline.data.samples import to_sample
from pipeline.data.sources import mpi_inf_3dhp
from pipeline.data.sources import mpi_inf_3dhp_original as original
from pipeline.data.sources.base import DroppedFrame
from pipeline.data.validate_record import validate
from tests.pipeline.data.binary_layouts import MPI_SIZE, write_mpi_arrays, write_mpi_original
from tests.pipeline.data.videos import number_of


def read(root, split, **kwargs):
    chunks = mpi_inf_3dhp.chunks(root, split, **kwargs)
    items = [item for chunk in chunks for item in mpi_inf_3dhp.records(chunk)]
    for item in items:
        if isinstance(item, Record):
            validate(item)
    return items


def test_the_real_photos_load_in_millimetres(das_data):
    """Metres become mm, joints project onto their photo, and bones have human lengths."""
    items = {split: read(das_data / "mpi_inf_3dhp", split) for split in ("train", "val", "test")}
    assert {split: [item.key for item in found] for split, found in items.items()} == {
        "train": ["mpi_inf_3dhp/S4_Seq2/0/00001033"],
        "val": ["mpi_inf_3dhp/S8_Seq1/8/00002165"],
        "test": ["mpi_inf_3dhp/TS1/0/00002001", "mpi_inf_3dhp/TS2/0/00001850"],
    }
    for item in (item for found in items.values() for item in found):
        assert (item.height, item.width) == (2048, 2048), "the cameras' h reads 204 in the training file"
        assert len(item) == 1 and item.skeleton == "mupots17"
        assert 2000 < item.joints_cam[0, MUPOTS17.root_index, 2] < 6000
        # Loose: the owners' joints are up to a fifth larger or smaller than the person (univ_annot3 is not).
        bones = (("hip", "knee", 300, 620), ("knee", "ankle", 300, 620), ("elbow", "wrist", 180, 360))
        for side in "lr":
            for a, b, low, high in bones:
                ends = item.joints_cam[0, [MUPOTS17.index(f"{side}_{joint}") for joint in (a, b)]]
                assert low < np.linalg.norm(ends[0] - ends[1]) < high, (item.key, side, a)
        projected = project(item.joints_cam[0].astype(float), item.K)
        assert np.abs(projected - item.joints_uv[0]).max() < 2.0
        labelled = item.state[0] > 0
        assert labelled.sum() >= 14 and item.bbox[0, :2].min() >= 0 and item.bbox[0, 2:].max() <= 2047
        sample, left_out = to_sample(item)
        assert sample.has_depth.all() and not left_out


def test_mmpose_arrays_become_records_camera_by_camera(tmp_path):
    names = [f"S1_Seq2_Cam{camera}_{frame:06d}.jpg" for camera in (0, 7) for frame in (4, 9)]
    arrays = write_mpi_arrays(tmp_path, [*names, "S8_Seq1_Cam0_000001.jpg"])
    items = read(tmp_path, "train")
    assert [(i.sequence, i.camera, i.frame) for i in items] == [("S1_Seq2", c, f) for c in "07" for f in (4, 9)]
    assert [i.key for i in read(tmp_path, "val")] == ["mpi_inf_3dhp/S8_Seq1/0/00000001"]
    assert read(tmp_path, "test") == []
    for item, part, S in zip(items, arrays["part"], arrays["S"], strict=False):
        assert np.allclose(item.joints_uv[0], part[:, :2], atol=1e-3)
        assert np.allclose(item.joints_cam[0], 1000 * S[:, :3], atol=1e-2)
        assert np.array_equal(item.K, [[200, 0, MPI_SIZE / 2], [0, 200, MPI_SIZE / 2], [0, 0, 1]])


def test_joints_without_a_flag_are_unlabelled_and_absent_photos_are_drops(tmp_path):
    names = ["TS3_000001.jpg", "TS3_000002.jpg"]
    arrays = write_mpi_arrays(tmp_path, names, "test")
    arrays["part"][0, 5, 2] = 0
    arrays["S"][0, 6, 3] = 0
    write_mpi_arrays(tmp_path, names, "test", **arrays)
    (tmp_path / "images" / names[1]).unlink()
    first, second = read(tmp_path, "test")
    assert np.flatnonzero(first.state[0] == 0).tolist() == [5, 6]
    assert (
        second == DroppedFrame("mpi_inf_3dhp/TS3/0/00000002", "image missing") and second.file == f"images/{names[1]}"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"part": np.zeros((1, 14, 3))}, "wanted arrays imgname"),
        ({"S": np.full((1, 17, 4), np.nan)}, "TS1_000001.jpg: found NaN"),
        ({"imgname": np.array(["TS1/1.jpg"])}, "imgname '1.jpg', wanted"),
        ({"imgname": np.array(["TS1_000001.jpg"] * 2), "part": np.ones((2, 17, 3)), "S": np.ones((2, 17, 4))}, "twice"),
        ({"imgname": np.array([object()])}, "wanted arrays imgname"),
    ],
)
def test_malformed_arrays_are_named(changes, reason, tmp_path):
    write_mpi_arrays(tmp_path, ["TS1_000001.jpg"], "test", **changes)
    with pytest.raises(ValueError, match=f"mpi_inf_3dhp_test_valid.npz: .*{reason}"):
        read(tmp_path, "test")


class Malice:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize(
    "content", [pickle.dumps(Malice()), pickle.dumps({"TS9": {}}), pickle.dumps({"TS1": {"f": 3}}), b"", b"junk"]
)
def test_pickled_cameras_with_code_are_refused_and_never_executed(content, tmp_path, capsys):
    write_mpi_arrays(tmp_path, ["TS1_000001.jpg"], "test")
    (tmp_path / "cameras_test.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="cameras_test.pkl: camera TS1: wanted f and c"):
        read(tmp_path, "test")
    assert capsys.readouterr().out == ""


def test_a_folder_of_neither_form_is_refused_with_the_files_it_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"annotations: no file .*mpi_inf_3dhp_train.npz.* or S1/Seq1/annot.mat"):
        mpi_inf_3dhp.chunks(tmp_path, "train")


# The owners' form, tested on files written after descriptions of it: no real one was available.


def test_original_sequences_are_read_with_their_videos_and_our_joints(tmp_path):
    root = write_mpi_original(tmp_path)
    splits = mpi_inf_3dhp.SPLITS
    assert {chunk.camera for chunk in mpi_inf_3dhp.chunks(root, "train")} == {"0", "1", "2", "4", "5", "6", "7", "8"}
    one = type(splits)("one", splits.parts, cameras=("0", "1"), step=2)
    items = read(root, "train", splits=one)
    assert Counter(type(item) for item in items) == {Record: 3, DroppedFrame: 3}
    assert [item.reason for item in items[3:]] == ["image missing"] * 3, "camera 1 has no video"
    order = {joint: k for k, joint in enumerate(original._ALL)}
    for item, frame in zip(items, (0, 2, 4), strict=False):
        assert item.key == f"mpi_inf_3dhp/S1_Seq2/0/{frame:08d}" and number_of(decode_image(item)) == frame
        assert np.array_equal(item.K, [[200, 0, 128], [0, 200, 127], [0, 0, 1]])
        for k, joint in enumerate(MUPOTS17.joints):
            assert item.joints_cam[0, k].tolist() == [10 * order[joint] + frame, 40 * (order[joint] % 7), 3000]


def test_original_sequences_may_have_extracted_images(tmp_path):
    root = write_mpi_original(tmp_path, "S8/Seq1")
    images = root / "S8" / "Seq1" / "imageFrames" / "video_0"
    images.mkdir(parents=True)
    for n in range(1, 7):
        cv2.imwrite(str(images / f"frame_{n:06d}.jpg"), np.full((MPI_SIZE, MPI_SIZE, 3), 10 * n, np.uint8))
    splits = type(mpi_inf_3dhp.SPLITS)("one", mpi_inf_3dhp.SPLITS.parts, cameras=("0",))
    items = read(root, "val", splits=splits)
    assert [round(float(decode_image(item).mean()) / 10) for item in items] == [1, 2, 3, 4, 5, 6]


def test_a_camera_that_one_of_the_files_lacks_is_refused(tmp_path):
    root = write_mpi_original(tmp_path)
    splits = type(mpi_inf_3dhp.SPLITS)("one", mpi_inf_3dhp.SPLITS.parts, cameras=("5",))
    with pytest.raises(ValueError, match="camera 5 is not in both: camera.calibration has 2 cameras, annot.mat 2"):
        read(root, "train", splits=splits)


def test_malformed_original_files_are_named(tmp_path):
    root = write_mpi_original(tmp_path)
    folder = root / "S1" / "Seq2"
    for content, reason in (
        ("", "no camera"),
        ("name 0\n size 3\n", "camera 0"),
        ("name 0\nsize 2 2\nintrinsic 1 2\n", "camera 0: wanted"),
        ("name x\nsize 2 2\n", "camera x"),
    ):
        (folder / "camera.calibration").write_text(content)
        with pytest.raises(ValueError, match=f"camera.calibration: {reason}"):
            mpi_inf_3dhp.chunks(root, "train")
    (folder / "camera.calibration").unlink()
    with pytest.raises(ValueError, match=r"calibration: no file .*camera.calibration"):
        mpi_inf_3dhp.chunks(root, "train")
    (folder / "annot.mat").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"annot.mat: wanted cells annot2"):
        mpi_inf_3dhp.chunks(root, "train")

"""Originals in object storage, a local S3 server process: the prepared data are those of the same files on a disk."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.data.manifest import QUARANTINE
from pipeline.data.prepare import bucket
from pipeline.data.prepare.bucket import BucketFile, Copies, copied, mirrored
from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.convert import convert
from pipeline.data.prepare.shard_task import write_shard
from pipeline.infra.columns import read_columns
from pipeline.infra.files import copy_folder, delete, write_bytes
from tests.pipeline.data.binary_layouts import write_mpi_arrays, write_mpi_original, write_mupots_mats
from tests.pipeline.data.original_layouts import (
    HEIGHT,
    WIDTH,
    jpeg,
    write_coco,
    write_custom,
    write_muco,
    write_mupots,
    write_panoptic,
)
from tests.pipeline.data.prepare.conversions import SMALL, files
from tests.pipeline.data.videos import write_video
from tests.servers import s3_server

SEQUENCE = "160224_mafia1"


@pytest.fixture(scope="module", autouse=True)
def storage(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files; of this process's copies, too."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    bucket._folder_of_process.cache_clear()


def config(source, root, out, **changes):
    return ConvertConfig(source, str(root), str(out), **{"allow_missing": True, "shard_mb": SMALL, **changes})


def images_and_a_video(root):
    write_panoptic(root, SEQUENCE, range(12))
    shutil.rmtree(root / SEQUENCE / "hdImgs" / "00_30")
    write_video(root / SEQUENCE / "hdVideos" / "hd_00_30.mp4", 12)
    (root / SEQUENCE / "hdImgs/00_16/00_16_00000002.jpg").unlink()
    (root / SEQUENCE / "hdImgs/00_16/00_16_00000004.jpg").write_bytes(b"")
    (root / SEQUENCE / "hdPose3d_stage1_coco19/body3DScene_00000007.json").unlink()
    (root / "terms.txt").write_text("mine alone")


def a_video_of_nine(root):
    """MPI-INF-3DHP with nine cameras, one of which has a video."""
    calibration = write_mpi_original(root, cameras=9) / "S1/Seq2/camera.calibration"
    head, first, *_ = re.split(r"(?m)^(?=name)", calibration.read_text())
    calibration.write_text(head + "".join(re.sub(r"\d+", str(i), first, count=1) for i in range(9)))


def custom(root):
    write_custom(root, 5)
    (root / "train.jsonl").write_text((root / "train.jsonl").read_text() + "{\n")


LAYOUTS = {
    "panoptic": images_and_a_video,
    "coco": write_coco,
    "muco": lambda root: write_muco(root, [f"unaugmented_set/{i}.jpg" for i in range(4)]),
    "mupots json": lambda root: write_mupots(root, ["TS1/img_000000.jpg", "TS1/img_000001.jpg"]),
    "mupots mats": write_mupots_mats,
    "mpi_inf_3dhp arrays": lambda root: write_mpi_arrays(root, [f"S1_Seq2_Cam0_{i:06d}.jpg" for i in range(3)]),
    "mpi_inf_3dhp video": a_video_of_nine,
    "custom": custom,
    "synthetic": lambda root: write_panoptic(root, "studio_train_haggling1", range(4)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_source_in_a_bucket_gives_the_files_that_it_gives_on_a_disk(layout, tmp_path, temporary, inline):
    source, root, uri = layout.split()[0], tmp_path / "raw", f"s3://bucket/{layout.replace(' ', '-')}"
    root.mkdir()
    LAYOUTS[layout](root) if layout not in ("coco", "custom") else (root.rmdir(), LAYOUTS[layout](root))
    copy_folder(root, uri)
    assert convert(config(source, uri, tmp_path / "bucket")) == convert(config(source, root, tmp_path / "disk"))
    assert files(tmp_path / "bucket") == files(tmp_path / "disk")
    left = {path.suffix for path in temporary.rglob("*") if path.is_file()}
    assert not left & {".jpg", ".png"}, "images are removed when they have been read"


def test_a_mended_image_in_a_bucket_is_converted_by_a_rerun_and_nothing_else_is(tmp_path, inline, monkeypatch):
    root, uri, out = tmp_path / "raw", "s3://bucket/mended", tmp_path / "out"
    write_panoptic(root, SEQUENCE, range(12))
    copy_folder(root, uri)
    broken, lost = (f"{uri}/{SEQUENCE}/hdImgs/00_16/00_16_{frame:08d}.jpg" for frame in (2, 4))
    write_bytes(broken, b"<html>404")
    delete(lost)
    with pytest.raises(ValueError, match="2 frames in quarantine: 1 x image damaged, .* 1 x image missing"):
        convert(config("panoptic", uri, out, allow_missing=False))
    assert sorted(read_columns(out / QUARANTINE)["file"]) == [
        f"{SEQUENCE}/hdImgs/00_16/00_16_0000000{frame}.jpg" for frame in (2, 4)
    ]
    for place in (broken, lost):
        write_bytes(place, (root / place.removeprefix(f"{uri}/")).read_bytes())
    made = []
    monkeypatch.setattr(
        "tests.pipeline.data.prepare.conftest.write_shard",
        lambda task, read: made.append(task) or write_shard(task, read),
    )
    manifest = convert(config("panoptic", uri, out, allow_missing=False))
    assert 0 < len(made) < len(manifest.splits["train"].shards)
    assert manifest == convert(config("panoptic", root, tmp_path / "disk"))


def test_a_storage_that_fails_while_it_is_read_is_an_error_that_names_the_object_and_no_quarantine(tmp_path):
    copies = Copies((), (BucketFile("a.jpg", 5, 10**18),))
    write_bytes("s3://bucket/changing/a.jpg", b"longer")
    with pytest.raises(OSError, match="s3://bucket/changing/a.jpg: found 6 bytes, the listing 5"):
        with copied("s3://bucket/changing", copies):
            pass
    away = "s3://key:hidden@bucket/away?endpoint_override=127.0.0.1:1&scheme=http"
    with pytest.raises(OSError, match=r"s3://\*\*\*@bucket/away/a.jpg: ") as caught:
        with copied(away, copies):
            pass
    assert "hidden" not in str(caught.value)


def test_an_object_that_is_gone_since_the_listing_is_missing(tmp_path):
    with copied("s3://bucket/gone", Copies((), (BucketFile("a.jpg", 5, 10**18),))) as folder:
        assert os.listdir(folder) == []


def test_annotations_stay_for_the_next_task_until_they_change(tmp_path):
    uri = "s3://bucket/kept"
    shared = [BucketFile("a.json", 1, 10**18), BucketFile("a.json", 1, 2 * 10**18)]
    for content, file, found in ((b"1", shared[0], "1"), (b"2", shared[0], "1"), (b"2", shared[1], "2")):
        write_bytes(f"{uri}/a.json", content)
        with copied(uri, Copies((file,), ())) as folder:
            assert Path(folder, "a.json").read_text() == found


def test_only_both_ends_of_a_large_video_are_mirrored_and_its_rate_is_read(tmp_path, monkeypatch, inline):
    monkeypatch.setattr(bucket, "_VIDEO_END", 1 << 12)
    root, uri, name = tmp_path / "raw", "s3://bucket/video", f"{SEQUENCE}/hdVideos/hd_00_16.mp4"
    write_panoptic(root, SEQUENCE, range(40))
    shutil.rmtree(root / SEQUENCE / "hdImgs")
    size = write_video(root / name, 200).stat().st_size
    assert size > 4 << 12
    shutil.copy(root / name, root / SEQUENCE / "hdVideos" / "hd_00_30.mp4")
    copy_folder(root, uri)
    with mirrored(uri, [name]) as folder:
        found, whole = Path(folder, name).read_bytes(), (root / name).read_bytes()
    assert found == whole[: 1 << 12] + bytes(size - (2 << 12)) + whole[-(1 << 12) :]
    from pipeline.data.sources.panoptic_files import VIDEO_RATE

    monkeypatch.setattr("pipeline.data.sources.panoptic.VIDEO_RATE", VIDEO_RATE + 1)
    with pytest.raises(ValueError, match=f"{uri}/{name}: found 29.97 frames per second"):
        convert(config("panoptic", uri, tmp_path / "out"))


def test_faults_of_the_whole_source_name_the_bucket(tmp_path, inline):
    uri = "s3://bucket/faulty"
    with pytest.raises(ValueError, match=f"no folder {uri}"):
        convert(config("coco", uri, tmp_path / "out"))
    write_bytes(f"{uri}/annotations/person_keypoints_val2017.json", b"{")
    with pytest.raises(ValueError, match=f"{uri}/annotations/person_keypoints_val2017.json: not JSON"):
        convert(config("coco", uri, tmp_path / "out"))
    for out, relation in ((uri, "is"), (f"{uri}/out", "is inside of"), ("s3://bucket", "contains")):
        with pytest.raises(ValueError, match=f"{relation} the folder of the originals"):
            config("coco", uri, out)


def test_the_copies_of_a_process_are_removed_when_it_ends(temporary):
    code = "from pipeline.data.prepare.bucket import _folder_of_process as f; print(f().name)"
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert str(temporary) in done.stdout and not list(temporary.iterdir())


def test_the_copies_of_a_killed_process_are_removed_by_the_next_one_and_those_of_a_living_one_are_not(temporary):
    code = "from pipeline.data.prepare.bucket import _folder_of_process as f; print(f().name, flush=True); input()"
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    killed, living = (subprocess.Popen(command, env=environment, **pipes) for _ in range(2))
    left, held = (Path(process.stdout.readline().strip()) for process in (killed, living))
    killed.kill()
    killed.wait()
    assert left.is_dir()
    bucket._folder_of_process()
    assert held.is_dir() and not left.exists()
    living.communicate("\n")
    assert not held.exists()


def test_an_image_too_large_to_be_one_is_not_copied(monkeypatch):
    monkeypatch.setattr(bucket, "MAX_IMAGE_BYTES", 100)
    data = jpeg(HEIGHT, WIDTH)
    write_bytes("s3://bucket/large/a.jpg", data)
    with copied("s3://bucket/large", Copies((), (BucketFile("a.jpg", len(data), 10**18),))) as folder:
        assert Path(folder, "a.jpg").read_bytes() == bytes(len(data))

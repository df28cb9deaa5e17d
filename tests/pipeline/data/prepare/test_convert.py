"""Conversion: the same input gives the same rows, and a rerun does only what was not finished."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from das.recipe import ours
from das.skeleton import MUPOTS17, PANOPTIC15
from pipeline.data.catalog import read_splits
from pipeline.data.digest import found_in, hashes
from pipeline.data.encoded_image import decode_rgb
from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.manifest import QUARANTINE, QUARANTINE_COLUMNS, load_manifest
from pipeline.data.pose_statistics import pose_statistics
from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.convert import convert
from pipeline.data.prepare.plan import RUN
from pipeline.data.samples import to_sample
from pipeline.data.schema import VERSION
from pipeline.data.shards import list_shards, read_records
from pipeline.data.sources import panoptic
from pipeline.infra.columns import read_columns
from tests.pipeline.data.original_layouts import jpeg, write_coco, write_custom, write_mupots, write_panoptic
from tests.pipeline.data.prepare.conversions import SMALL, config, files
from tests.pipeline.data.test_encoded_image import tagged


def test_the_manifest_lists_the_contents_of_the_prepared_folder(local_ray, raw, tmp_path):
    manifest = convert(config(raw, tmp_path, shard_mb=SMALL))
    assert manifest == load_manifest(str(tmp_path))
    train, val, test = (manifest.splits[s] for s in ("train", "val", "test"))
    # Every second frame of train and val from two cameras; of a test sequence this short all frames are taken.
    assert (train.images, val.images, test.images) == (2 * 6 + 2 * 3 - 1, 4, 8)
    assert (train.people, val.people, test.people) == (34, 8, 0)
    assert train.quarantine == {"image missing": 1} == manifest.quarantine and not val.quarantine and not train.drops
    quarantine = read_columns(tmp_path / QUARANTINE)
    assert tuple(quarantine) == QUARANTINE_COLUMNS and len(quarantine["key"]) == 1
    assert train.sequences == {"160224_haggling1": 11, "160224_mafia1": 6}
    assert manifest.skeletons == ("coco19", "mpi15") and manifest.split_manifest == panoptic.SPLITS.id
    assert manifest.terms == panoptic.TERMS and manifest.schema_version == VERSION and manifest.code_version
    for split, info in manifest.splits.items():
        records = [record for shard in list_shards(tmp_path, split) for record in read_records(shard)]
        stored = JointStatistics.from_json(info.statistics)
        for target in (PANOPTIC15, MUPOTS17):
            found, wanted = (pose_statistics(s, target, ours()) for s in (stored, JointStatistics(records)))
            assert found.people == wanted.people and found.labelled.tolist() == wanted.labelled.tolist()
            assert np.allclose(found.mean_pose, wanted.mean_pose, rtol=1e-12, atol=1e-9)
        # By keys alone: some images of the splits have the same bytes.
        known = found_in(tmp_path / train.digest, hashes([r.key for r in records], ["0" * 64] * len(records)))
        assert known.all() if split == "train" else not known.any()
    assert len(train.shards) > 2, "the case should need several shards"
    for info in manifest.splits.values():
        files = [pq.ParquetFile(tmp_path / name) for name in info.shards]
        stored = [[file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] for file in files]
        assert [list(rows) for rows in info.row_groups] == stored and sum(map(sum, stored)) == info.images
    for split, info in manifest.splits.items():
        assert [str(tmp_path / name) for name in info.shards] == list_shards(tmp_path, split)
    names = ["index.parquet", "manifest.json", "quarantine.parquet", "test", "train", "train-digest.parquet", "val"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert "in quarantine 1: image missing" in manifest.summary() and panoptic.TERMS in manifest.summary()


def test_rows_hold_the_bytes_of_the_image_files_and_the_index_lists_them(local_ray, raw, tmp_path):
    convert(config(raw, tmp_path, shard_mb=SMALL))
    index = read_columns(tmp_path / "index.parquet")
    rows = []
    for split in ("train", "val", "test"):
        for shard in list_shards(tmp_path, split):
            for record in read_records(shard):
                file = raw / record.sequence / "hdImgs" / record.camera / f"{record.camera}_{record.frame:08d}.jpg"
                assert record.image == file.read_bytes() and record.split == split
                assert record.split_manifest == panoptic.SPLITS.id
                rows.append((split, record.key, hashlib.sha256(record.image).hexdigest()))
                sample, left_out = to_sample(record)
                assert len(sample.has_depth) == len(record) and not left_out
    assert list(zip(index["split"], index["key"], index["image_sha256"], strict=True)) == rows
    assert len({key for _, key, _ in rows}) == len(rows) == 17 + 4 + 8


def test_the_same_input_in_another_folder_gives_the_same_bytes(local_ray, raw, tmp_path):
    first = convert(config(raw, tmp_path / "a", shard_mb=SMALL))
    shutil.copytree(raw, tmp_path / "moved")
    second = convert(config(tmp_path / "moved", tmp_path / "b", shard_mb=SMALL))
    assert first == second and files(tmp_path / "a") == files(tmp_path / "b")


def test_the_fingerprint_depends_on_the_content_and_not_on_its_packing(local_ray, raw, tmp_path):
    small = convert(config(raw, tmp_path / "small", shard_mb=SMALL))
    large = convert(config(raw, tmp_path / "large", rows_per_group=3))
    assert small.fingerprint == large.fingerprint and small.inputs != large.inputs
    assert [len(info.shards) for info in large.splits.values()] == [1, 1, 1]
    others = {
        "fewer frames": config(raw, tmp_path / "1", step=3),
        "one camera": config(raw, tmp_path / "2", cameras=("00_30",)),
        "no test": config(raw, tmp_path / "3", splits=("train", "val")),
        "all for training": config(raw, tmp_path / "4", as_split="train"),
        "sequences": config(raw, tmp_path / "5", sequences=("160224_mafia1", "160224_mafia2")),
    }
    found = {name: convert(c) for name, c in others.items()}
    assert len({m.fingerprint for m in found.values()} | {small.fingerprint}) == len(others) + 1
    assert {name: tuple(m.splits) for name, m in found.items()} == {
        "fewer frames": ("train", "val", "test"),
        "one camera": ("train", "val", "test"),
        "no test": ("train", "val"),
        "all for training": ("train",),
        "sequences": ("train", "val"),
    }
    assert found["all for training"].splits["train"].images == 17 + 4 + 8


def test_row_groups_of_training_data_mix_sequences_and_cameras(local_ray, tmp_path):
    root = tmp_path / "raw"
    for sequence in ("160224_haggling1", "160224_mafia1", "160224_ultimatum1"):
        write_panoptic(root, sequence, frames=range(64))
    manifest = convert(config(root, tmp_path / "out", rows_per_group=12, step=1))
    (shard,) = list_shards(tmp_path / "out", "train")
    records = list(read_records(shard))
    assert manifest.splits["train"].row_groups == ((12,) * 32,) and len(records) == 384
    places = [{(r.sequence, r.camera) for r in records[at : at + 12]} for at in range(0, len(records), 12)]
    assert np.mean([len(found) for found in places]) > 4, "of 6 places, 12 drawn rows show 5.3 on average"
    neighbours = [a.sequence == b.sequence and abs(a.frame - b.frame) < RUN for a, b in pairwise(records)]
    assert np.mean(neighbours) < 0.15


def test_relative_folders_are_relative_to_the_drivers_working_directory(local_ray, raw, tmp_path, monkeypatch):
    monkeypatch.chdir(raw.parent)
    out = os.path.relpath(tmp_path / "out")
    manifest = convert(config(Path(raw.name), Path(out)))
    assert load_manifest(str(tmp_path / "out")) == manifest
    assert len(list_shards(tmp_path / "out", "train")) == 1


def test_images_with_other_pixels_give_another_fingerprint(local_ray, tmp_path):
    def prepared(name, seed):
        root = write_mupots(tmp_path / name, ["TS1/img_000000.jpg"])
        (root / "TS1" / "img_000000.jpg").write_bytes(jpeg(180, 320, seed))
        return convert(ConvertConfig("mupots", str(root), str(tmp_path / f"out-{name}"))).fingerprint

    assert prepared("a", 1) == prepared("b", 1) != prepared("c", 2)


def test_a_finished_conversion_is_not_repeated_and_prints_that(local_ray, raw, tmp_path, capsys):
    first = convert(config(raw, tmp_path))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    capsys.readouterr()
    assert convert(config(raw, tmp_path)) == first
    assert f"{tmp_path}: converted before, nothing to do" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    with pytest.raises(ValueError, match="holds a finished conversion of panoptic from other files or with other opt"):
        convert(config(raw, tmp_path, step=5))
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_finished_shards_survive_a_failure_and_a_rerun_makes_only_the_others(local_ray, raw, tmp_path):
    root = tmp_path / "raw"
    write_panoptic(root, "160224_mafia1", frames=range(8))
    write_panoptic(root, "160224_ultimatum1", frames=range(8))
    pose = root / "160224_ultimatum1" / "hdPose3d_stage1_coco19" / "body3DScene_00000004.json"
    whole = pose.read_text()
    pose.write_text(whole[:300])
    out = tmp_path / "out"
    with pytest.raises(
        ValueError, match="2 frames in quarantine: 2 x annotation unreadable .*00000004.json: not JSON"
    ) as caught:
        convert(config(root, out, shard_mb=SMALL, allow_missing=False))
    assert "\n" not in str(caught.value), "the message must be one line, without the worker's stack"
    with pytest.raises(ValueError, match="its conversion did not finish"):
        load_manifest(str(out))
    assert list_shards(out, "train") == [], "without a manifest there must be no data"
    made = [*(out / "train").glob("*.parquet")]
    assert made and all(list(read_records(shard)) for shard in made)
    pose.write_text(whole)
    kept = {shard: os.stat(shard).st_ino for shard in made}
    manifest = convert(config(root, out, shard_mb=SMALL, allow_missing=False))
    again = {shard for shard in made if not shard.exists() or os.stat(shard).st_ino != kept[shard]}
    assert len(again) == 2, "the frame is seen by two cameras, whose chunks are in different shards"
    assert manifest == convert(config(root, tmp_path / "uninterrupted", shard_mb=SMALL))
    assert files(out) == files(tmp_path / "uninterrupted")


def test_leftovers_of_an_interrupted_attempt_are_removed(local_ray, raw, tmp_path):
    (tmp_path / "train").mkdir()
    for name in (f".staged-{'0' * 32}-shard", "shard-00099-0123456789ab.parquet"):
        (tmp_path / "train" / name).write_bytes(b"half")
    manifest = convert(config(raw, tmp_path))
    (shard,) = manifest.splits["train"].shards
    assert os.listdir(tmp_path / "train") == [Path(shard).name] and shard.startswith("train/shard-00000-")


def test_real_photos_are_converted_completely(local_ray, das_data, tmp_path):
    photos = ConvertConfig("mupots", str(das_data / "mupots_small"), str(tmp_path / "mupots"), as_split="train")
    manifest = convert(photos)
    assert manifest.splits["train"].images == 102 and manifest.splits["train"].people == 204
    assert tuple(manifest.splits) == ("train",) and "research" in manifest.terms
    two = replace(photos, out=str(tmp_path / "two"), sequences=("TS1", "TS10"), as_split=None)
    assert convert(two).splits["test"].sequences == {"TS1": 21, "TS10": 26}
    manifest = convert(ConvertConfig("coco", str(das_data / "coco"), str(tmp_path / "coco")))
    info = manifest.splits["train"]
    assert info.images == 28 and info.people - info.ignored == 86 and not info.quarantine
    (shard,) = list_shards(tmp_path / "coco", "train")
    assert sum(len(r) for r in read_records(shard, images=False)) == 147


def test_wrong_input_is_refused_in_one_line_and_leaves_no_file(local_ray, raw, tmp_path):
    out = tmp_path / "out"
    no_images = tmp_path / "no_images"
    write_panoptic(no_images, "160906_pizza1", frames=range(3))
    for image in no_images.rglob("*.jpg"):
        image.unlink()
    (tmp_path / "empty").mkdir()
    faults = {
        "panoptic: no folder .*/nowhere": config(tmp_path / "nowhere", out),
        "panoptic: .*/empty holds no frames of train, val, test, wanted any of 160": config(tmp_path / "empty", out),
        "panoptic: .*/no_images gives no image: 6 x image missing": config(no_images, out),
        "sequences: found pizza, wanted some of 160224_haggling1, ": config(raw, out, sequences=("pizza",)),
        r"calibration_\w+.json: no camera '00_01'": config(raw, out, cameras=("00_01",)),
        "mupots has one camera without a name": ConvertConfig("mupots", str(raw), str(out), cameras=("0",)),
    }
    for reason, wrong in faults.items():
        with pytest.raises(ValueError, match=reason) as caught:
            convert(wrong)
        assert "\n" not in str(caught.value)
        assert not out.exists() or not any(p.is_file() for p in out.rglob("*")), reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"splits": ()}, "splits is empty"),
        ({"shard_mb": 0}, "shard_mb = 0"),
        ({"rows_per_group": 0}, "rows_per_group = 0"),
        ({"reencode_long_side": 2}, "reencode_long_side = 2"),
    ],
)
def test_wrong_options_are_refused_by_name(change, reason):
    with pytest.raises(ValueError, match=reason):
        ConvertConfig(**{"source": "coco", "root": "raw", "out": "out", **change})


def test_a_split_manifest_is_chosen_by_name_or_file_and_named_in_the_result(local_ray, raw, tmp_path):
    mine = tmp_path / "mine.json"
    parts = [{"sequence": "160224_mafia1", "split": "test", "activity": "mafia"}]
    mine.write_text(json.dumps({"name": "mine", "parts": parts, "cameras": ["00_30"]}))
    found = {}
    for number, name in enumerate(("panoptic-release", str(mine))):
        manifest = convert(config(raw, tmp_path / str(number), split_manifest=name, allow_missing=True))
        found[manifest.split_manifest] = {s: set(info.sequences) for s, info in manifest.splits.items()}
    assert found == {
        read_splits("panoptic-release").id: {
            "train": {"160224_haggling1", "160224_mafia1", "160224_mafia2"},
            "test": {"160906_pizza1"},
        },
        read_splits(str(mine)).id: {"test": {"160224_mafia1"}},
    }
    with pytest.raises(ValueError, match="split manifest 'panoptic_smap' is unknown, wanted a JSON file or one of"):
        convert(config(raw, tmp_path / "none", split_manifest="panoptic_smap"))


def test_images_that_are_changed_or_carry_a_tag_are_counted_and_said(local_ray, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    write_custom(root, 4)
    lines = (root / "train.jsonl").read_text().replace('"1.jpg"', '"1.png"').replace('"2.jpg"', '"2.png"')
    (root / "train.jsonl").write_text(lines)
    for i in (1, 2):
        values = np.random.default_rng(i).integers(0, 1 << 12, (180, 320, 3)).astype(np.uint16)
        values[0, 0] = 4095
        cv2.imwrite(str(root / f"{i}.png"), values)
    (root / "3.jpg").write_bytes(tagged((root / "3.jpg").read_bytes(), 6))
    manifest = convert(ConvertConfig("custom", str(root), str(tmp_path / "out")))
    said = {
        "12-bit values in a 16-bit file, scaled by 4095": 2,
        "with an orientation tag (EXIF) that is not applied: annotations refer to the stored pixels": 1,
    }
    assert manifest.splits["train"].changes == said and manifest == load_manifest(str(tmp_path / "out"))
    assert all(f"    {n} images {what}\n" in manifest.summary() for what, n in said.items())
    images = [record.image for shard in list_shards(str(tmp_path / "out"), "train") for record in read_records(shard)]
    assert decode_rgb(images[1], (180, 320)).mean() > 100, "not as dark as values of 12 bits of 16"

    coco = write_coco(tmp_path / "coco")
    photo = coco / "train2017" / "000000000001.jpg"
    photo.write_bytes(tagged(photo.read_bytes(), 3))
    manifest = convert(ConvertConfig("coco", str(coco), str(tmp_path / "photos")))
    assert manifest.splits["train"].changes == {"turned by an orientation tag (EXIF)": 1}

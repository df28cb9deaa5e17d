"""From stored rows to batches: repeatable, the same for any workers, continued anywhere; losses are counted."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from das.assign import with_targets
from das.config import small
from das.recipe import small_recipe
from das.sample import Batch, Sample, collate
from das.skeleton import PANOPTIC15
from pipeline.data.data_sets import data_set
from pipeline.data.manifest import load_manifest
from pipeline.data.sample_columns import from_columns, to_columns
from pipeline.data.shards import list_shards, read_records
from pipeline.infra.columns import read_columns
from pipeline.training.batches import TrainingBatches, fill_gaps
from pipeline.training.cluster_decoding import open_runs_on_cluster
from pipeline.training.config import IngestConfig
from pipeline.training.row_transform import RowTransform

MODEL = small()
RECIPE = small_recipe(96, 54)
INGEST = IngestConfig(recipe="small", width=96, height=54, batch_size=8)


@pytest.fixture(scope="module")
def records(prepared) -> list:
    """All training rows."""
    return [record for shard in list_shards(prepared, "train") for record in read_records(shard)]


def transform(**changes) -> RowTransform:
    return RowTransform(PANOPTIC15, **{"recipe": RECIPE, "seed": 5, **changes})


def sample(record, copy=0, **changes) -> Sample:
    made, _ = transform(**changes)(record, copy)
    assert isinstance(made, Sample), made
    return made


def same(a, b) -> bool:
    pairs = ((getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a) if f.name != "targets")
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else np.array_equal(x, y) for x, y in pairs)


# ---- one row ----


def test_a_row_becomes_a_sample_of_the_models_joints_in_the_networks_size(records):
    for record in records:
        made = sample(record)
        assert made.key == record.key and made.skeleton == PANOPTIC15
        height, width = made.image.shape[:2]
        assert height <= 54 and width <= 96 and max(height / 54, width / 96) == 1
        assert 1 <= len(made.has_depth) <= len(record) and made.has_depth.all()
        # The augmentation changes pixels, not depths: every root is at the depth of one of the row's joints.
        depths = record.joints_cam[..., 2]
        assert (np.abs(depths[None] - made.root_depth[:, None, None]).min(axis=(1, 2)) < 1e-3).all()


def test_the_augmentation_depends_on_seed_epoch_key_and_copy_alone(records):
    first, other = records[0], records[7]
    wanted = sample(first, epoch=3)
    used = transform(epoch=3)
    used(other)
    assert same(wanted, used(first)[0]), "earlier rows must not matter"
    for changed in (sample(first, epoch=4), sample(first, epoch=3, seed=6), sample(first, copy=1, epoch=3)):
        assert not same(wanted, changed)
    second = sample(other, epoch=3)
    assert not np.allclose(np.linalg.det(wanted.K), np.linalg.det(second.K)), "two images are augmented differently"


def test_people_and_images_that_are_left_out_are_counted_by_reason(records):
    made, left_out = transform(recipe=dataclasses.replace(RECIPE, min_people=9))(records[0])
    ((reason, count),) = left_out.items()
    assert isinstance(made, str) and reason.startswith("images ") and count == 1
    ignored = dataclasses.replace(records[0], ignore=np.array([True] + [False] * (len(records[0]) - 1)))
    made, left_out = transform()(ignored)
    assert len(made.has_depth) < len(records[0]) and left_out == {"people ignored": 1}


def test_a_damaged_image_is_found_by_its_hash_even_where_it_can_be_decoded(records):
    image = bytearray(records[0].image)
    image[len(image) // 2] ^= 0xFF
    made, left_out = transform()(dataclasses.replace(records[0], image=bytes(image)))
    assert records[0].key in made and "image_sha256" in made and left_out == {"unreadable rows": 1}


def test_a_sample_travels_from_a_task_to_the_worker_unchanged(records):
    made, left_out = transform()(records[0])
    columns = {"fault": None, **to_columns((made, left_out))}
    again, counts = from_columns(columns, PANOPTIC15)
    assert same(made, again) and counts == left_out


# ---- batches ----


def batches_of(folder, config=INGEST, repeat=1, world=1, rank=0, images_per_step=8, **changes) -> TrainingBatches:
    data = [data_set(str(folder), load_manifest(folder), "train", repeat)]
    return TrainingBatches(data, config, MODEL, RECIPE, 5, images_per_step, rank, world, threads=2, **changes)


def epoch_of(*where, epoch=0, first_step=0, **changes):
    """The batches of one epoch, and what was left out."""
    batches = batches_of(*where, **changes)
    return [batch for step in batches(epoch, first_step) for batch in step], batches.left_out


def keys(batches):
    return [key for batch in batches for key in batch.keys]


@pytest.fixture(scope="module")
def damaged(prepared, tmp_path_factory):
    """A copy of the prepared folder with one truncated image, and that row's key."""
    folder = tmp_path_factory.mktemp("damaged")
    for number, shard in enumerate(list_shards(prepared, "train")):
        table = pq.read_table(shard)
        if number == 0:
            images = table.column("image").to_pylist()
            key, images[3] = table.column("key")[3].as_py(), images[3][:500]
            column = table.schema.get_field_index("image")
            table = table.set_column(column, table.schema.field(column), [images])
        (folder / "train").mkdir(exist_ok=True)
        pq.write_table(table, folder / "train" / Path(shard).name, row_group_size=16)
    shutil.copy(prepared / "manifest.json", folder)
    return folder, key


def test_a_batch_is_its_rows_in_order(prepared, records):
    (first, *_), _ = epoch_of(prepared)
    by_key = {record.key: record for record in records}
    assert isinstance(first, Batch) and same(first, collate([sample(by_key[key]) for key in first.keys]))


def test_an_epoch_is_every_row_once(prepared):
    columns = read_columns(Path(prepared) / "index.parquet", ["split", "key"])
    wanted = {key for split, key in zip(*columns.values(), strict=True) if split == "train"}
    batches, left_out = epoch_of(prepared)
    assert [len(batch.keys) for batch in batches] == [8] * 4
    assert Counter(keys(batches)) == Counter(wanted) and not left_out
    again, _ = epoch_of(prepared, epoch=1)
    assert keys(again) != keys(batches) and sorted(keys(again)) == sorted(keys(batches))


def test_two_runs_of_one_seed_give_the_same_batches_and_an_epoch_continues_at_any_step(prepared):
    whole, _ = epoch_of(prepared, epoch=1)
    for first_step in range(4):
        rest, _ = epoch_of(prepared, epoch=1, first_step=first_step)
        assert len(rest) == 4 - first_step
        assert all(same(a, b) for a, b in zip(whole[first_step:], rest, strict=True))


@pytest.mark.parametrize("world", [2, 3, 8])
def test_workers_share_the_images_of_every_step(prepared, world):
    whole, _ = epoch_of(prepared)
    parts = [list(batches_of(prepared, world=world, rank=rank)(0)) for rank in range(world)]
    for step, batch in enumerate(whole):
        assert [key for part in parts for key in keys(part[step])] == batch.keys


def test_a_step_larger_than_a_batch_is_several_parts(prepared):
    (step, *_) = batches_of(prepared, dataclasses.replace(INGEST, batch_size=3))(0)
    assert [len(part.keys) for part in step] == [3, 3, 2]


def test_a_folder_can_appear_several_times_an_epoch_each_time_augmented_anew(prepared):
    batches, _ = epoch_of(prepared, repeat=3)
    counts = Counter(keys(batches))
    assert len(counts) == 32 and set(counts.values()) == {3}
    key = keys(batches)[0]
    images = [batch.images[batch.keys.index(key)] for batch in batches if key in batch.keys]
    assert not any(torch.equal(images[0], image) for image in images[1:])


def test_a_damaged_image_is_counted_named_and_replaced_by_another_row(damaged, capsys):
    folder, key = damaged
    batches, left_out = epoch_of(folder)
    seen = Counter(keys(batches))
    assert sum(seen.values()) == 32 and len(seen) == 31 and key not in seen
    assert left_out == {"unreadable rows": 1}
    (line,) = capsys.readouterr().err.splitlines()
    assert key in line and "cut short" in line


def test_the_row_that_replaces_a_damaged_one_depends_neither_on_workers_nor_on_a_restart(damaged):
    folder, _ = damaged
    whole = keys(epoch_of(folder)[0])
    halves = [list(batches_of(folder, world=2, rank=rank)(0)) for rank in range(2)]
    assert [key for step in range(4) for half in halves for key in keys(half[step])] == whole
    for first_step in range(4):
        assert keys(epoch_of(folder, first_step=first_step)[0]) == whole[8 * first_step :]


def test_too_many_damaged_images_end_the_training_and_are_named(damaged):
    folder, key = damaged
    with pytest.raises(ValueError, match=rf"1 damaged images .* at most 0 \(ingest.max_unreadable\): .*{key}"):
        epoch_of(folder, dataclasses.replace(INGEST, max_unreadable=0))


def test_a_damaged_shard_is_named(prepared, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(prepared, folder)
    shard = Path(list_shards(folder, "train")[0])
    shard.write_bytes(shard.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"{shard.name}: not a Parquet file"):
        epoch_of(folder)
    shutil.copy(list_shards(prepared, "train")[0], shard)
    content = bytearray(shard.read_bytes())
    content[4:30000] = bytes(29996)
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=f"{shard.name}"):
        epoch_of(folder)


def test_the_first_images_are_the_same_on_every_worker_and_are_not_counted(damaged):
    folder, _ = damaged
    found = [batches_of(folder, world=2, rank=rank) for rank in range(2)]
    first = [[batch.keys for batch in batches.first_images(20)] for batches in found]
    assert first[0] == first[1] and sum(map(len, first[0])) >= 20
    assert not found[0].left_out


def test_a_batch_without_a_usable_row_is_replaced_by_a_neighbour(records):
    first, second = (collate([sample(record) for record in part]) for part in (records[:2], records[2:4]))
    filled = list(fill_gaps([None, None, first, None, second, None]))
    assert [batch.keys for batch in filled] == [b.keys for b in (first, first, first, first, second, second)]
    with pytest.raises(ValueError, match="not one sample in 2 batches"):
        list(fill_gaps([None, None]))
    assert list(fill_gaps([])) == []


def test_a_missing_split_has_no_rows(prepared):
    assert data_set(str(prepared), load_manifest(prepared), "extra").rows == 0


def test_row_groups_of_older_manifests_are_read_from_the_shards(prepared):
    manifest = load_manifest(prepared)
    older = dataclasses.replace(manifest.splits["train"], row_groups=())
    found = data_set(str(prepared), dataclasses.replace(manifest, splits={"train": older}), "train")
    assert found == data_set(str(prepared), manifest, "train")
    wrong = dataclasses.replace(older, images=31)
    with pytest.raises(ValueError, match="hold 32 train rows, wanted 31 as its manifest says"):
        data_set(str(prepared), dataclasses.replace(manifest, splits={"train": wrong}), "train")


# ---- through Ray Data ----


def test_ray_tasks_make_the_batches_that_the_workers_threads_make(local_ray, damaged):
    folder, _ = damaged
    for first_step in (0, 2):
        here, left_out = epoch_of(folder, first_step=first_step)
        there, counted = epoch_of(folder, first_step=first_step, opened=open_runs_on_cluster)
        assert all(same(a, b) for a, b in zip(here, there, strict=True)) and left_out == counted


def test_a_damaged_shard_is_named_by_ray_tasks_too(local_ray, prepared, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(prepared, folder)
    shard = Path(list_shards(folder, "train")[0])
    shard.write_bytes(shard.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"{shard.name}: not a Parquet file"):
        epoch_of(folder, opened=open_runs_on_cluster)


def test_batches_bring_the_targets_of_the_model(prepared):
    batches, _ = epoch_of(prepared)
    for batch in batches:
        found, wanted = batch.targets, with_targets(batch, MODEL).targets
        assert torch.equal(found.counts, wanted.counts) and found.counts[0] > 0
        for name in ("positive", "counted", "centerness", "root", "joints", "has_depth", "supervised", "has_z"):
            assert torch.equal(getattr(found, name), getattr(wanted, name)), name

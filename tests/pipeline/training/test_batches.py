"""From stored rows to batches: repeatable augmentation, everything left out is counted, every row once an epoch."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from das.recipe import small_recipe
from das.sample import Batch, collate
from das.skeleton import PANOPTIC15
from pipeline.data.ray_rows import read_split
from pipeline.data.schema import from_row, to_table
from pipeline.data.shards import list_shards, read_records
from pipeline.infra.columns import read_columns
from pipeline.training.batches import CollateRows, RowTransform, TrainingBatches, fill_gaps, training_rows
from pipeline.training.config import IngestConfig
from tests.pipeline.training.ray_train_stand_in import Rows, Shard

RECIPE = small_recipe(96, 54)
INGEST = IngestConfig(recipe="small", width=96, height=54, batch_size=8, shuffle_rows=16)


@pytest.fixture(scope="module")
def rows(prepared) -> list[dict]:
    """All training rows, as Ray Data passes them on."""
    return to_table(r for shard in list_shards(prepared, "train") for r in read_records(shard)).to_pylist()


def transform(**changes) -> RowTransform:
    return RowTransform(PANOPTIC15, **{"recipe": RECIPE, "seed": 5, **changes})


def cut_short(row) -> dict:
    return {**row, "image": row["image"][: len(row["image"]) // 2]}


def same(a, b) -> bool:
    pairs = ((getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else np.array_equal(x, y) for x, y in pairs)


def test_a_row_becomes_a_sample_of_the_models_joints_in_the_networks_size(rows):
    for row in rows:
        sample = transform()(row)
        assert sample.key == row["key"] and sample.skeleton == PANOPTIC15
        height, width = sample.image.shape[:2]
        assert height <= 54 and width <= 96 and max(height / 54, width / 96) == 1
        assert 1 <= len(sample.has_depth) <= len(row["person_id"]) and sample.has_depth.all()
        # The augmentation changes pixels, not depths: every root is at the depth of one of the row's joints.
        depths = from_row(row).joints_cam[..., 2]
        assert (np.abs(depths[None] - sample.root_depth[:, None, None]).min(axis=(1, 2)) < 1e-3).all()


def test_the_augmentation_depends_on_seed_epoch_and_key_alone(rows):
    first, other = rows[0], rows[7]
    wanted = transform(epoch=3)(first)
    used = transform(epoch=3)
    used(other), used(cut_short(other))
    assert same(wanted, used(first)), "earlier rows must not matter"
    assert not same(wanted, transform(epoch=4)(first))
    assert not same(wanted, transform(epoch=3, seed=6)(first))
    second = transform(epoch=3)(other)
    assert not np.allclose(np.linalg.det(wanted.K), np.linalg.det(second.K)), "two images are augmented differently"


def test_a_batch_is_its_rows_in_order(rows):
    batch = CollateRows(transform())(Rows(rows[:5]))
    assert isinstance(batch, Batch) and batch.keys == [row["key"] for row in rows[:5]]
    assert same(batch, collate([transform()(row) for row in rows[:5]]))


def test_an_unreadable_row_is_counted_named_and_replaced_by_another_of_its_batch(rows, capsys):
    made = transform()
    batch = CollateRows(made)(Rows([rows[0], cut_short(rows[1]), rows[2]]))
    assert batch.keys == [rows[0]["key"], rows[2]["key"], rows[2]["key"]]
    assert made.left_out == {"unreadable rows": 1}
    (line,) = capsys.readouterr().err.splitlines()
    assert rows[1]["key"] in line and "cut short" in line


def test_people_and_images_that_are_left_out_are_counted_by_reason(rows):
    crowd = transform(recipe=dataclasses.replace(RECIPE, min_people=9))
    assert crowd(rows[0]) is None
    ((reason, count),) = crowd.left_out.items()
    assert reason.startswith("images ") and count == 1
    ignoring = transform()
    ignored = {**rows[0], "ignore": [True] + [False] * (len(rows[0]["person_id"]) - 1)}
    assert len(ignoring(ignored).has_depth) < len(rows[0]["person_id"])
    assert ignoring.left_out == {"people ignored": 1}


def test_a_row_that_is_repeated_looks_different_each_time_and_in_the_next_epoch(rows):
    made = transform()
    twice = [made(rows[0]), made(rows[0])]
    assert not same(*twice)
    made.begin(0)
    assert same(made(rows[0]), twice[0]) and same(made(rows[0]), twice[1])
    elsewhere = transform(rank=1)
    assert not any(same(elsewhere(rows[0]), sample) for sample in twice)


def test_a_batch_without_a_usable_row_is_replaced_by_a_neighbour(rows):
    nothing = CollateRows(transform())(Rows([cut_short(row) for row in rows[:2]]))
    assert nothing is None
    first, second = (CollateRows(transform())(Rows(part)) for part in (rows[:2], rows[2:4]))
    filled = list(fill_gaps([None, None, first, None, second, None]))
    assert [batch.keys for batch in filled] == [b.keys for b in (first, first, first, first, second, second)]
    with pytest.raises(ValueError, match="not one sample in 2 batches"):
        list(fill_gaps([None, None]))
    assert list(fill_gaps([])) == []


def test_the_order_of_the_rows_is_drawn_from_the_seed_and_the_epoch(rows):
    seeds = []

    class Recorded(Shard):
        def iter_torch_batches(self, **options):
            seeds.append(options["local_shuffle_seed"])
            return super().iter_torch_batches(**options)

    def order(epoch, seed=5):
        batches = TrainingBatches(Recorded(rows[:16]), INGEST, PANOPTIC15, RECIPE, seed)
        return [key for batch in batches(epoch) for key in batch.keys]

    orders = [order(0), order(1), order(2), order(0, seed=9)]
    assert all(sorted(found) == sorted(orders[0]) for found in orders)
    assert len({tuple(found) for found in orders}) == 4, "every epoch and every seed has its own order"
    assert order(1) == orders[1]
    assert seeds == [5, 6, 7, 9, 6]


# ---- through Ray Data ----


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
        pq.write_table(table, folder / "train" / Path(shard).name)
    shutil.copy(prepared / "manifest.json", folder)
    return folder, key


def epoch_of(folder, config, epoch=0, repeat=(), seed=5):
    """The batches of one epoch, and what was left out."""
    dataset = training_rows([str(folder)], repeat, config, PANOPTIC15, RECIPE, seed)
    batches = TrainingBatches(dataset.iterator(), config, PANOPTIC15, RECIPE, seed)
    return list(batches(epoch)), batches.transform.left_out


@pytest.mark.parametrize("decode_on", ["worker", "cluster"])
def test_an_epoch_is_every_row_once_wherever_images_are_decoded(local_ray, prepared, decode_on):
    wanted = {k for s, k in zip(*read_columns(prepared / "index.parquet", ["split", "key"]).values()) if s == "train"}
    batches, left_out = epoch_of(prepared, dataclasses.replace(INGEST, decode_on=decode_on))
    assert [len(batch.keys) for batch in batches] == [8] * 4
    assert Counter(key for batch in batches for key in batch.keys) == Counter(wanted) and not left_out
    again, _ = epoch_of(prepared, dataclasses.replace(INGEST, decode_on=decode_on), epoch=1)
    assert [b.keys for b in again] != [b.keys for b in batches], "every epoch has another order"


@pytest.mark.parametrize("decode_on", ["worker", "cluster"])
def test_a_damaged_image_loses_one_row_and_is_counted(local_ray, damaged, decode_on):
    folder, key = damaged
    batches, left_out = epoch_of(folder, dataclasses.replace(INGEST, decode_on=decode_on))
    seen = Counter(k for batch in batches for k in batch.keys)
    assert sum(seen.values()) == 32 and len(seen) == 31 and key not in seen
    assert left_out == {"unreadable rows": 1}


def test_an_epoch_keeps_its_length_where_a_whole_batch_is_unusable(local_ray, damaged):
    folder, key = damaged
    batches, left_out = epoch_of(folder, dataclasses.replace(INGEST, batch_size=1))
    assert len(batches) == 32 and left_out == {"unreadable rows": 1}
    assert key not in {k for batch in batches for k in batch.keys}


def test_without_a_shuffle_buffer_the_rows_of_a_batch_are_in_stored_order(local_ray, prepared):
    stored = [record.key for shard in list_shards(prepared, "train") for record in read_records(shard, images=False)]
    batches, _ = epoch_of(prepared, dataclasses.replace(INGEST, shuffle_rows=0, batch_size=2))
    follows = sum(stored.index(batch.keys[1]) == stored.index(batch.keys[0]) + 1 for batch in batches)
    assert len(batches) == 16 and follows >= 14  # two files may meet within a batch


def test_a_folder_can_appear_several_times_an_epoch(local_ray, prepared):
    batches, _ = epoch_of(prepared, INGEST, repeat=(3,))
    counts = Counter(key for batch in batches for key in batch.keys)
    assert len(counts) == 32 and set(counts.values()) == {3}


def test_an_incomplete_last_batch_is_left_out(local_ray, prepared):
    batches, _ = epoch_of(prepared, dataclasses.replace(INGEST, batch_size=5))
    assert [len(batch.keys) for batch in batches] == [5] * 6


def test_a_missing_split_is_an_error(prepared):
    with pytest.raises(ValueError, match=f"{prepared}: split 'extra' has no Parquet shards"):
        read_split([str(prepared)], "extra")


def test_rows_reach_the_worker_as_they_were_stored(local_ray, prepared, rows):
    found = {row["key"]: row for row in read_split([str(prepared)], "train").iter_rows()}
    assert found.keys() == {row["key"] for row in rows}
    for row in rows:
        assert from_row(found[row["key"]]).content_hash() == from_row(row).content_hash()

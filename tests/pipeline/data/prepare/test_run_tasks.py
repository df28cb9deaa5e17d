"""Tasks on Ray: failures are tried again or named at the end, and the driver makes no call for a single shard."""

import errno
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from pyarrow import fs

from pipeline.data.catalog import CATALOG
from pipeline.data.prepare import shard_task
from pipeline.data.prepare.convert import convert
from pipeline.data.prepare.run_tasks import in_tasks
from pipeline.data.shards import read_records
from pipeline.data.sources import panoptic
from pipeline.infra import columns
from pipeline.infra import files as storage
from tests.pipeline.data.original_layouts import write_panoptic
from tests.pipeline.data.prepare.conversions import SMALL, config, files


def writing_fails(monkeypatch, fails) -> None:
    """Makes the workers' writing of a shard call ``fails`` with its path first."""

    def records(chunk):
        write = shard_task.write_records

        def failing(uri, *rest, **options):
            fails(str(uri))
            return write(uri, *rest, **options)

        shard_task.write_records = failing  # workers of other tests keep this, so ``fails`` must know its own folder
        yield from panoptic.records(chunk)

    source = SimpleNamespace(TERMS=panoptic.TERMS, SPLITS=panoptic.SPLITS, chunks=panoptic.chunks, records=records)
    monkeypatch.setitem(CATALOG, "panoptic", replace(CATALOG["panoptic"], source=source))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("broken\nsecond line"), "RuntimeError: broken"),
        (OSError(errno.EIO, "Input/output error", "/x"), "OSError: [Errno 5] Input/output error: '/x'"),
    ],
)
def test_tasks_that_fail_are_named_at_the_end_and_the_shards_of_the_others_are_kept(
    local_ray, raw, tmp_path, monkeypatch, error, said
):
    out, mark = tmp_path / "out", tmp_path / "fails"
    mark.touch()

    def fails(uri):
        if uri.startswith(f"{out}/val") and mark.exists():
            raise error

    writing_fails(monkeypatch, fails)
    with pytest.raises(ValueError) as caught:
        convert(config(raw, out, shard_mb=1.0))
    kept = "1 of 3 shards were not made, the others are kept for the next attempt"
    assert str(caught.value) == f"{kept}: {said} (val-00000)" and not (out / "manifest.json").exists()
    made = {path: path.stat().st_ino for path in out.glob("*/shard-*.parquet")}
    assert len(made) == 2 and all([*read_records(path)] for path in made)
    mark.unlink()
    assert convert(config(raw, out, shard_mb=1.0)) == convert(config(raw, tmp_path / "whole", shard_mb=1.0))
    assert {path: path.stat().st_ino for path in made} == made, "the rerun makes only what is missing"
    assert files(out) == files(tmp_path / "whole")


def test_a_task_is_tried_again_after_an_error_of_the_file_system(local_ray, raw, tmp_path, monkeypatch):
    out, mark = tmp_path / "out", tmp_path / "failed"

    def fails(uri):
        if uri.startswith(f"{out}/train") and not mark.exists():
            mark.touch()
            raise OSError(errno.EIO, "Input/output error", uri)

    writing_fails(monkeypatch, fails)
    convert(config(raw, out, shard_mb=SMALL))
    convert(config(raw, tmp_path / "whole", shard_mb=SMALL))
    assert mark.exists() and files(out) == files(tmp_path / "whole")


def test_results_of_tasks_come_in_the_order_of_their_items_and_errors_as_they_were_raised(local_ray):
    assert [*in_tasks(lambda n: n * n, range(30))] == [n * n for n in range(30)]
    with pytest.raises(ZeroDivisionError):
        [*in_tasks(lambda n: 1 // n, [1, 0, 2])]


class CountedDisk(fs.LocalFileSystem):
    """The local disk; counts the calls that would be requests to object storage."""

    calls: Counter[str] = Counter()


def _counted(name: str):
    def call(self, *args, **options):
        CountedDisk.calls[name] += 1
        return getattr(fs.LocalFileSystem, name)(self, *args, **options)

    return call


for _name in (
    "get_file_info", "open_input_stream", "open_input_file", "open_output_stream", "move", "delete_file", "delete_dir",
):  # fmt: skip
    setattr(CountedDisk, _name, _counted(_name))


def test_the_number_of_file_system_calls_of_the_driver_does_not_grow_with_the_shards(local_ray, tmp_path, monkeypatch):
    root = tmp_path / "raw"
    write_panoptic(root, "160224_haggling1", frames=range(256))
    write_panoptic(root, "160224_mafia2", frames=range(4))
    (root / "160224_haggling1/hdImgs/00_16/00_16_00000002.jpg").unlink()
    locate = storage.locate
    for module in (storage, columns):
        monkeypatch.setattr(module, "locate", lambda uri: (CountedDisk(), locate(uri)[1]))
    found = {}
    for shard_mb in (100.0, 0.01):
        monkeypatch.setattr(CountedDisk, "calls", Counter())
        out = tmp_path / str(shard_mb)
        with pytest.raises(ValueError, match="1 frames in quarantine"):
            convert(config(root, out, shard_mb=shard_mb, allow_missing=False))
        first = CountedDisk.calls.total()
        manifest = convert(config(root, out, shard_mb=shard_mb))  # finds all shards made
        found[sum(len(info.shards) for info in manifest.splits.values())] = first, CountedDisk.calls.total() - first
    (few, calls_few), (many, calls_many) = found.items()
    assert many > few + 25 and calls_many == calls_few and sum(calls_few) < 100, found

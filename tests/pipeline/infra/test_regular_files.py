"""Only regular files of bounded size, inside their folder, are opened, by every reader of files that others name."""

import os
from pathlib import Path

import pytest

from pipeline.infra.columns import read_columns
from pipeline.infra.files import read_bytes, read_json
from pipeline.infra.images import photo_bytes
from pipeline.infra.regular_files import check_inside, inside, kept_inside, read_file, regular_file


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "below").mkdir(parents=True)
    (tmp_path / "secret.json").write_text("{}")
    (folder / "below" / "own.json").write_text("{}")
    (folder / "out.json").symlink_to(tmp_path / "secret.json")
    (folder / "round.json").symlink_to(folder / "below" / "own.json")
    (folder / "away").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.json")
    (folder / "zero.json").symlink_to("/dev/zero")
    (folder / "large.json").write_bytes(b"{")
    os.truncate(folder / "large.json", 10 << 30)
    return folder


@pytest.mark.parametrize("name", ["../secret.json", "/etc/passwd", "out.json", "away/secret.json", "zero.json", ".."])
def test_names_and_links_that_lead_out_are_refused(root, name):
    with pytest.raises(ValueError, match="leads out of"):
        inside(root, name)
    with pytest.raises(OSError, match="leads out of"):
        regular_file(root / name, root=root)


def test_what_stays_inside_is_read(root):
    for name in ("below/own.json", "round.json", "below/../below/own.json"):
        assert read_file(inside(root, name), root=root) == b"{}"
    assert inside(root, "none.json") == root / "none.json"
    with pytest.raises(ValueError, match="null"):
        inside(root, "a\0b")


def test_a_root_given_from_the_current_folder_is_not_doubled(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    assert inside("root", "below/own.json") == kept_inside("root", Path("root/below/own.json"))
    assert read_file(kept_inside("root", Path("root/below/own.json"))) == b"{}"
    with pytest.raises(ValueError, match="root/out.json: leads out of root"):
        kept_inside("root", Path("root/out.json"))


@pytest.mark.parametrize("read", [read_json, read_bytes, photo_bytes, read_columns, read_file])
@pytest.mark.parametrize(
    ("name", "found"),
    [("pipe.json", "a pipe or device"), ("zero.json", "a pipe or device"), ("large.json", "10737418240 bytes, wanted")],
)
def test_every_reader_refuses_what_has_no_end(root, read, name, found):
    if (read, name) == (read_columns, "large.json"):
        found = "not a Parquet file"  # it is read piece by piece
    with pytest.raises((ValueError, OSError), match=found) as caught:
        read(root / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "1" * 100_000 + "}", "\xff"])
def test_json_of_any_form_is_one_value_error(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.json: not JSON"):
        read_json(tmp_path / "x.json")


def test_an_empty_name_is_left_to_whoever_opens_it(tmp_path):
    check_inside(tmp_path, [tmp_path / ""])

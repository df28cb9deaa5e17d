"""Parquet files of plain columns and of lists of numbers round-trip, and a wrong column is named."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.infra.columns import (
    ListColumn,
    growing_columns,
    read_columns,
    read_lists,
    write_columns,
    write_lists,
    write_texts,
)


def test_columns_round_trip_and_a_missing_one_is_named(tmp_path):
    columns = {"key": ["a", "b"], "score": [0.25, 0.5], "joints": [[1.0, 2.0], []]}
    write_columns(tmp_path / "t.parquet", columns)
    assert read_columns(tmp_path / "t.parquet") == columns
    assert read_columns(tmp_path / "t.parquet", ["score"]) == {"score": [0.25, 0.5]}
    with pytest.raises(ValueError, match="t.parquet: no column image, found key, score, joints"):
        read_columns(tmp_path / "t.parquet", ["image"])


def test_rows_of_texts_are_written_in_row_groups(tmp_path):
    rows = [(f"a{i}", f"b{i}") for i in range(7)]
    write_texts(tmp_path / "t.parquet", ("a", "b"), iter(rows), rows_per_group=3)
    assert read_columns(tmp_path / "t.parquet") == {"a": [a for a, _ in rows], "b": [b for _, b in rows]}
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 3
    write_texts(tmp_path / "none.parquet", ("a", "b"), [])
    assert read_columns(tmp_path / "none.parquet") == {"a": [], "b": []}


def test_rows_that_come_one_after_another_are_whole_or_absent(tmp_path):
    types, rows = {"name": str, "frame": int, "time": float}, [("a", 0, None), ("b", 1, 0.5), ("c", 2, 1.5)]
    with growing_columns(tmp_path / "t.parquet", types, {"format": 1}, rows_per_group=2) as add:
        add(rows[:2])
        add(rows[2:])
        assert not (tmp_path / "t.parquet").exists()
    assert list(zip(*read_columns(tmp_path / "t.parquet").values(), strict=True)) == rows
    file = pq.ParquetFile(tmp_path / "t.parquet")
    assert file.num_row_groups == 2 and file.schema_arrow.metadata[b"about"] == b'{"format": 1}'
    with growing_columns(tmp_path / "none.parquet", types, {}):
        pass
    assert read_columns(tmp_path / "none.parquet") == {"name": [], "frame": [], "time": []}
    with pytest.raises(KeyError), growing_columns(tmp_path / "t2.parquet", types, {}) as add:
        add(rows)
        raise KeyError("stopped")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.parquet", "t.parquet"]


def test_lists_of_numbers_round_trip_with_their_description(tmp_path):
    lengths, values = np.array([2, 0, 3]), np.arange(5, dtype=np.float32)
    write_lists(tmp_path / "t.parquet", "key", ["a", "b", "c"], {"x": ListColumn(lengths, values)}, {"format": 1})
    keys, lists, about = read_lists(tmp_path / "t.parquet", "key", ["x"])
    assert keys == ["a", "b", "c"] and about == {"format": 1}
    assert (lists["x"].lengths == lengths).all() and (lists["x"].values == values).all()
    assert pq.read_table(tmp_path / "t.parquet").column("x").to_pylist() == [[0, 1], [], [2, 3, 4]]


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"key": ["a"]}, "column x is missing"),
        ({"key": [1], "x": [[1.0]]}, "column key is int64, wanted texts"),
        ({"key": [None, "a"], "x": [[1.0], [2.0]]}, "column key holds nulls"),
        ({"key": ["a"], "x": ["b"]}, "column x is string, wanted lists"),
        ({"key": ["a"], "x": [None]}, "column x"),
        ({"key": ["a"], "x": [[1.0, None]]}, "column x holds nulls"),
        ({"key": ["a"], "x": [["b"]]}, "column x holds nulls or string"),
        ({"key": ["a"], "x": [[1.0]]}, "no description"),
    ],
)
def test_columns_of_another_type_are_refused_by_name(tmp_path, columns, named):
    write_columns(tmp_path / "t.parquet", columns)
    with pytest.raises(ValueError, match=named) as caught:
        read_lists(tmp_path / "t.parquet", "key", ["x"])
    assert "t.parquet" in str(caught.value)

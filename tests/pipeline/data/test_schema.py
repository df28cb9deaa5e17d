"""The Parquet row: round trips, and rows and files of another form refused by file, key and column."""

import io
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das.skeleton import SKELETONS
from pipeline.data import schema
from pipeline.data.record import COLUMN_TYPES, Record
from pipeline.data.schema import COLUMNS, SCHEMA, check_schema, from_row, to_table
from tests.pipeline.data.records import assert_equal, record


def row_of(original: Record) -> dict:
    """A record as the plain Python values that Parquet gives back."""
    return to_table([original]).to_pylist()[0]


records = st.builds(
    record,
    st.sampled_from(list(SKELETONS.values())),
    st.integers(0, 4),
    st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(records)
def test_a_record_written_to_parquet_is_read_back_unchanged(original):
    file = io.BytesIO()
    pq.write_table(to_table([original, original]), file)
    table = pq.read_table(file)
    assert table.schema.equals(SCHEMA) and table.schema.metadata == SCHEMA.metadata
    for row in table.to_pylist():
        assert_equal(original, from_row(row))


@settings(max_examples=40, deadline=None)
@given(records)
def test_a_record_is_read_back_unchanged_from_rows_of_numpy_values(original):
    # Rows as Ray Data gives them: scalars and nested arrays of NumPy, ragged ones with dtype object.
    row = {}
    for name, value in row_of(original).items():
        if isinstance(value, list):
            value = np.array([np.array(v) if isinstance(v, list) else v for v in value])
        row[name] = np.int64(value) if isinstance(value, int) else value
    assert_equal(original, from_row(row))


def test_a_row_without_its_image_is_read_with_empty_bytes():
    row = row_of(record())
    del row["image"]
    assert from_row(row).image == b""
    row["image"] = b""
    with pytest.raises(ValueError, match="column image"):
        from_row(row)


def test_the_schema_has_the_fields_of_the_record():
    assert SCHEMA.names == list(COLUMN_TYPES)
    assert SCHEMA.metadata[b"schema_version"] == b"2"
    assert not any(isinstance(field.type, pa.ExtensionType) for field in SCHEMA)


def test_describe_prints_every_column_with_its_unit():
    text = schema.describe()
    for column in COLUMNS:
        (line,) = [line for line in text.splitlines() if line.startswith(column.name + " ")]
        assert column.unit in line and column.meaning in line and ("null" in line) == column.nullable


ROW_FAULTS = {
    "no such column": lambda row: row.pop("bbox"),
    "text for numbers": lambda row: row.update(bbox=[["a", "b", "c", "d"]] * 2),
    "a number for a list": lambda row: row.update(bbox=3.0),
    "a short list": lambda row: row.update(bbox=[[1.0, 2.0, 3.0]] * 2),
    "a person too few": lambda row: row.update(bbox=row["bbox"][:1]),
    "fractions for states": lambda row: row.update(state=[[0.5] * 17] * 2),
    "numbers for flags": lambda row: row.update(valid=[2, 3]),
    "a null person": lambda row: row.update(bbox=[None, None]),
}


@pytest.mark.parametrize("name", ROW_FAULTS)
def test_a_row_of_wrong_types_is_refused_naming_its_column(name):
    row = row_of(record())
    before = dict(row)
    ROW_FAULTS[name](row)
    (column,) = [c for c in SCHEMA.names if c not in row or row[c] is not before[c]]
    with pytest.raises(ValueError, match=re.escape(f"f.parquet: {before['key']}: column {column}: found ")):
        from_row(row, "f.parquet")


def other_version(s):
    return s.with_metadata({**s.metadata, b"schema_version": b"9"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_version, "f.parquet: schema version 9, wanted 1 or 2"),
        (lambda s: s.remove_metadata(), "f.parquet: schema version none, wanted 1 or 2"),
        (lambda s: s.remove(s.get_field_index("state")), "f.parquet: column state is missing"),
        (
            lambda s: s.set(s.get_field_index("frame"), pa.field("frame", pa.int32())),
            "f.parquet: column frame has type int32, wanted int64",
        ),
    ],
)
def test_a_file_of_another_schema_is_refused(change, reason):
    check_schema(SCHEMA, "f.parquet")
    with pytest.raises(ValueError, match=reason):
        check_schema(change(SCHEMA), "f.parquet")


def test_record_and_schema_have_the_same_order_and_the_same_optional_columns():
    assert list(COLUMN_TYPES) == [c.name for c in COLUMNS]
    assert {name for name, kind in COLUMN_TYPES.items() if "None" in kind} == {c.name for c in COLUMNS if c.nullable}

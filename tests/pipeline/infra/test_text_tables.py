"""Tables have the same numbers and intervals on a terminal, in a CSV file and in a report."""

import csv
import json

import numpy as np
import pytest

from das.metrics.bootstrap import SURE, Interval
from pipeline.infra.text_tables import Table

MEASURED = Interval(45.25, 43.0, 48.5, 40, SURE)
NO_INTERVAL = Interval(3.5, np.nan, np.nan, 1, SURE)
TABLE = Table.of(
    "errors",
    "errors by place",
    (("MPJPE mm", ".1f"), ("people", ".0f"), ("recall", ".2f")),
    {"all": [MEASURED, 12, 0.5], "hall": [NO_INTERVAL, 3, np.nan], "yard": [1, 2, 0.25]},
)


def test_intervals_are_printed_below_their_numbers():
    lines = TABLE.text().splitlines()
    assert lines[0] == "errors by place" and len({len(line) for line in lines[1:]}) == 1
    assert [line.split()[0] for line in lines[2:]] == ["all", "95", "hall", "yard"], (
        "no line of intervals for a row without any"
    )
    assert lines[3].split() == ["95", "%", "43.0..48.5"] and lines[2].split() == ["all", "45.2", "12", "0.50"]
    assert lines[4].split() == ["hall", "3.5", "3", "-"]


def test_csv_has_columns_for_both_ends_of_an_interval():
    head, *rows = csv.reader(TABLE.csv().splitlines())
    assert head == ["errors", "MPJPE mm", "MPJPE mm low", "MPJPE mm high", "people", "recall", "interval"]
    assert rows == [
        ["all", "45.25", "43.0", "48.5", "12.0", "0.5", SURE],
        ["hall", "3.5", "", "", "3.0", "", SURE],
        ["yard", "1.0", "", "", "2.0", "0.25", ""],
    ]


def test_json_has_the_intervals_of_every_row():
    found = json.loads(json.dumps(TABLE.to_json(), allow_nan=False))
    assert found["rows"]["all"] == [45.25, 12, 0.5] and found["rows"]["hall"] == [3.5, 3, None]
    ends = {"low": 43.0, "high": 48.5, "clusters": 40, "label": SURE}
    assert found["intervals"] == {"all": [ends, None, None], "hall": [{**ends, "low": None, "high": None,
                                                                       "clusters": 1}, None, None]}  # fmt: skip


def test_a_table_without_intervals_has_no_columns_for_them():
    plain = Table("n", "t", (("x", ".1f"),), {"a": [1.0]})
    assert (
        plain.csv() == "n,x\na,1.0\n" and plain.text() == "t\n       x\n  a  1.0" and plain.to_json()["intervals"] == {}
    )
    with pytest.raises(AssertionError):
        Table("n", "t", (("x", ".1f"),), {"a": [1.0]}, intervals={"b": [None]})

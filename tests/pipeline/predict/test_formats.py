"""Tables and page: what they hold is what the JSON files hold; they are whole, own, or absent."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.infra.columns import read_columns
from pipeline.predict.config import PredictConfig
from pipeline.predict.own_files import is_own
from pipeline.predict.page import Thinned
from pipeline.predict.predict import predict
from pipeline.predict.tables import COLUMNS
from tests.pipeline.predict.prediction_cases import refused, write_video, written


@pytest.fixture
def config(checkpoint, photo, tmp_path):
    """A photo and a video of 4 frames, in all formats."""
    video = write_video(tmp_path / "walk.mp4")
    formats = ("json", "csv", "parquet", "overlay", "top", "html")
    return PredictConfig((str(photo), str(video)), str(checkpoint), str(tmp_path / "out"), formats=formats)


def test_tables_have_a_row_for_each_joint_of_each_person_with_the_numbers_of_the_json(config, photo, tmp_path):
    assert predict(config) == 0
    out = tmp_path / "out"
    assert {"people.csv", "people.parquet", "people.html"} < set(written(out))
    values = [json.loads((out / f"{photo.stem}.json").read_text())]
    values += [json.loads(line) for line in (out / "walk.jsonl").read_text().splitlines()]
    columns = read_columns(out / "people.parquet")
    assert list(columns) == list(COLUMNS)
    expected = [
        (value.get("photo", value.get("video")), value.get("frame", 0), i, joint, *person["joints_cam"][k])
        for value in values
        for i, person in enumerate(value["people"])
        for k, joint in enumerate(value["joint_names"])
    ]
    assert len(expected) == 5 * 3 * 14
    names = ("file", "frame", "person", "joint", "x_mm", "y_mm", "z_mm")
    assert list(zip(*(columns[name] for name in names), strict=True)) == expected
    assert columns["time_ms"][0] is None and columns["time_ms"][-1] == pytest.approx(250, abs=0.01)
    assert set(columns["camera_source"]) == {"assumed"} and columns["focal_px"][0] == values[0]["camera"]["focal_px"]
    with (out / "people.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {name: kind for name, (kind, _) in COLUMNS.items()}
    assert [[kinds[n](row[n]) if row[n] else None for n in COLUMNS] for row in rows] == [
        list(row) for row in zip(*columns.values(), strict=True)
    ]
    about = json.loads(pq.read_schema(out / "people.parquet").metadata[b"about"])
    assert set(about["columns"]) == set(COLUMNS)


def test_only_the_formats_that_are_asked_for_are_written_and_own_ones_replaced(config, tmp_path):
    for formats, names in (
        (("csv",), ["people.csv"]),
        (("top",), ["00_16_0001_top.png", "people.csv", "walk_top.mp4"]),
        (("parquet", "html", "csv"), ["people.html", "people.parquet"]),
    ):
        assert predict(replace(config, formats=formats)) == 0
        assert set(names) <= set(written(tmp_path / "out"))
    assert len(written(tmp_path / "out")) == 5 and all(is_own(path) for path in (tmp_path / "out").iterdir())
    for name in ("people.csv", "people.parquet", "people.html"):
        (tmp_path / "out" / name).write_text("mine")
        refused(lambda: predict(config), name, "not written by das predict")
        assert (tmp_path / "out" / name).read_text() == "mine"
        (tmp_path / "out" / name).unlink()
    refused(lambda: replace(config, formats=()), "formats = ()")


def test_a_run_that_ends_early_leaves_no_table(config, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.predict.results.write_bytes", full)
    refused(lambda: predict(config), "_overlay.jpg", "No space left on device")
    assert not [name for name in written(tmp_path / "out") if "people" in name]


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 100])
def test_a_long_video_is_thinned_evenly(count):
    kept = Thinned(6)
    for i in range(count):
        kept.add(i)
    assert kept.items == list(range(0, count, kept.step)) and len(kept.items) <= 6
    assert count <= 6 or len(kept.items) >= 3


def test_the_page_on_predict_lists_the_columns_in_the_words_of_the_table():
    page = (Path(__file__).resolve().parents[3] / "docs/predict.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE)
    assert rows[-len(COLUMNS) :] == [(name, meaning) for name, (_, meaning) in COLUMNS.items()]

"""Scores from a file, without model or cluster: what is written, and which files are refused."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from das.skeleton import COCO19
from pipeline.evaluation.predictions_file import PredictionSet
from pipeline.evaluation.score import score
from pipeline.evaluation.scores import Scores
from pipeline.infra.columns import read_lists, write_lists
from tests.pipeline.evaluation.evaluation_cases import (
    annotations_of,
    predictions_of,
    record,
    scene,
    upright_person,
)
from tests.pipeline.evaluation.rescore_cases import COLUMNS, FRAMES, das_evaluate, refused

pytestmark = pytest.mark.usefixtures("no_cluster")


def test_a_file_is_scored_again_without_model_or_cluster(place, tmp_path, capsys):
    status, out, _ = das_evaluate(
        capsys, "--predictions", place / "good.parquet", "--data", place / "prepared", "--out", tmp_path / "again"
    )
    assert status == 0 and "strict MPJPE" in out and "panoptic-smap" in out and "95 %" not in out
    assert "within these sequences only" in out, "six frames are little footage"
    results = score(annotations_of(scene(frames=FRAMES)), PredictionSet.load(place / "good.parquet"))
    report = json.loads((tmp_path / "again" / "report.json").read_text())
    assert report["metrics"] == pytest.approx({k: None if np.isnan(v) else v for k, v in results.metrics.items()})
    scores = Scores.from_json(json.loads((tmp_path / "again" / "scores.json").read_text()))
    assert scores.mpjpe_mm == results.strict.numbers()["mpjpe"] and scores.model_fingerprint == "m" * 64
    tables = {p.stem for p in (tmp_path / "again" / "tables").iterdir()}
    assert tables == {table.name for table in results.tables}
    page = (tmp_path / "again" / "report.html").read_text()
    assert f"{results.metrics['strict/mpjpe']:.1f}" in page and "worst 1" in page and "Runtime</a>" not in page
    pictures = {p.name.split("_")[0] for p in (tmp_path / "again" / "overlays").iterdir()}
    assert pictures == {"worst", "spread"}
    refused(
        capsys, "holds an evaluation already",
        argv=("--predictions", place / "good.parquet", "--data", place / "prepared", "--out", tmp_path / "again"),
    )  # fmt: skip


FAULTS = {
    "missing key": ("no row for", "1 of 6"),
    "duplicate": ("twice",),
    "NaN": ("joints_cam", "NaN"),
    "wrong joint count": ("joints_uv has 28 numbers", "wanted 30 for each of 1"),
    "external fingerprint": ("for data ffffffffffff", "panoptic/test has fingerprint"),
    "no Parquet": ("not a Parquet file",),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_refused_by_name(place, tmp_path, capsys, fault):
    file = tmp_path / "damaged.parquet"
    records = scene(frames=FRAMES)
    keys, lists, about = read_lists(place / "good.parquet", "key", COLUMNS)
    key = keys[2]
    if fault == "missing key":
        predictions = predictions_of(records[:2] + records[3:], data_fingerprint=about["data_fingerprint"])
        predictions.save(file)
    elif fault == "duplicate":
        write_lists(file, "key", [*keys[:2], keys[2], keys[2], *keys[4:]], lists, about)
    elif fault == "NaN":
        values = lists["joints_cam"].values.copy()
        values[lists["joints_cam"].lengths[:2].sum() + 7] = np.nan
        write_lists(file, "key", keys, {**lists, "joints_cam": replace(lists["joints_cam"], values=values)}, about)
    elif fault == "wrong joint count":
        one = [record([upright_person(COCO19)], frame=i) for i in range(3)]
        predictions_of(one).save(file)
        keys, lists, about = read_lists(file, "key", COLUMNS)
        lengths = np.array([30, 30, 28])
        short = replace(lists["joints_uv"], lengths=lengths, values=lists["joints_uv"].values[:88])
        write_lists(file, "key", keys, {**lists, "joints_uv": short}, about)
        key = keys[2]
    elif fault == "external fingerprint":
        write_lists(file, "key", keys, lists, {**about, "data_fingerprint": "f" * 64})
        key = "ffff"
    else:
        file.write_bytes((place / "good.parquet").read_bytes()[:-100])
        key = str(file)
    refused(capsys, key, *FAULTS[fault], argv=("--predictions", file, "--data", place / "prepared"))


def test_a_model_and_predictions_or_neither_are_refused(place, capsys):
    data = ("--data", place / "prepared")
    refused(capsys, "wanted one of the two", argv=data)
    refused(capsys, "wanted one", argv=(*data, "--model", "somewhere", "--predictions", place / "good.parquet"))
    refused(capsys, "nowhere.parquet: no such file", argv=(*data, "--predictions", place / "nowhere.parquet"))


def test_scoring_a_predictions_file_without_a_cluster_imports_no_ray():
    modules = ("pipeline.evaluation.score", "pipeline.evaluation.rescore", "pipeline.evaluation.command")
    code = f"import sys, {', '.join(modules)}; print('ray' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"

"""Predictions of other groups: the documented form, the published one, and files that are refused."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from das.skeleton import MUPOTS17
from pipeline.evaluation.external_predictions import read_external
from pipeline.evaluation.rescore import rescore
from pipeline.evaluation.score import score
from tests.pipeline.evaluation.evaluation_cases import (
    annotations_of,
    predictions_of,
    scene,
)
from tests.pipeline.evaluation.rescore_cases import FRAMES, config_of, noisy, refused, rows_of

pytestmark = pytest.mark.usefixtures("no_cluster")


def test_external_predictions_get_the_scores_of_equal_own_predictions(place, tmp_path):
    records = scene(frames=FRAMES)
    people = noisy(records)
    people[1] = people[1][:1]
    form = rows_of(records, people)
    order = np.random.default_rng(0).permutation(len(form["key"]))
    form |= {name: form[name][order] for name in ("key", "joints_cam", "score")}
    ours = score(annotations_of(records), predictions_of(records, people)).metrics
    np.savez(tmp_path / "theirs.npz", **form)
    letters = {**form, "key": form["key"].tolist(), "score": form["score"][:, None]}
    scipy.io.savemat(tmp_path / "theirs.mat", letters)
    cells = np.array(form["key"].tolist(), dtype=object)[:, None]
    scipy.io.savemat(tmp_path / "cells.mat", {**letters, "key": cells})
    for name in ("theirs.npz", "theirs.mat", "cells.mat"):
        config = config_of(place, predictions=str(tmp_path / name))
        found = rescore(config).metrics
        for metric in ("strict/mpjpe", "strict/recall", "strict/precision", "panoptic_release/mpjpe/mafia",
                       "panoptic_smap/mpjpe", "strict/mpjpe_low", "strict/recall/seq1"):  # fmt: skip
            assert found[metric] == pytest.approx(ours[metric], rel=1e-4), (name, metric)
        assert np.isnan([found["baseline/mpjpe"], found["strict/mpjpe_with_misses"]]).all(), "no mean pose is known"


def test_external_predictions_get_no_scores_file_for_promotion(place, tmp_path):
    records = scene(frames=FRAMES)
    np.savez(tmp_path / "theirs.npz", **rows_of(records, noisy(records)))
    rescore(config_of(place, predictions=str(tmp_path / "theirs.npz"), out=str(tmp_path / "out")))
    assert (tmp_path / "out" / "report.json").exists() and not (tmp_path / "out" / "scores.json").exists()
    assert "mean pose of the training data: –" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"joints": 1}, ("unknown fields ['joints']",)),
        ({"skeleton": None}, ("missing fields ['skeleton']",)),
        ({"skeleton": "mupots18"}, ("unknown joint set 'mupots18'", "mupots17")),
        ({"skeleton": "mupots17"}, ("joints_cam has shape (12, 15, 3)", "(12, 17, 3)")),
        ({"key": np.arange(12)}, ("key is int64, wanted texts",)),
        ({"score": np.ones(11)}, ("score has shape (11,), wanted (12,)",)),
        ({"score": np.full(12, np.nan)}, ("seq0", "score holds NaN")),
        ({"joints_cam": np.full((12, 15, 3), np.inf)}, ("seq0", "joints_cam holds NaN or infinity")),
        ({"joints_cam": np.full((12, 15, 3), -1.0)}, ("seq0", "depth that is not above 0")),
        ({"key": np.repeat("panoptic/seq9/00_16/00000000", 12)}, ("other images", "panoptic/seq9")),
        ({"person": np.zeros(12)}, ("seq0", "person 0 has 2 predictions")),
        ({"person": np.tile([0, 1], 6)}, ("panoptic15", "mupots17 alone")),
    ],
)
def test_a_faulty_external_file_is_refused_by_name(place, tmp_path, capsys, change, parts):
    records = scene(frames=FRAMES)
    form = {k: v for k, v in (rows_of(records, noisy(records)) | change).items() if v is not None}
    np.savez(tmp_path / "theirs.npz", **form)
    argv = ("--predictions", tmp_path / "theirs.npz", "--data", place / "prepared")
    refused(capsys, "theirs.npz", *parts, argv=argv)


def test_files_in_another_format_are_named(place, tmp_path, capsys):
    (tmp_path / "broken.npz").write_bytes(b"PK no")
    (tmp_path / "broken.mat").write_bytes(b"no")
    (tmp_path / "empty").mkdir()
    for name, part in (("broken.npz", "wanted a .npz file"), ("broken.mat", "wanted a .mat file"),
                       ("empty", "no MuPots_TS"), ("nothing.mat", "no such file")):  # fmt: skip
        argv = ("--predictions", tmp_path / name, "--data", place / "prepared")
        refused(capsys, name, part, argv=argv)


def test_padding_rows_of_the_published_form_are_skipped(tmp_path):
    data = np.full((3, 2, 3, 17), 1e5)
    data[0, 0], data[1] = 1.0, 2.0
    scipy.io.savemat(tmp_path / "MuPots_TS7_camCentric.mat", {"data": data})
    found = read_external(str(tmp_path))
    assert found.keys.tolist() == [f"mupots/TS7/0/{i:08d}" for i in (0, 1, 1)]
    assert found.person.tolist() == [0, 0, 1] and found.padded


def test_the_documented_example_can_be_read(tmp_path):
    """The example of docs/evaluation.md, as it is printed there."""
    text = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    exec(code.replace("theirs.npz", str(tmp_path / "theirs.npz")), {"np": np, "poses": np.ones((1, 17, 3))})
    found = read_external(str(tmp_path / "theirs.npz"))
    assert found.skeleton == MUPOTS17 and found.keys.tolist() == ["mupots/TS1/0/00000000"]

"""Scores without a model: this project's files, mutilated ones, comparisons, and predictions of other groups."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from das.skeleton import COCO17, COCO19, MUPOTS17, PANOPTIC15
from pipeline.cli import main
from pipeline.evaluation.comparison import differences, verdict
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.external_predictions import read_external
from pipeline.evaluation.predictions_file import PredictionSet
from pipeline.evaluation.rescore import rescore
from pipeline.evaluation.score import score
from pipeline.evaluation.scores import Scores
from pipeline.infra.columns import read_lists, write_lists
from tests.pipeline.evaluation.evaluation_cases import (
    annotations_of,
    joints_as,
    predictions_of,
    record,
    scene,
    standing,
    write_prepared,
)

FRAMES = 6
COLUMNS = ("scores", "joints_uv", "joints_cam")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.setattr("pipeline.infra.cluster.connect", lambda _: pytest.fail("Ray was started for nothing"))


def noisy(records, skeleton=PANOPTIC15, mm=40.0, seed=0):
    rng = np.random.default_rng(seed)
    return [people + rng.normal(0, mm, people.shape) for people in joints_as(records, skeleton)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Prepared images, predictions of a good and of a bad model for them."""
    folder = tmp_path_factory.mktemp("rescore")
    records = scene(frames=FRAMES)
    write_prepared(folder / "prepared", records)
    predictions_of(records, noisy(records)).save(folder / "good.parquet")
    predictions_of(records, noisy(records, mm=90, seed=1), model_fingerprint="n" * 64).save(folder / "bad.parquet")
    return folder


def config_of(place, predictions="good.parquet", **changes):
    return EvaluateConfig(data=(str(place / "prepared"),), predictions=str(place / predictions), **changes)


def das_evaluate(capsys, *argv):
    """Exit status and what stood on standard output and standard error."""
    try:
        main(["evaluate", *map(str, argv)])
        status = 0
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def refused(capsys, *parts, argv):
    status, out, err = das_evaluate(capsys, *argv)
    assert status == 2 and not out and err.startswith("das: ") and err.count("\n") == 1, err
    assert all(part in err for part in parts), err


# ---- this project's own files ----


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
    assert scores.mpjpe_mm == results.strict.mpjpe and scores.model_fingerprint == "m" * 64
    tables = {p.stem for p in (tmp_path / "again" / "tables").iterdir()}
    assert tables == {table.name for table in results.tables}
    page = (tmp_path / "again" / "report.html").read_text()
    assert f"{results.strict.mpjpe:.1f}" in page and "worst 1" in page and "Runtime</a>" not in page
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
def test_a_mutilated_file_is_refused_by_name(place, tmp_path, capsys, fault):
    file = tmp_path / "mutilated.parquet"
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
        one = [record([standing(COCO19)], frame=i) for i in range(3)]
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


# ---- two models ----


def test_two_models_are_compared_on_the_same_blocks(place, capsys):
    files = ("--predictions", place / "good.parquet", "--compare", place / "bad.parquet")
    status, out, _ = das_evaluate(capsys, *files, "--data", place / "prepared")
    assert status == 0 and "surely smaller" in out
    found = rescore(config_of(place, compare=str(place / "bad.parquet")))
    table = {t.name: t for t in found.tables}["comparison"]
    this, other, difference, lower, equal, higher = table.rows["strict/mpjpe"]
    assert difference == pytest.approx(this - other) and difference < -30
    assert (lower, equal, higher) == (2, 0, 0)
    (interval,) = [i for i in table.intervals["strict/mpjpe"] if i is not None]
    assert interval.low < difference < interval.high < 0 and interval.signs == {"seq0": -1, "seq1": -1}
    assert found.metrics["compare/strict/mpjpe_high"] == interval.high
    assert {"panoptic_release/mpjpe", "panoptic_smap/recall"} <= table.rows.keys()
    bad = rescore(config_of(place, "bad.parquet"))
    assert (this, other) == (found.metrics["strict/mpjpe"], bad.metrics["strict/mpjpe"])


def test_models_of_different_joint_sets_are_compared_in_the_joints_that_both_predict(place, tmp_path):
    records = scene(frames=FRAMES)
    joints = tuple(joint for joint in PANOPTIC15.joints if joint != "head")
    small = replace(PANOPTIC15, name="small", joints=joints, bones=PANOPTIC15.bones[1:])
    people = noisy(records)
    fewer = [np.delete(joints, PANOPTIC15.index("head"), axis=1) for joints in people]
    # Another mean pose would give a missed person another price.
    predictions_of(records, fewer, small, mean_pose=((9.0, 9.0, 9.0),) * len(small)).save(tmp_path / "small.parquet")
    table = {t.name: t for t in rescore(config_of(place, compare=str(tmp_path / "small.parquet"))).tables}
    for name in ("strict/mpjpe", "strict/mpjpe_with_misses", "strict/recall"):
        assert table["comparison"].rows[name][2] == pytest.approx(0, abs=1e-6), name
    other = replace(small, root=("neck",))
    predictions_of(records, fewer, other).save(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"panoptic15 \(root mid_hip\) and small \(root neck\) have 14 joints"):
        rescore(config_of(place, compare=str(tmp_path / "other.parquet")))


def test_a_model_does_not_differ_from_itself(place):
    found = rescore(config_of(place, compare=str(place / "good.parquet")))
    table = {t.name: t for t in found.tables}["comparison"]
    for name, row in table.rows.items():
        assert row[2] == 0 and row[3] == row[5] == 0, name


def test_only_what_is_alike_is_compared(place, tmp_path):
    records = scene(frames=FRAMES)
    mine = annotations_of(records)
    honest = score(mine, predictions_of(records, noisy(records)))
    fitted = score(mine, predictions_of(records, noisy(records), train_fit=True))
    with pytest.raises(ValueError, match="the other model was trained on some of these images"):
        differences(honest, fitted)
    predictions_of(scene(frames=4)).save(tmp_path / "fewer.parquet")
    with pytest.raises(ValueError, match="the predictions are for data"):
        rescore(config_of(place, compare=str(tmp_path / "fewer.parquet")))


# ---- other groups ----


def rows_of(records, people, skeleton=PANOPTIC15):
    """The documented form of these predictions, one (n, J, 3) array per record."""
    counts = [len(p) for p in people]
    return {
        "key": np.repeat([r.key for r in records], counts),
        "joints_cam": np.concatenate(people),
        "skeleton": skeleton.name,
        "score": np.linspace(0.1, 0.9, sum(counts)),
    }


def test_predictions_of_another_group_are_scored_like_our_own(place, tmp_path):
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


def test_scores_of_another_group_pass_no_gate(place, tmp_path):
    records = scene(frames=FRAMES)
    np.savez(tmp_path / "theirs.npz", **rows_of(records, noisy(records)))
    rescore(config_of(place, predictions=str(tmp_path / "theirs.npz"), out=str(tmp_path / "out")))
    assert (tmp_path / "out" / "report.json").exists() and not (tmp_path / "out" / "scores.json").exists()
    assert "mean pose of the training data: –" in (tmp_path / "out" / "report.html").read_text()


def test_our_model_is_compared_with_another_groups(place, tmp_path):
    records = scene(frames=FRAMES)
    np.savez(tmp_path / "theirs.npz", **rows_of(records, noisy(records, mm=90)))
    found = rescore(config_of(place, compare=str(tmp_path / "theirs.npz")))
    assert found.metrics["compare/strict/mpjpe_high"] < 0
    rows = {t.name: t for t in found.tables}["comparison"].rows
    assert "strict/root_error" in rows and "strict/mpjpe_with_misses" in rows, "a miss costs both our mean pose's error"
    turned = rescore(config_of(place, str(tmp_path / "theirs.npz"), compare=str(place / "good.parquet")))
    assert "compare/strict/mpjpe_with_misses" not in turned.metrics, "nobody knows their mean pose"
    assert verdict(turned).startswith("error over")


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
def test_a_faulty_foreign_file_is_refused_by_name(place, tmp_path, capsys, change, parts):
    records = scene(frames=FRAMES)
    form = {k: v for k, v in (rows_of(records, noisy(records)) | change).items() if v is not None}
    np.savez(tmp_path / "theirs.npz", **form)
    argv = ("--predictions", tmp_path / "theirs.npz", "--data", place / "prepared")
    refused(capsys, "theirs.npz", *parts, argv=argv)


def test_files_that_are_no_predictions_are_named(place, tmp_path, capsys):
    (tmp_path / "broken.npz").write_bytes(b"PK no")
    (tmp_path / "broken.mat").write_bytes(b"no")
    (tmp_path / "empty").mkdir()
    for name, part in (("broken.npz", "wanted a .npz file"), ("broken.mat", "wanted a .mat file"),
                       ("empty", "no MuPots_TS"), ("nothing.mat", "no such file")):  # fmt: skip
        argv = ("--predictions", tmp_path / name, "--data", place / "prepared")
        refused(capsys, name, part, argv=argv)


# ---- predictions paired with people ----


def mupots(frames=4):
    records = scene(MUPOTS17, frames, source="mupots", activity="")
    for r in records:
        r.joints_cam_univ = (r.joints_cam * np.float32(1.1)).astype(np.float32)
    return records


def paired(records, people, valid_only=True):
    """The documented form with the place of each person among the valid ones of the image."""
    form = rows_of(records, people, MUPOTS17)
    person = np.concatenate([np.arange(len(p)) for p in people])
    return {**form, "person": person}


def test_paired_predictions_are_scored_as_they_are_paired(tmp_path):
    """Two people swapped stay wrong, as their group paired them; a person without prediction is missed."""
    records = mupots()
    records[3].valid[0] = False
    people = joints_as(records, MUPOTS17)
    people[3] = people[3][1:]
    people[0] = people[0][::-1]
    form = paired(records, people)
    form = {k: v if k == "skeleton" else v[:-1] for k, v in form.items()}  # nobody is predicted on the last image
    np.savez(tmp_path / "theirs.npz", **form)
    write_prepared(tmp_path / "prepared", records)
    config = EvaluateConfig(data=(str(tmp_path / "prepared"),), predictions=str(tmp_path / "theirs.npz"))
    found = rescore(config).metrics
    assert found["mupots_paired/pck_abs_all/seq0"] == pytest.approx(50), "swapped on one image of two"
    assert found["mupots_paired/pck_abs_all/seq1"] == pytest.approx(200 / 3), "one of three valid people is missed"
    assert found["mupots_paired/pck_abs_matched/seq1"] == pytest.approx(100)
    assert found["mupots_paired_univ/pck_abs_matched/seq1"] == 0, "400 mm nearer than the universal skeleton"
    assert found["mupots_paired/pck_abs_all"] == pytest.approx((50 + 200 / 3) / 2)


def test_a_person_who_is_not_annotated_is_named(tmp_path, capsys):
    records = mupots()
    write_prepared(tmp_path / "prepared", records)
    form = paired(records, joints_as(records, MUPOTS17))
    form["person"][3] = 2
    np.savez(tmp_path / "theirs.npz", **form)
    argv = ("--predictions", tmp_path / "theirs.npz", "--data", tmp_path / "prepared")
    refused(capsys, records[1].key, "person = 2, wanted 0 to 1", argv=argv)
    refused(capsys, "paired with people", argv=(*argv, "--compare", tmp_path / "theirs.npz"))


PUBLISHED = [70.97, 37.18, 55.77, 18.62, 57.20, 37.29, 39.90, 79.54, 76.02, 78.94]


def test_published_predictions_get_their_published_scores_from_the_command_line(das_data, tmp_path, capsys):
    """Cheng et al. (2021) on the owners' annotation files: no model, no images."""
    argv = ("--predictions", das_data / "mupots" / "predictions_cheng2021", "--data", das_data / "mupots")
    status, out, _ = das_evaluate(capsys, *argv, "--out", tmp_path / "cheng")
    assert status == 0
    found = json.loads((tmp_path / "cheng" / "report.json").read_text())["metrics"]
    for i, wanted in enumerate(PUBLISHED):
        assert found[f"mupots_paired/pck_abs_all/TS{i + 1}"] == pytest.approx(wanted, abs=0.01)
        assert f"{wanted:.2f}" in out
    assert found["mupots_paired/pck_abs_all"] == pytest.approx(55.14, abs=0.01)
    assert found["mupots_paired_univ/pck_abs_all"] == pytest.approx(51.15, abs=0.01)
    assert found["mupots_paired/pck_rel_all"] == pytest.approx(91.67, abs=0.01)
    assert found["mupots_paired/pck_abs_all_low"] < 55 < found["mupots_paired/pck_abs_all_high"]


def test_padding_of_the_published_form_is_no_mistake(tmp_path):
    data = np.full((3, 2, 3, 17), 1e5)
    data[0, 0], data[1] = 1.0, 2.0
    scipy.io.savemat(tmp_path / "MuPots_TS7_camCentric.mat", {"data": data})
    found = read_external(str(tmp_path))
    assert found.keys.tolist() == [f"mupots/TS7/0/{i:08d}" for i in (0, 1, 1)]
    assert found.person.tolist() == [0, 0, 1] and found.padded


# ---- images annotated in 2D alone ----


def flat_scene():
    return [replace(r, joints_cam=None, K=None) for r in scene(COCO17, FRAMES, source="coco")]


def flat_predictions(records, off=0.0):
    """Perfect joints in the image, in a joint set without eyes and ears."""
    in_3d = scene(COCO17, FRAMES, source="coco")
    found = predictions_of(in_3d, joints_as(in_3d, PANOPTIC15))
    provenance = replace(found.provenance, data_fingerprint=annotations_of(records).fingerprint)
    return replace(found, provenance=provenance, joints_uv=found.joints_uv + off)


def test_images_without_depth_get_cocos_average_precision(tmp_path, capsys):
    records = flat_scene()
    write_prepared(tmp_path / "prepared", records)
    flat_predictions(records).save(tmp_path / "perfect.parquet")
    flat_predictions(records, off=200).save(tmp_path / "far.parquet")
    argv = ("--data", tmp_path / "prepared", "--predictions")
    status, out, _ = das_evaluate(capsys, *argv, tmp_path / "perfect.parquet")
    assert status == 0 and "13 of 17 joints" in out and "not predicted: l_eye, r_eye, l_ear, r_ear" in out
    for name, wanted in (("perfect", 1.0), ("far", 0.0)):
        config = EvaluateConfig(data=(str(tmp_path / "prepared"),), predictions=str(tmp_path / f"{name}.parquet"))
        found = rescore(config).metrics
        assert found["oks/ap"] == pytest.approx(wanted) and found["oks/people"] == 2 * FRAMES
    other = ("--compare", tmp_path / "far.parquet")
    refused(capsys, "2D only", argv=(*argv, tmp_path / "perfect.parquet", *other))


def test_the_documented_example_can_be_read(tmp_path):
    """The example of docs/evaluation.md, as it stands there."""
    text = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    exec(code.replace("theirs.npz", str(tmp_path / "theirs.npz")), {"np": np, "poses": np.ones((1, 17, 3))})
    found = read_external(str(tmp_path / "theirs.npz"))
    assert found.skeleton == MUPOTS17 and found.keys.tolist() == ["mupots/TS1/0/00000000"]

"""Predictions that are paired with people: MuPoTS-3D, from prepared data and from the owners' files."""

import json

import numpy as np
import pytest

from das.skeleton import MUPOTS17
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.rescore import rescore
from tests.pipeline.evaluation.evaluation_cases import (
    joints_as,
    write_prepared,
)
from tests.pipeline.evaluation.rescore_cases import das_evaluate, mupots, paired, refused

pytestmark = pytest.mark.usefixtures("no_cluster")


def test_paired_predictions_are_scored_in_the_given_pairs(tmp_path):
    """Two swapped people stay wrong, since the given pairs are kept; a person without prediction is missed."""
    records = mupots()
    records[3].valid[0] = False
    people = joints_as(records, MUPOTS17)
    people[3] = people[3][1:]
    people[0] = people[0][::-1]
    form = paired(records, people)
    form = {k: v if k == "skeleton" else v[:-1] for k, v in form.items()}  # no prediction on the last image
    np.savez(tmp_path / "theirs.npz", **form)
    write_prepared(tmp_path / "prepared", records)
    config = EvaluateConfig(data=(str(tmp_path / "prepared"),), predictions=str(tmp_path / "theirs.npz"))
    found = rescore(config).metrics
    assert found["mupots_paired/pck_abs_all/seq0"] == pytest.approx(50), "swapped on one image of two"
    assert found["mupots_paired/pck_abs_all/seq1"] == pytest.approx(200 / 3), "one of three valid people is missed"
    assert found["mupots_paired/pck_abs_matched/seq1"] == pytest.approx(100)
    assert found["mupots_paired_univ/pck_abs_matched/seq1"] == 0, "400 mm nearer than the universal skeleton"
    assert found["mupots_paired/pck_abs_all"] == pytest.approx((50 + 200 / 3) / 2)


def test_a_person_index_beyond_the_annotated_people_is_refused(tmp_path, capsys):
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

"""Coverage of doubt on prepared data: the numbers of das/metrics/coverage.py, and none without a calibration."""

from dataclasses import replace

import numpy as np
import pytest

from das.metrics.coverage import coverage, raw_coverage, residuals
from das.skeleton import PANOPTIC15
from das.uncertainty import LEVELS, ROOT, Calibration, joint_groups
from pipeline.evaluation.predictions_file import PredictionFile, PredictionSet
from pipeline.evaluation.score import score
from pipeline.evaluation.scored import Scored
from tests.pipeline.evaluation.evaluation_cases import annotations_of, joints_as, predictions_of, scene

RECORDS = scene(frames=40)
GROUPS = [name for name in joint_groups(PANOPTIC15) if name]


def predicted() -> PredictionSet:
    """Two people an image, with Laplace errors of a scale of their own, and a calibration on as many others."""
    rng = np.random.default_rng(0)
    true = joints_as(RECORDS, PANOPTIC15)
    sigma = [rng.uniform(5, 60, (*p.shape[:2], 1)) for p in true]
    people = [p + rng.laplace(size=p.shape) * s for p, s in zip(true, sigma, strict=True)]
    held_out = {name: np.abs(rng.laplace(size=300)) for name in GROUPS} | {ROOT: rng.uniform(0, 0.02, 300)}
    scales = np.concatenate(sigma)[:, :, 0] * np.sqrt(3)
    given = predictions_of(RECORDS, people, calibration=Calibration.fit(held_out, True))
    return replace(given, scales=scales)


def test_numbers_are_those_of_all_people_at_once():
    predictions = predicted()
    found = score(annotations_of(RECORDS), predictions)
    scored = Scored.of(annotations_of(RECORDS), predictions)
    whole = residuals(scored.truth, scored.people, scored.strict, PANOPTIC15.root_indices)
    calibration = predictions.provenance.calibration
    (table,) = (table for table in found.tables if table.name == "strict_doubt")
    for column, level in enumerate((0.5, 0.8, 0.9, 0.95)):
        shares, raw = coverage(calibration, whole, PANOPTIC15, level), raw_coverage(whole, PANOPTIC15, level)
        assert set(shares) == {*GROUPS, ROOT}
        for name, share in shares.items():
            assert found.metrics[f"strict/coverage_{100 * level:.0f}/{name}"] == pytest.approx(share)
            assert table.rows[name][column] == pytest.approx(share)
            assert table.rows[name][4 + column] == pytest.approx(raw.get(name, np.nan), nan_ok=True)
        inside = np.concatenate(
            [
                scores <= calibration.radius(name, level)
                for name, scores in whole.scores(PANOPTIC15).items()
                if name != ROOT
            ]
        )
        assert found.metrics[f"strict/coverage_{100 * level:.0f}"] == pytest.approx(inside.mean())
    radii = calibration.joint_radii(whole.scales, PANOPTIC15, 0.9)[whole.counted]
    assert found.metrics["strict/p90_mm"] == pytest.approx(radii.mean())
    wrists = np.array([group == "wrist" for group in joint_groups(PANOPTIC15)])
    radii = calibration.joint_radii(whole.scales, PANOPTIC15, 0.9)[:, wrists][whole.counted[:, wrists]]
    assert found.metrics["strict/p90_mm/wrist"] == pytest.approx(radii.mean())


def test_errors_of_the_priors_own_form_are_covered_by_raw_radii_and_the_curve_is_drawn():
    found = score(annotations_of(RECORDS), predicted())
    raw = found.strict.doubt.curve(found.strict.doubt.raw)
    # The root's own error moves all joints of a person, so coverage is below what independent errors have.
    assert raw == sorted(raw) and 0.2 < raw[LEVELS.index(0.5)] < raw[LEVELS.index(0.9)] < 0.95


def test_scales_come_back_from_the_file_and_without_a_calibration_there_are_neither(tmp_path):
    predictions = predicted()
    predictions.save(tmp_path / "with.parquet")
    for again in (PredictionSet.load(tmp_path / "with.parquet"), PredictionFile.open(str(tmp_path / "with.parquet"))):
        assert again.provenance == predictions.provenance
        np.testing.assert_array_equal(again.at(np.arange(40)).scales, predictions.scales.astype(np.float32))
    plain = predictions_of(RECORDS)
    plain.save(tmp_path / "without.parquet")
    again = PredictionSet.load(tmp_path / "without.parquet")
    assert again.scales is None and again.provenance.calibration is None
    found = score(annotations_of(RECORDS), again)
    assert found.strict.doubt is None and not [name for name in found.metrics if "coverage" in name or "p90" in name]

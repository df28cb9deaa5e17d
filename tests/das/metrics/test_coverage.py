"""Coverage of calibrated radii, against loops over people and against distributions that are known."""

from dataclasses import replace

import numpy as np
import pytest

from das.metrics.coverage import Residuals, coverage, raw_coverage, residuals
from das.metrics.strict import strict
from das.skeleton import PANOPTIC15
from das.uncertainty import ROOT, Calibration, joint_groups
from tests.das.metrics import metric_loops as loops

ROOT_INDEX = PANOPTIC15.root_indices
J = len(PANOPTIC15)


def people(rng, count: int, clip: float = np.inf) -> Residuals:
    """Independent Laplace errors whose scale differs from person to person, joint to joint, axis to axis alike."""
    sigma = np.repeat(rng.uniform(5, 200, (count, J, 1)), 3, axis=2)
    errors = rng.laplace(size=sigma.shape) * sigma
    depth = rng.uniform(1000, 9000, count)
    counted = rng.random((count, J)) < 0.8
    counted[:, ROOT_INDEX] = False
    root_errors = np.abs(rng.normal(size=count)) * depth / 20
    return Residuals(np.linalg.norm(errors, axis=2), np.linalg.norm(sigma, axis=2), counted, root_errors, depth)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_on_people_alike_coverage_is_the_stated_level_in_every_group(level):
    rng = np.random.default_rng(1)
    calibration = Calibration.fit(people(rng, 4000).scores(PANOPTIC15), True)
    found = coverage(calibration, people(rng, 4000), PANOPTIC15, level)
    assert set(found) == {name for name in joint_groups(PANOPTIC15) if name} | {ROOT}
    assert list(found.values()) == pytest.approx([level] * len(found), abs=0.025)


def test_the_priors_own_radii_are_right_for_its_own_errors_and_wrong_for_others():
    found = people(np.random.default_rng(2), 6000)
    for level in (0.5, 0.9):
        shares = raw_coverage(found, PANOPTIC15, level)
        assert ROOT not in shares and list(shares.values()) == pytest.approx([level] * len(shares), abs=0.02)
    twice = Residuals(2 * found.errors, found.scales, found.counted, found.root_errors, found.root_scales)
    assert max(raw_coverage(twice, PANOPTIC15, 0.9).values()) < 0.7


def test_residuals_are_those_of_the_strict_protocols_pairs():
    scene = loops.make_scene(np.random.default_rng(3), frames=6)
    scales = np.random.default_rng(4).uniform(5, 200, scene.predictions.joints_cam.shape[:2])
    predictions = replace(scene.predictions, scales=scales)
    result = strict(scene.truth, predictions, ROOT_INDEX, scene.world_mean, 0.3)
    found = residuals(scene.truth, predictions, result, ROOT_INDEX)
    (root,) = ROOT_INDEX
    expected = []
    for person, row in enumerate(result.match):
        if row < 0:
            continue
        mine, true = scene.predictions.joints_cam[row], scene.truth.joints_cam[person]
        for joint in np.flatnonzero(found.counted[len(expected)]):
            error = np.linalg.norm((mine[joint] - mine[root]) - (true[joint] - true[root]))
            assert found.errors[len(expected), joint] == pytest.approx(error)
            assert found.scales[len(expected), joint] == scales[row, joint]
        assert found.root_errors[len(expected)] == pytest.approx(np.linalg.norm(mine[root] - true[root]))
        assert found.root_scales[len(expected)] == pytest.approx(np.linalg.norm(mine[root]))
        expected.append(person)
    assert len(expected) == len(found.errors) > 3
    assert (found.errors * found.counted).sum() / found.counted.sum() == pytest.approx(result.mpjpe)

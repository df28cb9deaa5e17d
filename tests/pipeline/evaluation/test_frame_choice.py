"""Which frames an evaluation shows, and the people on them."""

import json
import re

import numpy as np
import pytest

from das.skeleton import PANOPTIC15
from pipeline.evaluation.frame_choice import chosen_frames, frame_errors, people_on_frame
from tests.pipeline.evaluation.evaluation_cases import (
    joints_as,
    predictions_of,
    scene,
)
from tests.pipeline.evaluation.report.page_cases import Case


def test_worst_frames_come_first_and_sample_frames_are_spread(panoptic):
    errors = frame_errors(panoptic.scored)
    chosen = chosen_frames(errors, panoptic.annotations.keys, 2, 3)
    kinds = {name[:8]: at for name, at in chosen.items()}
    assert kinds["spread_0"] == 3 and [at for name, at in chosen.items() if "worst" in name] == [
        *np.argsort(-errors, kind="stable")[:3]
    ]
    assert [f["key"] for f in panoptic.scene["frames"]][0] == panoptic.annotations.keys[int(np.argmax(errors))]


def test_people_on_a_frame_have_matches_and_errors(panoptic):
    here, result = people_on_frame(panoptic.scored, 0), panoptic.scored.strict
    assert len(here.people) == 1 and len(here.truth) == 2 and here.match.tolist() == [1]
    row = here.truth[1]
    assert here.errors[0] == pytest.approx(result.errors[row][result.scored[row]].mean())
    # In the other images all people are found.
    assert people_on_frame(panoptic.scored, 1).match.tolist() == [0, 1]


@pytest.mark.parametrize("found", [1, 0])
def test_missed_people_make_the_worst_frame_also_without_a_mean_pose(tmp_path, found):
    records = scene(frames=3)
    people = joints_as(records, PANOPTIC15)
    people = [people[0], people[1][:found], people[2]] if found else [joints[:0] for joints in people]
    case = Case(tmp_path, records, predictions_of(records, people, mean_pose=None))
    assert np.isfinite(frame_errors(case.scored)).all()
    (worst,) = (name for name in case.pictures if name.startswith("worst"))
    assert found == 0 or records[1].key.replace("/", "-").replace("_", "-") in worst
    pasted = re.search(r'id="scene-data">(.*?)</script>', case.html, re.DOTALL)[1]
    assert json.loads(pasted, parse_constant=pytest.fail)["frames"] and "nan mm" not in case.html

"""Sampled body measures."""

import numpy as np

from pipeline.studio.motion import stand
from pipeline.studio.person import sample_person


def test_measures_are_in_the_human_range():
    people = [sample_person(np.random.default_rng(seed)) for seed in range(300)]
    statures = np.array([p.stature for p in people])
    assert 160 < statures.mean() < 178 and 5 < statures.std() < 14
    for p in people:
        t = np.zeros(1)
        pose = stand(np.random.default_rng(0), p, t, np.zeros(2), 0.0, ("hang",)).points
        crown = pose["head"][0, 1] + p.head
        assert 0.93 < crown / p.stature < 1.05, (crown, p.stature)
        assert 0.47 < pose["mid_hip"][0, 1] / p.stature < 0.59

import numpy as np
import pytest

from das.metrics.motion import acceleration_error, identity_switches


def test_a_switch_is_a_change_of_a_persons_track_and_absence_is_none():
    frame = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    person = np.array([7, 8, 8, 7, 7, 8, 7, 8])
    steady = np.where(person == 7, 0, 1)
    assert identity_switches(frame, person, steady) == 0
    swapped = np.where(frame >= 2, 1 - steady, steady)
    assert identity_switches(frame, person, swapped) == 2
    assert identity_switches(frame, person, np.where(frame == 1, -1, steady)) == 0
    lost = np.where((frame == 3) & (person == 7), 5, np.where(frame == 2, -1, steady))
    assert identity_switches(frame, person, lost) == 1
    order = np.random.default_rng(0).permutation(8)
    assert identity_switches(frame[order], person[order], swapped[order]) == 2
    assert identity_switches(frame[:0], person[:0], steady[:0]) == 0


def test_acceleration_error_is_that_of_a_known_motion_and_leaves_out_what_is_unknown():
    t = np.arange(20) / 30
    still = np.zeros((20, 2, 3))
    falling = still.copy()
    falling[:, 0, 1] = 1000 * 9.81 / 2 * t**2  # mm
    known = np.ones((20, 2), bool)
    assert acceleration_error([falling], [still], 1 / 30, [known]) == pytest.approx(9.81 / 2)
    assert acceleration_error([falling + 5 * t[:, None, None]], [still], 1 / 30, [known]) == pytest.approx(9.81 / 2)
    known[:, 1] = False
    assert acceleration_error([falling, still], [still, still], 1 / 30, [known, known]) == pytest.approx(9.81 / 2)
    broken = falling.copy()
    broken[10] = 1e6
    known[10] = False
    assert acceleration_error([broken], [still], 1 / 30, [known]) == pytest.approx(9.81)
    assert np.isnan(acceleration_error([falling[:2]], [still[:2]], 1 / 30, [known[:2]]))

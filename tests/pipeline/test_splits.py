"""Split manifests: what is held out from what, which frames are taken, and that a change changes the name."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import splits
from pipeline.splits import COCO, MUCO, MUPOTS, PANOPTIC, Part, SplitManifest


def sequences(manifest, split):
    return {part.sequence for part in manifest.of(split)}


def test_committed_manifests_change_only_on_purpose():
    # Every prepared data set and every number carries these; a new hash is a new benchmark.
    assert [m.id for m in (PANOPTIC, MUPOTS, MUCO, COCO)] == [
        "panoptic@0997e129b049",
        "mupots@0abb6b11ca8e",
        "muco@2cb588691a3c",
        "coco@eeb8cc8eb571",
    ]


def test_panoptic_holds_one_training_sequence_out_and_keeps_test_apart():
    train, val, test = (sequences(PANOPTIC, s) for s in ("train", "val", "test"))
    assert val == {"160224_mafia2"} and not val & train and not test & (train | val)
    assert train | val == {
        "160224_haggling1", "160226_mafia2", "160224_mafia1", "160224_mafia2", "160224_ultimatum1",
        "160224_ultimatum2",
    }  # fmt: skip
    activities = {s: {part.activity for part in PANOPTIC.of(s)} for s in ("train", "val", "test")}
    assert activities["test"] - activities["train"] == {"pizza"}
    assert activities["test"] == {"haggling", "mafia", "ultimatum", "pizza"}


def test_test_frames_are_shared_by_the_sequences_and_cameras_of_an_activity():
    frames = list(range(1000, 9000))
    taken = {part.sequence: PANOPTIC.select(part, frames) for part in PANOPTIC.of("test")}
    assert {s: len(f) for s, f in taken.items()} == {
        "160226_haggling1": 600, "160422_haggling1": 600, "160226_mafia1": 600, "160422_mafia2": 600,
        "160422_ultimatum1": 1200, "160906_pizza1": 1200,
    }  # fmt: skip
    for chosen in taken.values():
        assert chosen[0] == 1000 and chosen[-1] == 8999
        assert set(np.diff(chosen)) <= {6, 7, 13, 14}


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=60).map(sorted), st.integers(1, 80))
def test_any_number_of_frames_can_be_spread(frames, wanted):
    manifest = SplitManifest("m", (Part("s", "test", "a"),), test_frames=wanted)
    taken = manifest.select(manifest.parts[0], frames)
    assert len(taken) == min(len(frames), wanted) and set(taken) <= set(frames) and sorted(set(taken)) == list(taken)


@given(st.integers(0, 200), st.floats(0.01, 0.99), st.integers(1, 5))
def test_adjoining_parts_share_nothing_and_miss_nothing(n, at, step):
    parts = (Part("s", "train", stop=at), Part("s", "val", start=at))
    taken = [SplitManifest("m", parts).select(part, range(n)) for part in parts]
    assert [*taken[0], *taken[1]] == list(range(n))
    stepped = SplitManifest("m", parts, step=step).select(parts[0], range(n))
    assert stepped == tuple(range(0, len(taken[0]), step))


def test_the_identity_follows_every_choice():
    changes = {"step": 3, "test_frames": 100, "cameras": ("00_00",), "parts": PANOPTIC.parts[1:], "name": "x"}
    ids = {replace(PANOPTIC, **{name: value}).id for name, value in changes.items()} | {PANOPTIC.id}
    assert len(ids) == len(changes) + 1
    assert PANOPTIC.id == replace(PANOPTIC, step=2).id


@pytest.mark.parametrize(("name", "value"), [("step", 0), ("test_frames", 0)])
def test_nonsense_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} = 0"):
        SplitManifest("m", (), **{name: value})


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split = 'dev', wanted one of train, val, test"):
        COCO.of("dev")
    assert splits.SPLITS == ("train", "val", "test")

"""Split manifests: which frames are taken of which part, and an id that changes with every field."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import splits
from pipeline.data.sources.coco import SPLITS as COCO
from pipeline.data.sources.panoptic import SPLITS as PANOPTIC
from pipeline.data.splits import Part, SplitManifest


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


def test_a_selection_of_sequences_keeps_their_frames_and_the_id():
    wanted = ("160226_haggling1", "160224_mafia1")
    some = PANOPTIC.narrowed(wanted)
    assert some.id == PANOPTIC.id and {part.sequence for part in some.parts} == set(wanted)
    assert not some.of("val") and [part.sequence for part in some.of("test")] == ["160226_haggling1"]
    (part,) = some.of("test")
    taken = some.select(part, range(5000))
    assert taken == PANOPTIC.select(part, range(5000)) and len(taken) == 600, "the other haggling keeps its share"
    assert some.narrowed(wanted[:1], ("test",)).id == PANOPTIC.id == PANOPTIC.narrowed(()).id
    assert SplitManifest.from_json(json.loads(json.dumps(some.to_json()))) == PANOPTIC
    other = replace(some, cameras=("00_00",))
    assert other.id == replace(PANOPTIC, cameras=("00_00",)).id != PANOPTIC.id
    with pytest.raises(ValueError, match="sequences: found pizza, wanted some of 160224_haggling1, "):
        PANOPTIC.narrowed(("pizza",))


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=60).map(sorted), st.integers(1, 80))
def test_test_frames_are_distinct_and_ordered_for_any_number_of_frames(frames, wanted):
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


def test_the_id_changes_with_every_field():
    changes = {"step": 3, "test_frames": 100, "cameras": ("00_00",), "parts": PANOPTIC.parts[1:], "name": "x"}
    ids = {replace(PANOPTIC, **{name: value}).id for name, value in changes.items()} | {PANOPTIC.id}
    assert len(ids) == len(changes) + 1
    assert PANOPTIC.id == replace(PANOPTIC, step=2).id


@pytest.mark.parametrize(("name", "value"), [("step", 0), ("test_frames", 0)])
def test_values_below_1_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} = 0"):
        SplitManifest("m", (), **{name: value})


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split = 'dev', wanted one of train, val, test"):
        COCO.of("dev")
    assert splits.SPLITS == ("train", "val", "test")


def test_a_file_puts_every_frame_into_one_split_only():
    parts = (Part("a", "train", stop=0.6), Part("a", "test", start=0.5))
    with pytest.raises(ValueError, match="a is in train and in test, wanted every frame once"):
        SplitManifest.from_json(json.loads(json.dumps(SplitManifest("x", parts).to_json())))
    adjoining = SplitManifest("x", (replace(parts[0], stop=0.5), parts[1]))
    assert SplitManifest.from_json(json.loads(json.dumps(adjoining.to_json()))) == adjoining


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a/b", ".hidden", "a\n", "~", "a" * 201])
def test_names_of_sequences_and_cameras_cannot_lead_out_of_the_data(name):
    with pytest.raises(ValueError, match="split manifest: sequence: found .*, wanted 1 to 200 letters"):
        SplitManifest.from_json({"name": "mine", "parts": [{"sequence": name, "split": "train"}]})
    with pytest.raises(ValueError, match="split manifest: cameras: found .*, wanted 1 to 200 letters"):
        replace(PANOPTIC, cameras=(name,))

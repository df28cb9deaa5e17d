"""Split manifests: what is held out from what, which frames are taken, and that a change changes the name."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import splits
from pipeline.data.splits import (
    COCO,
    MANIFESTS,
    MUCO_RELEASE,
    PANOPTIC,
    PANOPTIC_RELEASE,
    PANOPTIC_SMAP,
    Part,
    SplitManifest,
    read_splits,
)


def sequences(manifest, split):
    return {part.sequence for part in manifest.of(split)}


def test_committed_manifests_change_only_on_purpose():
    # Every prepared data set and every number carries these; a new hash is a new benchmark.
    assert [m.id for m in MANIFESTS.values()] == [
        "panoptic@0997e129b049",
        "panoptic-release@cb0e2b476184",
        "panoptic-smap@ab19b80173b7",
        "mupots@0abb6b11ca8e",
        "muco@2cb588691a3c",
        "muco-release@7c2ef4bc941b",
        "coco@eeb8cc8eb571",
        "mpi_inf_3dhp@af8e1f0e57b9",
        "custom@4ba6305de286",
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


def test_some_sequences_are_the_same_frames_of_the_same_split():
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


def test_the_release_trains_on_six_sequences_and_holds_none_out():
    assert sequences(PANOPTIC_RELEASE, "train") == sequences(PANOPTIC, "train") | sequences(PANOPTIC, "val")
    assert sequences(PANOPTIC_RELEASE, "test") == sequences(PANOPTIC, "test") and not PANOPTIC_RELEASE.of("val")
    assert (PANOPTIC_RELEASE.step, PANOPTIC_RELEASE.cameras) == (2, ("00_16", "00_30"))
    assert {part.sequence: (part.start, part.stop) for part in MUCO_RELEASE.of("train")} == {
        "unaugmented_set": (0, 1),
        "augmented_set": (0, 1),
    }


def test_smap_tests_on_another_ultimatum_and_validates_on_the_releases_mafia():
    assert sequences(PANOPTIC_SMAP, "train") == sequences(PANOPTIC_RELEASE, "train")
    assert sequences(PANOPTIC_SMAP, "val") == {"160422_mafia2"}
    difference = sequences(PANOPTIC_SMAP, "test") ^ sequences(PANOPTIC_RELEASE, "test")
    assert difference == {"160226_ultimatum1", "160422_mafia2"}


@pytest.mark.parametrize("manifest", [PANOPTIC, PANOPTIC_RELEASE, PANOPTIC_SMAP], ids=lambda m: m.name)
def test_every_activity_is_tested_on_2400_frames(manifest):
    counted = {}
    for part in manifest.of("test"):
        frames = len(manifest.select(part, range(20_000))) * len(manifest.cameras)
        counted[part.activity] = counted.get(part.activity, 0) + frames
    assert counted == dict.fromkeys(("haggling", "mafia", "ultimatum", "pizza"), 2400)


def test_a_manifest_is_found_by_name_or_read_from_a_file(tmp_path):
    for name, manifest in MANIFESTS.items():
        assert read_splits(name) is manifest
        again = SplitManifest.from_json(json.loads(json.dumps(manifest.to_json())))
        assert again == manifest and again.id == manifest.id
    mine = tmp_path / "mine.json"
    mine.write_text('{"name": "mine", "parts": [{"sequence": "monday", "split": "train", "stop": 0.5}]}')
    assert read_splits(str(mine)) == SplitManifest("mine", (Part("monday", "train", stop=0.5),))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "found list, wanted an object"),
        ({"name": "x"}, "parts is missing"),
        ({"name": "x", "parts": []}, "parts is missing"),
        ({"parts": [{"sequence": "a", "split": "train"}]}, "name is missing"),
        ({"name": "x", "part": []}, "unknown field 'part'"),
        ({"name": "x", "parts": [3]}, r"parts\[0\]: found int"),
        ({"name": "x", "parts": [{"sequence": "a"}]}, r"parts\[0\]: split is missing"),
        ({"name": "x", "parts": [{"sequence": "a", "split": "dev"}]}, "a: split = 'dev', wanted one of train"),
        ({"name": "x", "parts": [{"sequence": "a", "split": "val", "stop": 2}]}, "a: start = 0.0, stop = 2"),
        ({"name": "x", "parts": [{"sequence": "a", "split": "val", "stop": "all"}]}, r"stop = 'all', wanted float"),
        ({"name": "x", "parts": [{"sequence": "a", "split": "val"}], "step": 0}, "step = 0"),
        ({"name": "x", "parts": [{"sequence": "a", "split": "val"}], "step": True}, "step = True, wanted int"),
        ({"name": "x", "parts": [{"sequence": "a", "split": "val"}], "cameras": [3]}, "cameras = "),
        ({"name": "x", "parts": [{"sequence": "a", "split": "val"}], "whole": []}, "unknown field 'whole'"),
        ({"name": "coco", "parts": [{"sequence": "a", "split": "val"}]}, "its name 'coco' is taken"),
    ],
)
def test_malformed_manifests_are_refused_by_file_and_field(content, reason, tmp_path):
    path = tmp_path / "splits.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=f"splits.json: .*{reason}"):
        read_splits(str(path))


def test_unknown_names_and_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="'panoptic_release' is unknown, wanted a JSON file or one of panoptic, "):
        read_splits("panoptic_release")
    with pytest.raises(ValueError, match="nothing.json: "):
        read_splits(str(tmp_path / "nothing.json"))


def test_a_file_puts_every_frame_into_one_split_only():
    parts = (Part("a", "train", stop=0.6), Part("a", "test", start=0.5))
    with pytest.raises(ValueError, match="a is in train and in test, wanted every frame once"):
        SplitManifest.from_json(json.loads(json.dumps(SplitManifest("x", parts).to_json())))
    adjoining = SplitManifest("x", (replace(parts[0], stop=0.5), parts[1]))
    assert SplitManifest.from_json(json.loads(json.dumps(adjoining.to_json()))) == adjoining

"""The list of data sources: what every source has, and its committed split manifests by name."""

import json

import pytest

from pipeline.data.catalog import CATALOG, MANIFESTS, read_splits
from pipeline.data.doctor import DoctorConfig
from pipeline.data.prepare.convert import ConvertConfig
from pipeline.data.sources.muco import MUCO_RELEASE
from pipeline.data.sources.panoptic import PANOPTIC_RELEASE, PANOPTIC_SMAP
from pipeline.data.sources.panoptic import SPLITS as PANOPTIC
from pipeline.data.splits import Part, SplitManifest


@pytest.mark.parametrize("name", CATALOG)
def test_every_source_states_its_terms_joint_sets_and_splits(name):
    source = CATALOG[name].source
    assert source.TERMS and "\n" not in source.TERMS
    assert bool(source.SKELETONS) == (name != "custom"), "your own data define their joint set"
    assert {part.split for part in source.SPLITS.parts} <= {"train", "val", "test"}


@pytest.mark.parametrize("name", CATALOG)
def test_a_missing_folder_is_named(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name}: no folder .*/nothing"):
        CATALOG[name].source.chunks(tmp_path / "nothing", "train")


@pytest.mark.parametrize("name", ["mupots", "muco", "coco"])
def test_a_folder_without_annotations_is_refused_with_the_file_it_lacks(name, tmp_path):
    with pytest.raises(ValueError, match=r"annotations: no file .*\.json"):
        CATALOG[name].source.chunks(tmp_path, "train")


def test_commands_refuse_an_unknown_source():
    wanted = f"source = 'panoptics', wanted one of {', '.join(CATALOG)}"
    with pytest.raises(ValueError, match=wanted):
        ConvertConfig("panoptics", "raw", "out")
    with pytest.raises(ValueError, match=wanted):
        DoctorConfig("raw", source="panoptics")


def sequences(manifest, split):
    return {part.sequence for part in manifest.of(split)}


def test_the_ids_of_committed_manifests_are_unchanged():
    # Every prepared data set and every number carries these; a new hash is a new benchmark.
    assert [m.id for m in MANIFESTS.values()] == [
        "panoptic@0997e129b049",
        "panoptic-release@cb0e2b476184",
        "panoptic-smap@ab19b80173b7",
        "muco@2cb588691a3c",
        "muco-release@7c2ef4bc941b",
        "mupots@0abb6b11ca8e",
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
        ("[]", "found a list, wanted an object"),
        ({"name": "x"}, "parts is missing"),
        ({"name": "x", "parts": []}, "parts is missing"),
        ({"parts": [{"sequence": "a", "split": "train"}]}, "name is missing"),
        ({"name": "x", "part": []}, "unknown field 'part'"),
        ({"name": "x", "parts": [3]}, r"parts\[0\]: found a number"),
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

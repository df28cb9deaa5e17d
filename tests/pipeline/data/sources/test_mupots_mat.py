"""MuPoTS-3D's own .mat files: all real ones that are available, and small generated ones."""

import json

import numpy as np
import pytest
import scipy.io

from das.camera import project
from das.skeleton import MUPOTS17
from pipeline.data.samples import to_sample
from pipeline.data.sources import mupots, mupots_mat
from pipeline.data.sources.base import DroppedFrame, pinhole
from pipeline.data.validate_record import validate
from tests.pipeline.data.binary_layouts import MAT_K as K
from tests.pipeline.data.binary_layouts import mat_person, write_mats, write_mupots_mats
from tests.pipeline.data.original_layouts import HEIGHT, WIDTH, jpeg, write_mupots

# Frames and people (a person counts once in every frame) of the sequences as their owners give them out.
FRAMES_AND_PEOPLE = {
    "TS1": (201, 402), "TS2": (251, 502), "TS3": (401, 802), "TS4": (301, 602), "TS5": (261, 522),
    "TS6": (541, 1082), "TS7": (431, 1293), "TS8": (551, 1102), "TS9": (501, 1002), "TS10": (251, 502),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES_AND_PEOPLE)
def test_a_real_sequence_is_read_completely(name, das_data):
    folder = das_data / "mupots" / "MultiPersonTestSet" / name
    frames = mupots_mat.read_sequence(folder)
    assert (len(frames), sum(map(len, frames))) == FRAMES_AND_PEOPLE[name]
    # Every number again, by another reader of the same file.
    structs = scipy.io.loadmat(folder / "annot.mat", struct_as_record=False, squeeze_me=True)["annotations"]
    hidden = scipy.io.loadmat(folder / "occlusion.mat", squeeze_me=True)["occlusion_labels"]
    assert structs.shape == (len(frames), len(frames[0]))
    for frame in range(len(frames)):
        for k, person in enumerate(frames[frame]):
            other = structs[frame, k]
            assert np.array_equal(person.uv.T, other.annot2) and np.array_equal(person.cam.T, other.annot3)
            assert np.array_equal(person.universal.T, other.univ_annot3)
            assert person.valid == bool(other.isValidFrame)
            assert np.array_equal(person.occluded, hidden[frame, k] == 1)
    # univ_annot3 is annot3 scaled about the pelvis, by one factor a person.
    root = MUPOTS17.root_index
    for k in range(len(frames[0])):
        ours, universal = (
            np.stack([getattr(frame[k], name) - getattr(frame[k], name)[root] for frame in frames])
            for name in ("cam", "universal")
        )
        scale = (ours * universal).sum() / (ours * ours).sum()
        assert 0.8 < scale < 1.12 and np.abs(universal - scale * ours).max() < 0.1
    fitted_intrinsics_project_people_onto_their_labels(frames, name, das_data / "mupots")


def fitted_intrinsics_project_people_onto_their_labels(frames, name, root):
    K, given = mupots_mat.fit_intrinsics(frames), mupots_mat.given_intrinsics(root, name)
    assert np.abs(K - given).max() < 0.2, "another robust fit of the same data"
    people = [person for frame in frames for person in frame if person.valid]
    misfit = np.linalg.norm([project(p.cam, K) - p.uv for p in people], axis=-1)  # (n, 17)
    assert np.median(misfit) < 0.1
    wrong = (misfit > 40).mean(axis=0)
    assert np.flatnonzero(wrong).tolist() == ([MUPOTS17.index("spine")] if name in ("TS1", "TS2", "TS7") else [])


def test_real_sequences_without_images_give_one_dropped_frame_a_frame(das_data):
    chunks = mupots.chunks(das_data / "mupots", "test")
    assert {s.sequence for s in chunks} == set(FRAMES_AND_PEOPLE)
    assert sum(len(s.frames) for s in chunks) == sum(f for f, _ in FRAMES_AND_PEOPLE.values())
    assert all(isinstance(item, DroppedFrame) and item.reason == "image missing" for item in mupots.records(chunks[0]))


def read(root):
    items = [item for chunk in mupots.chunks(root, "test") for item in mupots.records(chunk)]
    for item in items:
        validate(item)
    return items


def test_mats_with_images_become_records(tmp_path):
    items = read(write_mupots_mats(tmp_path))
    assert [item.key for item in items] == [f"mupots/TS3/0/{i:08d}" for i in range(3)]
    for i, item in enumerate(items):
        assert np.abs(item.K - K).max() < 0.01, "fitted: no file gives it"
        for k in (0, 1):
            entry, hidden = mat_person(2 * i + k)
            assert np.allclose(item.joints_cam[k], entry["annot3"].T, atol=1e-3)
            assert np.allclose(item.joints_cam_univ[k], entry["univ_annot3"].T, atol=1e-3)
            assert np.allclose(item.joints_uv[k], entry["annot2"].T, atol=0.02), "a wrong spine is projected"
            assert item.state[k].tolist() == (2 - hidden[0]).tolist()
        assert item.valid.tolist() == [True, i != 2] and item.person_id.tolist() == [0, 1]
        assert to_sample(item)[1].total() == (i == 2)


def test_intrinsics_are_read_from_moons_file_or_intrinsics_json_and_otherwise_fitted(tmp_path):
    root = write_mupots_mats(tmp_path)
    (root / "intrinsics.json").write_text(json.dumps({"intrinsic_fx_fy_cx_cy": {"TS3": [301, 302, 161, 92]}}))
    assert np.array_equal(read(root)[0].K, pinhole([301, 302, 161, 92]))
    write_mupots(root, ["TS3/img_000000.jpg", "TS4/img_000007.jpg"])
    items = read(root)
    assert np.array_equal(items[0].K, K) and items[0].joints_cam_univ is not None
    assert [item.key for item in items[3:]] == ["mupots/TS4/0/00000007"], "a sequence without .mat is Moon's"


def test_wrong_labels_do_not_move_the_fitted_intrinsics():
    rng = np.random.default_rng(0)
    wanted = np.array([[1500.0, 0, 1000], [0, 1490, 540], [0, 0, 1]])
    people = []
    for i in range(20):
        cam = rng.normal(0, 400, (17, 3)) + (600, -200, 4000)  # to one side: a wrong mean would move the centre
        uv = project(cam, wanted)
        uv[i % 5] += 300
        people.append(mupots_mat.MatPerson(uv, cam, cam, np.zeros(17, bool), True))
    assert np.abs(mupots_mat.fit_intrinsics((tuple(people),)) - wanted).max() < 0.01


@pytest.mark.parametrize("content", ["[]", "{}", '{"intrinsic_fx_fy_cx_cy": {"TS3": [1, 2, 3]}}'])
def test_a_malformed_file_of_intrinsics_is_named(content, tmp_path):
    root = write_mupots_mats(tmp_path)
    (root / "intrinsics.json").write_text(content)
    with pytest.raises(ValueError, match="intrinsics.json: "):
        read(root)


def test_malformed_mats_are_named_with_frame_and_person(tmp_path):
    bad, hidden = mat_person(0)
    bad["annot3"] = bad["annot3"][:, :14]
    write_mats(tmp_path / "TS1", [[mat_person(1), mat_person(2)], [mat_person(3), (bad, hidden)]])
    chunk, image = mupots.chunks(tmp_path, "test")[0], jpeg(HEIGHT, WIDTH)
    (tmp_path / "TS1" / "img_000000.jpg").write_bytes(image)
    with pytest.raises(ValueError, match=r"annot.mat: entry frame 1, person 1: annot3: found size 42, wanted .*3, 17"):
        list(mupots.records(chunk))
    folder = tmp_path / "other" / "TS1"
    write_mats(folder, [[mat_person(1)]])
    scipy.io.savemat(folder / "occlusion.mat", {"occlusion_labels": np.array([[np.zeros(17)], [1.0]], object)})
    with pytest.raises(ValueError, match=r"occlusion.mat: \(frames, people\) \(2, 1\), wanted \(1, 1\)"):
        mupots_mat.read_sequence(folder)
    (folder / "annot.mat").write_bytes(b"MATLAB 5.0 junk")
    with pytest.raises(ValueError, match=r"annot.mat: wanted a .mat file with annotations"):
        mupots.chunks(tmp_path / "other", "test")
    (folder / "occlusion.mat").unlink()
    with pytest.raises(ValueError, match=r"occlusion.mat: no such file"):
        mupots_mat.read_sequence(folder)

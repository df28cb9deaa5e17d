"""`das track`: identities and motion from stored frames, and what is refused."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from das.camera import CameraSource, intrinsics_from_fov
from das.decode import People
from das.predictor import Prediction
from das.skeleton import PANOPTIC15
from das.uncertainty import LEVELS, ROOT, Calibration, joint_groups
from pipeline.predict.config import PredictConfig
from pipeline.predict.own_files import signed
from pipeline.predict.predict import predict
from pipeline.predict.track import COLUMNS, TracksConfig, track_videos
from tests.pipeline.predict.prediction_cases import refused, write_video, written

J = len(PANOPTIC15)
VALID = np.array([joint != "head" for joint in PANOPTIC15.joints])
CALIBRATION = Calibration(
    {name: (200.0,) * len(LEVELS) for name in joint_groups(PANOPTIC15) if name} | {ROOT: (0.08,) * len(LEVELS)},
    {name: 9 for name in [*filter(None, joint_groups(PANOPTIC15)), ROOT]},
    uses_sigma=False,
)


def prediction(joints_cam) -> Prediction:
    """People (n, J, 3) mm."""
    n = len(joints_cam)
    return Prediction(
        people=People(np.zeros((n, J, 2)), joints_cam, np.zeros((n, 2)), joints_cam[:, PANOPTIC15.root_index],
                      np.full(n, 0.9)),
        skeleton=PANOPTIC15,
        valid=VALID,
        image_size=(90, 160),
        K=intrinsics_from_fov(160, 90, 60),
        distortion=np.zeros(5),
        source=CameraSource("given"),
        calibration=CALIBRATION,
    )  # fmt: skip


def crossing(path, frames=30, gone=()):
    """NAME.jsonl of two people who pass each other; the second is not predicted in the frames ``gone``.

    Returns their true joints, (frames, 2, J, 3) mm.
    """
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 250, (2, J, 3))
    poses -= poses[:, [PANOPTIC15.root_index]]
    x = np.linspace(-1200, 1200, frames)
    roots = np.stack([np.stack([x, 0 * x, 0 * x + 4000], 1), np.stack([-x, 0 * x, 0 * x + 4800], 1)], 1)
    true = roots[:, :, None] + poses
    with path.open("w") as lines:
        for n, people in enumerate(true):
            order = [1, 0] if n % 3 else [0, 1]
            noisy = people[order] * (1 + 0.01 * rng.normal(size=(2, 1, 1)))
            if n in gone:
                noisy = noisy[[order.index(0)]]
            about = {"video": "walk.mp4", "frame": n, "time_ms": n * 1000 / 30}
            lines.write(json.dumps(signed({**about, **prediction(noisy).to_json()})) + "\n")
    return true


def table_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_people_keep_their_identity_and_hidden_frames_are_bridged_and_marked(tmp_path, capsys):
    true = crossing(tmp_path / "walk.jsonl", gone=range(12, 18))
    track_videos(TracksConfig((str(tmp_path / "walk.jsonl"),), str(tmp_path / "out")))
    said = capsys.readouterr().out
    assert "30 frames, 2 tracks of 54 of 54 people, 6 bridged" in said
    assert written(tmp_path / "out") == ["walk_track1.bvh", "walk_track2.bvh", "walk_tracks.csv"]
    rows = table_of(tmp_path / "out" / "walk_tracks.csv")
    assert tuple(rows[0]) == COLUMNS and len(rows) == 2 * 30 * VALID.sum()
    assert {row["joint"] for row in rows} == set(np.array(PANOPTIC15.joints)[VALID])
    hidden = {int(row["frame"]) for row in rows if row["person"] == ""}
    assert hidden == set(range(12, 18))
    for number in ("1", "2"):
        mine = [row for row in rows if row["track"] == number and row["joint"] == "mid_hip"]
        found = np.array([[float(row[axis]) for axis in ("x_mm", "y_mm", "z_mm")] for row in mine])
        error = np.linalg.norm(found[:, None] - true[:, :, PANOPTIC15.root_index], axis=-1).mean(axis=0)
        assert error.min() < 60 and error.max() > 700, "one person from the first frame to the last"
        assert [float(row["time_ms"]) for row in mine] == pytest.approx(np.arange(30) * 1000 / 30, abs=1e-3)


def test_a_rerun_replaces_its_own_files_and_removes_motions_of_tracks_that_are_gone(tmp_path):
    file, out = tmp_path / "walk.jsonl", tmp_path / "out"
    crossing(file)
    config = TracksConfig((str(file),), str(out))
    track_videos(config)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    track_videos(config)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    crossing(file, gone=range(30))
    track_videos(config)
    assert written(out) == ["walk_track1.bvh", "walk_tracks.csv"]
    track_videos(replace(config, out=str(tmp_path / "table"), bvh=False))
    assert written(tmp_path / "table") == ["walk_tracks.csv"]


def test_a_video_that_was_predicted_is_tracked(checkpoint, tmp_path, capsys):
    video = write_video(tmp_path / "grey.mp4")
    predict(PredictConfig((str(video),), str(checkpoint), str(tmp_path / "found"), formats=("json",), device="cpu"))
    track_videos(TracksConfig((str(tmp_path / "found" / "grey.jsonl"),), str(tmp_path / "out")))
    assert re.search(r"4 frames, \d tracks of \d+ of 12 people, 0 bridged", capsys.readouterr().out)
    assert "grey_tracks.csv" in written(tmp_path / "out")


def test_what_cannot_be_used_is_named_and_nothing_is_written(tmp_path):
    file, out = tmp_path / "walk.jsonl", tmp_path / "out"
    crossing(file)
    (tmp_path / "again").mkdir()
    twice = tmp_path / "again" / "walk.jsonl"
    twice.write_bytes(file.read_bytes())
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text("{}\n")
    lines = file.read_text().splitlines(keepends=True)
    broken = tmp_path / "broken.jsonl"
    broken.write_text("".join(lines[:2]) + lines[2][:200])
    old = tmp_path / "old.jsonl"
    old.write_text(lines[0].replace('"bones"', '"limbs"'))
    late = tmp_path / "late.jsonl"
    late.write_text("".join(lines[:3]) + lines[1])
    for names, parts in (
        ([file, twice], ("walk.jsonl is given twice",)),
        ([tmp_path / "none.jsonl"], ("none.jsonl: no such file",)),
        ([foreign], ("foreign.jsonl: not written by `das predict`",)),
        ([file, broken], ("broken.jsonl: line 3: ",)),
        ([old], ("old.jsonl: line 1: no 'bones' in it",)),
        ([late], ("late.jsonl: frame 3 is not later than the one before",)),
    ):
        refused(lambda names=names: track_videos(TracksConfig(tuple(map(str, names)), str(out))), *parts)
        assert not out.exists()
    out.mkdir()
    (out / "walk_tracks.csv").write_text("mine\n")
    (out / "walk_track2.bvh").write_text("mine\n")
    refused(lambda: track_videos(TracksConfig((str(file),), str(out))), "walk_tracks.csv", "walk_track2.bvh", "--out")
    assert (out / "walk_tracks.csv").read_text() == "mine\n"

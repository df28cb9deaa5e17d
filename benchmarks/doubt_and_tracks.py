"""What a model's doubt and its tracks are worth on rendered people that it has never seen.

    python benchmarks/doubt_and_tracks.py     # models:/das-demo@champion; any other model can be named

Doubt: radii are calibrated on half of the sequences, and the table says how many errors on the other half lie within
them, by group of joints; beside it what the likelihood's own scale promises without a calibration. Tracks: videos at
30 frames a second of people who walk about or on crossing paths; identity switches against linking nearest roots in the
image, and the error of acceleration before and after smoothing. Minutes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from das.decode import People
from das.metrics.coverage import Residuals, coverage, raw_coverage, residuals
from das.metrics.motion import acceleration_error, identity_switches
from das.metrics.strict import Strict, strict
from das.metrics.tables import Predictions, Truth
from das.predictor import Predictor
from das.tracks import Detections, Track, track
from das.uncertainty import Calibration, joint_scales
from pipeline.data.record import Record, decode_image
from pipeline.data.sources import synthetic
from pipeline.evaluation.ground_truth import predicted, strict_truth
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.mlflow_client import absolute_tracking_uri
from pipeline.models import resolve_model
from pipeline.studio.config import ACTIVITIES, StudioConfig
from pipeline.studio.layouts import render_layout

SECONDS = 1001 / 30000
NEAR = 40.0  # px, farthest root in the next frame that is linked


def rendered(sequences: tuple[str, ...], frames: int, **options: float) -> list[Record]:
    """The images of sequences of the test split, 640 x 360 pixels; of videos the first camera's, in order."""
    with tempfile.TemporaryDirectory() as folder:
        config = StudioConfig(
            640, 360, train_sequences=(), val_sequences=(), test_sequences=sequences, test_frames=frames, **options
        )
        render_layout(config, Path(folder), workers=os.cpu_count() or 1)
        return [
            r for chunk in synthetic.chunks(folder, "test") for r in synthetic.records(chunk) if isinstance(r, Record)
        ]


def predict(predictor: Predictor, records: Sequence[Record]) -> list[People[np.ndarray]]:
    people = []
    for start in range(0, len(records), 8):
        some = records[start : start + 8]
        images = [decode_image(record) for record in some]
        cameras = predictor.cameras(images, [record.K for record in some], [record.distortion for record in some])
        inputs = predictor.prepare(images, *cameras)
        people += [found.numpy() for found in predictor.people(predictor.network(inputs), inputs)]
    return people


def paired(
    predictor: Predictor, records: Sequence[Record], people: Sequence[People[np.ndarray]]
) -> tuple[Truth, Predictions, Strict]:
    """Truth, predictions, and the pairs of the strict protocol."""
    skeleton, info = predictor.skeleton, predictor.info
    truth, found = strict_truth(records, skeleton), predicted(people, len(skeleton))
    pose = np.full((len(skeleton), 3), np.nan) if info.mean_pose is None else np.array(info.mean_pose)
    return truth, found, strict(truth, found, skeleton.root_indices, pose, predictor.threshold, predictor.valid)


def doubt(predictor: Predictor, frames: int) -> Calibration:
    """Prints the coverage; returns the calibration."""
    halves: list[Residuals] = []
    for numbers in (range(2, 6), range(6, 10)):
        records = rendered(tuple(f"studio_test_{name}{n}" for name in ACTIVITIES for n in numbers), frames)
        truth, found, pairs = paired(predictor, records, predict(predictor, records))
        halves.append(residuals(truth, found, pairs, predictor.skeleton.root_indices))
        print(f"{len(records)} images, {pairs.found.sum()} of {pairs.people} people found, MPJPE {pairs.mpjpe:.1f} mm")
    held_out, new = halves
    calibration = Calibration.fit(held_out.scores(predictor.skeleton), predictor.sigma)
    for level in (0.5, 0.8, 0.9, 0.95):
        shares = coverage(calibration, new, predictor.skeleton, level)
        raw = raw_coverage(new, predictor.skeleton, level)
        worst = max(shares, key=lambda name: abs(shares[name] - level))
        print(f"{100 * level:.0f} %: farthest {worst} {100 * (shares[worst] - level):+.1f} points")
        print("   within   " + "  ".join(f"{name} {100 * share:.1f}" for name, share in shares.items()))
        print("   raw      " + "  ".join(f"{name} {100 * share:.1f}" for name, share in raw.items()))
    radii = calibration.joint_radii(new.scales, predictor.skeleton, 0.9)[new.counted]
    print(f"mean radius of 90 %: {radii.mean():.0f} mm")
    return calibration


def tracks(predictor: Predictor, calibration: Calibration, name: str, records: Sequence[Record]) -> None:
    """Prints a line for a video."""
    people = predict(predictor, records)
    truth, found, pairs = paired(predictor, records, people)
    first = np.cumsum([0, *map(len, people)])
    followed = track(
        [
            Detections.of(
                n * SECONDS,
                one.root_cam,
                one.joints_cam,
                calibration.root_radii(one.root_cam, 0.9),
                calibration.joint_radii(joint_scales(one.sigma_mm, one.joints_cam), predictor.skeleton, 0.9),
            )
            for n, one in enumerate(people)
        ]
    )
    identity = np.full(len(found), -1)
    for number, one in enumerate(followed):
        identity[(first[one.frames] + one.person)[one.measured]] = number
    who = np.concatenate([record.person_id for record in records])
    matched = pairs.match[pairs.found]
    of = truth.frame[pairs.found], who[pairs.found]
    switches = [identity_switches(*of, given[matched]) for given in (_nearest(people), identity)]
    before, after = _jitter(followed, first, found, truth, pairs, who)
    print(
        f"{name}: {len(records[0])} people, {len(records)} frames, {len(followed)} tracks; identity switches "
        f"{switches[0]} by nearest roots, {switches[1]} by tracks; acceleration error {before:.1f} m/s2 as predicted, "
        f"{after:.1f} smoothed"
    )


def _nearest(people: Sequence[People[np.ndarray]]) -> np.ndarray:
    """Identities by linking nearest roots of neighbouring frames in the image."""
    given: list[int] = []
    before: list[tuple[np.ndarray, int]] = []
    total = 0
    for one in people:
        here = [-1] * len(one)
        if before and len(one):
            gap = np.linalg.norm(np.array([uv for uv, _ in before])[:, None] - one.root_uv, axis=-1)
            for i, j in zip(*linear_sum_assignment(gap), strict=True):
                here[j] = before[i][1] if gap[i, j] < NEAR else -1
        for j in range(len(one)):
            if here[j] < 0:
                here[j], total = total, total + 1
        given += here
        before = [*zip(one.root_uv, here, strict=True)]
    return np.array(given, int)


def _jitter(
    followed: Sequence[Track], first: np.ndarray, found: Predictions, truth: Truth, pairs: Strict, who: np.ndarray
) -> tuple[float, float]:
    """Errors of acceleration as predicted and smoothed, where a track is on the person that it mostly is."""
    person = np.full(len(found), -1)
    person[pairs.match[pairs.found]] = np.flatnonzero(pairs.found)
    raw, smooth, true, counted = [], [], [], []
    for one in followed:
        rows = np.where(one.measured, first[one.frames] + one.person, 0)
        row = np.where(one.measured, person[rows], -1)
        if (row < 0).all():
            continue
        on = (row >= 0) & (who[row] == np.bincount(who[row[row >= 0]]).argmax())
        raw.append(found.joints_cam[rows])
        smooth.append(one.joints_cam)
        true.append(truth.joints_cam[row])
        counted.append(on[:, None] & pairs.scored[row])
    return tuple(acceleration_error(values, true, SECONDS, counted) for values in (raw, smooth))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="models:/das-demo@champion", help="folder or URI")
    parser.add_argument("--frames", type=int, default=40, help="of each sequence; videos have three times as many")
    options = parser.parse_args()
    storage = absolute_storage(os.environ.get("DAS_STORAGE") or "runs")
    folder = resolve_model(options.model, absolute_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI"), storage))
    predictor = Predictor.from_folder(Path(folder))
    predictor.sigma = predictor.model.head.sigma is not None
    calibration = doubt(predictor, options.frames)
    frames = 3 * options.frames
    video = {"frame_seconds": SECONDS, "take_frames": frames}
    for name, sequence, people, interactions in (
        ("walking about", "studio_test_haggling3", 5, 0.0),
        ("crossing paths", "studio_test_haggling2", 4, 1.0),
    ):
        records = rendered(
            (sequence,), frames, people_min=people, people_max=people, interactions=interactions, **video
        )
        camera = records[0].camera
        tracks(predictor, calibration, name, [record for record in records if record.camera == camera])


if __name__ == "__main__":
    main()

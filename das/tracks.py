"""Tracks: who is who in a video, and motion without jitter, from people that were predicted frame by frame.

Everything happens in metric space, where people who cross in the image are apart. A track is a bank of scalar
filters, one for each axis of the root and of each joint relative to the root, each with a position and a velocity
(constant velocity, driven by white acceleration). The doubt of a prediction is the noise of its measurement: along
the viewing ray a root is known to a share of its distance only, across it much better.

Forward, the people of a frame are given to tracks one to one, at the least total of squared innovations over their
variances (Hungarian). A track that nobody fits is carried on for a while, so that a person comes back with the same
identity after an occlusion. Backward, a smoother (Rauch, Tung and Striebel, 1965) lets every frame know the later
ones; frames without a measurement are bridged and marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FIRST_SPEED = 1.0
"""Spread of the velocity of a person who appears, in seconds of acceleration: 1 m/s, and 5 m/s of joints."""
_ALONG_RAY, _ACROSS_RAY, _JOINT_MM = 0.05, 0.01, 100.0
"""Doubt without a calibration: shares of the distance for roots, mm for joints."""
_LEAST_MM = 1.0
# Of a radius that holds 90 %: standard deviations of a normal number, and of three alike.
_NORMAL_90, _THREE_90 = 1.645, 2.5


@dataclass(frozen=True)
class TrackConfig:
    """How people are followed."""

    max_gap: float = 1.0
    """Seconds that a track is carried on without a measurement."""
    least_frames: int = 3
    """Measurements that make a track; people of shorter ones stay without identity."""
    gate: float = 9.0
    """Largest mean squared innovation over variance of a person who may belong to a track."""
    root_acceleration: float = 1000.0
    """mm/s^2, spread of the white acceleration of roots: a person starts walking within a second."""
    joint_acceleration: float = 5000.0
    """mm/s^2, of joints relative to the root."""


_DEFAULT = TrackConfig()


@dataclass(frozen=True)
class Detections:
    """The n people of one frame.

    Attributes:
        time: seconds, later than the frame before.
        root_cam: (n, 3) mm, camera frame. joints_cam: (n, J, 3) mm.
        root_sigma: (n, 3) mm, standard deviations along the camera's axes. joint_sigma: (n, J) mm, of each axis of a
            joint relative to the root.
    """

    time: float
    root_cam: np.ndarray
    joints_cam: np.ndarray
    root_sigma: np.ndarray
    joint_sigma: np.ndarray

    def __len__(self) -> int:
        return len(self.root_cam)

    @classmethod
    def of(
        cls,
        time: float,
        root_cam: np.ndarray,
        joints_cam: np.ndarray,
        root_p90: np.ndarray | None = None,
        joint_p90: np.ndarray | None = None,
    ) -> Detections:
        """From the calibrated doubt: radii (n,) and (n, J) mm that hold the truth with a probability of 0.9.

        A root's doubt is that of its distance, so nearly all of it lies along the viewing ray; a fifth is taken for
        the other two directions. None, or a radius that is infinite, stands for a share of the distance and 100 mm.
        """
        distance = np.linalg.norm(root_cam, axis=1)
        along, joint = _ALONG_RAY * distance, np.full(joints_cam.shape[:2], _JOINT_MM)
        if root_p90 is not None:
            along = np.where(np.isfinite(root_p90), root_p90 / _NORMAL_90, along)
        if joint_p90 is not None:
            joint = np.where(np.isfinite(joint_p90), joint_p90 / _THREE_90, joint)
        ray = root_cam / distance[:, None]
        across = along * _ACROSS_RAY / _ALONG_RAY
        root_sigma = np.sqrt((ray * along[:, None]) ** 2 + (1 - ray**2) * across[:, None] ** 2)
        return cls(time, root_cam, joints_cam, root_sigma, np.maximum(joint, _LEAST_MM))


@dataclass(frozen=True)
class Track:
    """One person in T consecutive frames, smoothed.

    Attributes:
        frames: (T,) int, indices of the frames, without gaps.
        person: (T,) int, index of the measured person in its frame; -1 where the track bridges a gap.
        root_cam: (T, 3) mm. joints_cam: (T, J, 3) mm, camera frame.
        root_sigma: (T, 3) mm. joint_sigma: (T, J) mm, standard deviations of the smoothed values, as in ``Detections``.
    """

    frames: np.ndarray
    person: np.ndarray
    root_cam: np.ndarray
    joints_cam: np.ndarray
    root_sigma: np.ndarray
    joint_sigma: np.ndarray

    @property
    def measured(self) -> np.ndarray:
        """(T,) bool: frames in which the person was predicted; the others are bridged."""
        return self.person >= 0


def track(frames: Sequence[Detections], config: TrackConfig = _DEFAULT) -> list[Track]:
    """Tracks of all people, in the order in which they appear; a person of a frame is in one track at most.

    Raises:
        ValueError: times that do not rise.
    """
    from scipy.optimize import linear_sum_assignment  # here: `--help` reads the settings above without its import

    times = np.array([frame.time for frame in frames])
    if (np.diff(times) <= 0).any():
        raise ValueError(f"frame {int(np.argmax(np.diff(times) <= 0)) + 1} is not later than the one before")
    alive: list[_Following] = []
    ended: list[_Following] = []
    for index, frame in enumerate(frames):
        lost = [one for one in alive if frame.time - times[one.last] > config.max_gap]
        ended += lost
        alive = [one for one in alive if one not in lost]
        for one in alive:
            one.predict(frame.time)
        cost = np.array([one.innovations(frame) for one in alive]).reshape(len(alive), len(frame))
        # Far pairs cost alike, so that they never take a person from the track that fits.
        rows, columns = linear_sum_assignment(np.minimum(cost, config.gate))
        pairs = [(r, c) for r, c in zip(rows, columns, strict=True) if cost[r, c] < config.gate]
        for r, c in pairs:
            alive[r].update(index, frame, c)
        taken = {c for _, c in pairs}
        alive += [_Following(index, frame, n, config) for n in range(len(frame)) if n not in taken]
    everyone = sorted(ended + alive, key=lambda one: (one.steps[0].frame, one.steps[0].person))
    return [one.smoothed() for one in everyone if one.measurements >= config.least_frames]


@dataclass
class _Step:
    """A track's filters in one frame: before and after its measurement. Arrays of D scalars, x of (D, 2)."""

    frame: int
    person: int
    transition: np.ndarray
    predicted: np.ndarray
    predicted_cov: np.ndarray
    x: np.ndarray
    cov: np.ndarray


class _Following:
    """A track that is being followed: D = 3 + 3 J scalar filters, the root's axes first."""

    def __init__(self, frame: int, people: Detections, person: int, config: TrackConfig) -> None:
        value, variance = _measurement(people, person)
        joints = people.joints_cam.shape[1]
        self.acceleration = np.repeat([config.root_acceleration, config.joint_acceleration], [3, 3 * joints])
        x = np.stack([value, np.zeros_like(value)], axis=1)
        cov = np.zeros((len(value), 2, 2))
        cov[:, 0, 0], cov[:, 1, 1] = variance, (_FIRST_SPEED * self.acceleration) ** 2
        self.steps = [_Step(frame, person, np.eye(2), x, cov, x, cov)]
        self.time, self.last, self.measurements = people.time, frame, 1

    def predict(self, time: float) -> None:
        """Moves the filters to the next frame; without an ``update`` they stay there."""
        before, dt = self.steps[-1], time - self.time
        transition = np.array([[1.0, dt], [0.0, 1.0]])
        noise = np.array([[dt**4 / 4, dt**3 / 2], [dt**3 / 2, dt**2]])
        x = before.x @ transition.T
        cov = transition @ before.cov @ transition.T + self.acceleration[:, None, None] ** 2 * noise
        self.steps.append(_Step(before.frame + 1, -1, transition, x, cov, x, cov))
        self.time = time

    def innovations(self, people: Detections) -> np.ndarray:
        """How badly each person of the frame fits, (n,): mean squared innovation over variance, root and pose alike."""
        step, found = self.steps[-1], []
        for person in range(len(people)):
            value, variance = _measurement(people, person)
            squared = (value - step.predicted[:, 0]) ** 2 / (step.predicted_cov[:, 0, 0] + variance)
            found.append((squared[:3].mean() + squared[3:].mean()) / 2)
        return np.array(found)

    def update(self, frame: int, people: Detections, person: int) -> None:
        """Takes the person as this frame's measurement."""
        step = self.steps[-1]
        value, variance = _measurement(people, person)
        gain = step.predicted_cov[:, :, 0] / (step.predicted_cov[:, 0, 0] + variance)[:, None]  # (D, 2)
        step.x = step.predicted + gain * (value - step.predicted[:, 0])[:, None]
        step.cov = step.predicted_cov - gain[:, :, None] * step.predicted_cov[:, None, 0, :]
        step.person, self.last = person, frame
        self.measurements += 1

    def smoothed(self) -> Track:
        """The track up to its last measurement, every frame knowing all others."""
        steps = self.steps[: self.last - self.steps[0].frame + 1]
        x, cov = [steps[-1].x], [steps[-1].cov]
        for step, after in zip(steps[-2::-1], steps[:0:-1], strict=True):
            gain = step.cov @ after.transition.T @ np.linalg.inv(after.predicted_cov)  # (D, 2, 2)
            x.append(step.x + np.einsum("dij,dj->di", gain, x[-1] - after.predicted))
            cov.append(step.cov + gain @ (cov[-1] - after.predicted_cov) @ gain.transpose(0, 2, 1))
        values = np.stack(x[::-1])[:, :, 0]  # (T, D)
        sigma = np.sqrt(np.stack(cov[::-1])[:, :, 0, 0])
        root = values[:, :3]
        return Track(
            frames=np.array([step.frame for step in steps]),
            person=np.array([step.person for step in steps]),
            root_cam=root,
            joints_cam=root[:, None] + values[:, 3:].reshape(len(steps), -1, 3),
            root_sigma=sigma[:, :3],
            joint_sigma=np.sqrt((sigma[:, 3:].reshape(len(steps), -1, 3) ** 2).mean(axis=2)),
        )


def _measurement(people: Detections, person: int) -> tuple[np.ndarray, np.ndarray]:
    """A person's D scalars and their variances."""
    root = people.root_cam[person]
    relative = people.joints_cam[person] - root
    variance = np.concatenate([people.root_sigma[person], np.repeat(people.joint_sigma[person], 3)]) ** 2
    return np.concatenate([root, relative.ravel()]), variance

"""The predictions file: one Parquet row per image, which with the annotations is all that scoring needs.

    key         the image's key; every image that was predicted, with or without people
    scores      n numbers: confidence x centerness, best first
    joints_uv   n x 2J numbers: pixels of the stored image
    joints_cam  n x 3J numbers: mm, camera frame

The file's metadata hold the ``Provenance``, so scores can be computed again without the model, and the images that
could not be predicted, with the reasons. These have no row and are left out of all scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from das.fields import check_fields
from das.metrics.tables import Predictions
from das.model_info import ModelInfo
from das.skeleton import Skeleton
from pipeline.infra.columns import ListColumn, read_lists, write_lists

FORMAT = 1

PREDICTIONS_FILE = "predictions.parquet"
"""Name of the file in an evaluation's folder and MLflow run."""
LISTS = ("scores", "joints_uv", "joints_cam")
"""Columns of lists."""
QUARANTINE = "quarantine"
"""Field of the file's metadata: reason by key, of the images that could not be predicted; absent without any."""


@dataclass(frozen=True)
class Provenance:
    """The model and the data that predictions come from, as far as their scores depend on them."""

    model_fingerprint: str
    """``models.fingerprint`` of the checkpoint folder."""
    data_fingerprint: str
    """Of the images' prepared folders."""
    train_fit: bool
    """The model was trained on some of the images, or it is not known on which it was trained."""
    skeleton: Skeleton
    """Joint set of the J joints."""
    unsupervised_joints: tuple[str, ...]
    """Joints that no training image ever labelled; they are not scored."""
    mean_pose: tuple[tuple[float, float, float], ...] | None
    """J x (x, y, z) mm: the training split's mean root-aligned pose, the baseline; None if it is not known."""
    score_threshold: float
    """The model's own threshold, chosen on val; the strict protocol counts predictions above it."""
    release_threshold: float
    """The threshold in the architecture's configuration; the release's protocols choose among candidates above it."""
    least_score: float
    """Candidates above this score are in the file."""
    code_version: str
    """Of the code that ran the model."""

    @classmethod
    def of(
        cls, info: ModelInfo, model: str, data: str, train_fit: bool, least_score: float, code_version: str
    ) -> Provenance:
        """The provenance of a checkpoint's predictions, given the fingerprints of model and data."""
        return cls(
            model_fingerprint=model,
            data_fingerprint=data,
            train_fit=train_fit,
            skeleton=info.model.skeleton,
            unsupervised_joints=info.unsupervised_joints,
            mean_pose=info.mean_pose,
            score_threshold=info.score_threshold,
            release_threshold=info.model.score_threshold,
            least_score=least_score,
            code_version=code_version,
        )

    @property
    def mean_pose_mm(self) -> np.ndarray:
        """The mean pose as an array (J, 3) mm; NaN if it is not known."""
        return np.full((len(self.skeleton), 3), np.nan) if self.mean_pose is None else np.array(self.mean_pose)

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``from_json`` inverts it."""
        return {"format": FORMAT, **asdict(self), "skeleton": self.skeleton.to_json()}

    @classmethod
    def from_json(cls, value: Any) -> Provenance:
        """Inverse of ``to_json``; ValueError names another format, unknown or missing fields."""
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            found = value.get("format") if isinstance(value, dict) else value
            raise ValueError(f"predictions of format {found!r}, wanted {FORMAT}")
        wanted = {f.name for f in fields(cls)}
        check_fields(set(value) - {"format"}, wanted)
        values = {name: value[name] for name in wanted}
        values["skeleton"] = Skeleton.from_json(value["skeleton"])
        values["unsupervised_joints"] = tuple(value["unsupervised_joints"])
        values["mean_pose"] = value["mean_pose"] and tuple(tuple(joint) for joint in value["mean_pose"])
        return cls(**values)


@dataclass(frozen=True)
class PredictionSet:
    """Predictions for F images, P people in all; the people of one image are adjacent, best score first.

    Attributes:
        provenance: of the predictions.
        keys: F keys. counts: (F,) people of each image.
        scores: (P,). joints_uv: (P, J, 2) px of the stored image. joints_cam: (P, J, 3) mm, camera frame.
        quarantine: reason by key, of images that could not be predicted; none of the F.

    Raises:
        ValueError: naming the first key that appears twice, or whose people have numbers that are not finite or
            do not fit the joint set.
    """

    provenance: Provenance
    keys: tuple[str, ...]
    counts: np.ndarray
    scores: np.ndarray
    joints_uv: np.ndarray
    joints_cam: np.ndarray
    quarantine: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for key in (*self.keys, *self.quarantine):
            if key in seen:
                raise ValueError(f"key {key} appears twice, wanted every image once")
            seen.add(key)
        people, joints = int(self.counts.sum()), len(self.provenance.skeleton)
        owner = np.repeat(np.arange(len(self.keys)), self.counts)
        for name, shape in (("scores", ()), ("joints_uv", (joints, 2)), ("joints_cam", (joints, 3))):
            value = getattr(self, name)
            assert value.shape == (people, *shape), (name, value.shape, (people, *shape))
            wrong = ~np.isfinite(value).all(axis=tuple(range(1, value.ndim)))
            if wrong.any():
                raise ValueError(f"{self.keys[owner[wrong.argmax()]]}: {name} holds NaN or infinity")

    def check_images(self, keys: Sequence[str]) -> None:
        """Checks that the predictions are for exactly these images.

        Raises:
            ValueError: a key without a row here, or a row whose key is not among ``keys``; names it.
        """
        missing, unknown = set(keys) - set(self.keys), set(self.keys) - set(keys)
        if missing or unknown:
            kind, some = ("no row for", missing) if missing else ("rows for other images, such as", unknown)
            raise ValueError(f"predictions have {kind} {min(some)} ({len(some)} of {len(keys)} images)")

    def table(self, keys: Sequence[str]) -> Predictions:
        """The predictions for exactly these images; frame i is keys[i]. ValueError from ``check_images``."""
        self.check_images(keys)
        place = {key: i for i, key in enumerate(keys)}
        frame = np.repeat([place[key] for key in self.keys], self.counts).astype(np.int64)
        return Predictions(frame, self.joints_cam, self.scores, self.joints_uv)

    def only(self, keys: Sequence[str]) -> PredictionSet:
        """The predictions for some of the images, in their order; ValueError for a key without a row."""
        place = {key: i for i, key in enumerate(self.keys)}
        missing = [key for key in keys if key not in place]
        if missing:
            raise ValueError(f"predictions have no row for {missing[0]} ({len(missing)} of {len(keys)} images)")
        first = np.concatenate([[0], np.cumsum(self.counts)])
        rows = [np.arange(first[at], first[at + 1]) for at in (place[key] for key in keys)]
        people = np.concatenate([np.zeros(0, int), *rows])
        counts = np.array([self.counts[place[key]] for key in keys], dtype=np.int64)
        chosen = (self.scores[people], self.joints_uv[people], self.joints_cam[people])
        return PredictionSet(self.provenance, tuple(keys), counts, *chosen)

    def save(self, uri: str | Path) -> None:
        """Writes the file atomically: it is complete or absent."""
        n = len(self.keys)
        owner = np.repeat(np.arange(n), self.counts)
        lists = {}
        for name in LISTS:
            value = getattr(self, name)
            width = int(np.prod(value.shape[1:]))
            lists[name] = ListColumn(np.bincount(owner, minlength=n) * width, value.ravel().astype(np.float32))
        write_lists(uri, "key", self.keys, lists, about_predictions(self.provenance, self.quarantine))

    @classmethod
    def load(cls, uri: str | Path) -> PredictionSet:
        """Reads the file.

        Raises:
            ValueError: naming the file, and the key where one image is at fault.
        """
        keys, lists, about = read_lists(uri, "key", LISTS)
        try:
            quarantine = about.pop(QUARANTINE, {}) if isinstance(about, dict) else {}
            provenance = Provenance.from_json(about)
            joints, counts = len(provenance.skeleton), lists["scores"].lengths
            for name, width in (("joints_uv", 2 * joints), ("joints_cam", 3 * joints)):
                wrong = lists[name].lengths != width * counts
                if wrong.any():
                    at = int(wrong.argmax())
                    found, people = lists[name].lengths[at], counts[at]
                    raise ValueError(f"{keys[at]}: {name} has {found} numbers, wanted {width} for each of {people}")
            return cls(
                provenance=provenance,
                keys=tuple(keys),
                counts=counts,
                scores=lists["scores"].values.astype(np.float64),
                joints_uv=lists["joints_uv"].values.astype(np.float64).reshape(-1, joints, 2),
                joints_cam=lists["joints_cam"].values.astype(np.float64).reshape(-1, joints, 3),
                quarantine=quarantine,
            )
        except ValueError as error:
            raise ValueError(f"{uri}: {error}") from error


def about_predictions(provenance: Provenance, quarantine: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of a predictions file."""
    return provenance.to_json() | ({QUARANTINE: dict(quarantine)} if quarantine else {})


def collect(provenance: Provenance, keys: Sequence[str], people: Iterable[Mapping[str, np.ndarray]]) -> PredictionSet:
    """Rows of people, in any order and number, to one set; images without rows are images without people.

    Args:
        provenance: of the predictions.
        keys: all images that were given to the model.
        people: batches of columns key, rank (0 for the image's best score), score, joints_uv and joints_cam.

    Raises:
        ValueError: from ``PredictionSet``.
    """
    joints = len(provenance.skeleton)
    batches = [batch for batch in people if len(batch["key"])]

    def column(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.concatenate([np.zeros((0, *shape)), *(np.asarray(batch[name], np.float64) for batch in batches)])

    place = {key: i for i, key in enumerate(keys)}
    image = np.array([place[key] for batch in batches for key in batch["key"]], dtype=np.int64)
    order = np.lexsort((column("rank", ()), image))
    return PredictionSet(
        provenance=provenance,
        keys=tuple(keys),
        counts=np.bincount(image, minlength=len(keys)),
        scores=column("score", ())[order],
        joints_uv=column("joints_uv", (joints, 2))[order],
        joints_cam=column("joints_cam", (joints, 3))[order],
    )


def with_common_joints(this: PredictionSet, other: PredictionSet) -> tuple[PredictionSet, PredictionSet]:
    """Both restricted to the joints that both predict, and both with the mean pose of ``this``.

    Otherwise the two would be scored on different joints, and a missed person would have a different error for each.

    Raises:
        ValueError: their root is not the same joint, or they have no other joint in common.
    """
    first, second = this.provenance.skeleton, other.provenance.skeleton
    common = set(first.joints) & set(second.joints)
    common -= {*this.provenance.unsupervised_joints, *other.provenance.unsupervised_joints}
    if first.root != second.root or not common - set(first.root):
        raise ValueError(
            f"joint sets {first.name} (root {', '.join(first.root)}) and {second.name} (root {', '.join(second.root)}) "
            f"have {len(common)} joints in common: wanted the same root and further joints to compare"
        )
    mean = dict(zip(first.joints, this.provenance.mean_pose, strict=True)) if this.provenance.mean_pose else {}

    def restricted(found: PredictionSet) -> PredictionSet:
        skeleton = found.provenance.skeleton
        provenance = replace(
            found.provenance,
            unsupervised_joints=tuple(j for j in skeleton.joints if j not in common),
            mean_pose=tuple(mean.get(j, (0.0, 0.0, 0.0)) for j in skeleton.joints) if mean else None,
        )
        return replace(found, provenance=provenance)

    return restricted(this), restricted(other)

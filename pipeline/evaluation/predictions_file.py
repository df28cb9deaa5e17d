"""The predictions file: one Parquet row per image, which with the annotations is all that scoring needs.

    key         the image's key; every image that was predicted, with or without people
    scores      n numbers: confidence x centerness, best first
    joints_uv   n x 2J numbers: pixels of the stored image
    joints_cam  n x 3J numbers: mm, camera frame
    scales      n x J numbers: mm, scale of each joint's doubt (das/uncertainty.py); only of a model with a calibration

The file's metadata hold the ``Provenance``, so scores can be computed again without the model, and the images that
could not be predicted, with the reasons. These have no row and are left out of all scores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from das.fields import check_fields
from das.metrics.tables import Predictions
from das.model_info import ModelInfo
from das.skeleton import Skeleton
from das.uncertainty import Calibration
from pipeline.infra.columns import TEXT, ListColumn, read_lists, rows_of_groups, write_list_groups
from pipeline.infra.files import copy_file

FORMAT = 1

PREDICTIONS_FILE = "predictions.parquet"
"""Name of the file in an evaluation's folder and MLflow run."""
LISTS = ("scores", "joints_uv", "joints_cam")
"""Columns of lists that every file has."""
SCALES = "scales"
"""Column of lists that a model with a calibration adds."""
QUARANTINE = "quarantine"
"""Field of the file's metadata: reason by key, of the images that could not be predicted; absent without any."""
_ROWS = 512  # of a row group


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
    calibration: Calibration | None = None
    """Of the model's doubt; None where it has none, as predictions of other groups."""

    @property
    def lists(self) -> tuple[str, ...]:
        """Columns of lists of a predictions file."""
        return LISTS if self.calibration is None else (*LISTS, SCALES)

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
            calibration=info.calibration,
        )

    @property
    def mean_pose_mm(self) -> np.ndarray:
        """The mean pose as an array (J, 3) mm; NaN if it is not known."""
        return np.full((len(self.skeleton), 3), np.nan) if self.mean_pose is None else np.array(self.mean_pose)

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``from_json`` inverts it."""
        value = {"format": FORMAT, **asdict(self), "skeleton": self.skeleton.to_json()}
        if self.calibration is None:
            del value["calibration"]  # older versions of this code do not know the field
        return value

    @classmethod
    def from_json(cls, value: Any) -> Provenance:
        """Inverse of ``to_json``; ValueError names another format, unknown or missing fields."""
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            found = value.get("format") if isinstance(value, dict) else value
            raise ValueError(f"predictions of format {found!r}, wanted {FORMAT}")
        wanted = {f.name for f in fields(cls)} - {"calibration"}
        check_fields(set(value) - {"format"}, wanted, optional=["calibration"])
        values = {name: value[name] for name in wanted}
        if "calibration" in value:
            values["calibration"] = Calibration.from_json(value["calibration"])
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
        scales: (P, J) mm, scale of each joint's doubt; None where it is not known.

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
    scales: np.ndarray | None = None

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for key in (*self.keys, *self.quarantine):
            if key in seen:
                raise ValueError(f"key {key} appears twice, wanted every image once")
            seen.add(key)
        people, joints = int(self.counts.sum()), len(self.provenance.skeleton)
        owner = np.repeat(np.arange(len(self.keys)), self.counts)
        shapes: dict[str, tuple[int, ...]] = {"scores": (), "joints_uv": (joints, 2), "joints_cam": (joints, 3)}
        for name, shape in (shapes if self.scales is None else shapes | {SCALES: (joints,)}).items():
            value = getattr(self, name)
            assert value.shape == (people, *shape), (name, value.shape, (people, *shape))
            wrong = ~np.isfinite(value).all(axis=tuple(range(1, value.ndim)))
            if wrong.any():
                raise ValueError(f"{self.keys[owner[wrong.argmax()]]}: {name} holds NaN or infinity")

    def places(self, keys: Sequence[str] | np.ndarray) -> np.ndarray:
        """The place of each of these images, (F,). ValueError from ``places_of``: it is not exactly these."""
        return places_of(np.array(self.keys, TEXT), np.array(keys, TEXT))

    def table(self, keys: Sequence[str] | np.ndarray) -> Predictions:
        """The predictions for exactly these images; frame i is keys[i]. ValueError from ``places_of``."""
        frame = np.zeros(len(self.keys), np.int64)
        frame[self.places(keys)] = np.arange(len(keys))
        return Predictions(np.repeat(frame, self.counts), self.joints_cam, self.scores, self.joints_uv, self.scales)

    def only(self, keys: Sequence[str]) -> PredictionSet:
        """The predictions for some of the images, in their order; ValueError for a key without a row."""
        place = {key: i for i, key in enumerate(self.keys)}
        missing = [key for key in keys if key not in place]
        if missing:
            raise ValueError(f"predictions have no row for {missing[0]} ({len(missing)} of {len(keys)} images)")
        return self.at(np.array([place[key] for key in keys], np.int64))

    def at(self, places: np.ndarray) -> PredictionSet:
        """The predictions for the images at some places, in their order."""
        first = np.concatenate([[0], np.cumsum(self.counts)])
        people = np.concatenate([np.zeros(0, int), *(np.arange(first[at], first[at + 1]) for at in places)])
        keys = tuple(self.keys[at] for at in places)
        chosen = (self.scores[people], self.joints_uv[people], self.joints_cam[people])
        scales = None if self.scales is None else self.scales[people]
        return PredictionSet(self.provenance, keys, self.counts[places], *chosen, scales=scales)

    def without(self, keys: Collection[str]) -> PredictionSet:
        """The same without some of the images, and with no quarantine."""
        return self.at(np.array([at for at, key in enumerate(self.keys) if key not in keys], np.int64))

    def save(self, uri: str | Path) -> None:
        """Writes the file atomically: it is complete or absent."""
        parts = (self.at(np.arange(i, min(i + _ROWS, len(self.keys)))) for i in range(0, len(self.keys), _ROWS))
        groups = ((part.keys, part._lists()) for part in parts)
        write_list_groups(uri, "key", self._names, groups, lambda: about_predictions(self.provenance, self.quarantine))

    @property
    def _names(self) -> tuple[str, ...]:
        return LISTS if self.scales is None else (*LISTS, SCALES)

    def _lists(self) -> dict[str, ListColumn]:
        values = {name: getattr(self, name) for name in self._names}
        return {
            name: ListColumn(self.counts * int(np.prod(value.shape[1:])), value.ravel().astype(np.float32))
            for name, value in values.items()
        }

    @classmethod
    def load(cls, uri: str | Path, groups: Sequence[int] | None = None) -> PredictionSet:
        """Reads the file, or some of its row groups.

        Raises:
            ValueError: naming the file, and the key where one image is at fault.
        """
        keys, lists, about = read_lists(uri, "key", LISTS, groups, optional=[SCALES])
        try:
            provenance, quarantine = _about(about)
            joints, counts = len(provenance.skeleton), lists["scores"].lengths
            widths = {"joints_uv": 2 * joints, "joints_cam": 3 * joints}
            for name, width in (widths | {SCALES: joints} if SCALES in lists else widths).items():
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
                scales=lists[SCALES].values.astype(np.float64).reshape(-1, joints) if SCALES in lists else None,
            )
        except ValueError as error:
            raise ValueError(f"{uri}: {error}") from error


@dataclass(frozen=True)
class PredictionFile:
    """The predictions in a file, read when they are asked for: one row group of it is in memory at a time.

    Attributes:
        uri: the file.
        provenance: of the predictions.
        keys: (F,) texts.
        rows: (F,) row of the file of each. groups: rows of each of its row groups.
        quarantine: as in ``PredictionSet``.
    """

    uri: str
    provenance: Provenance
    keys: np.ndarray
    rows: np.ndarray
    groups: tuple[int, ...]
    quarantine: Mapping[str, str] = field(default_factory=dict)
    _held: dict[int, PredictionSet] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, uri: str) -> PredictionFile:
        """Reads keys and description; every row group is read once, and so checked.

        Raises:
            ValueError: as ``PredictionSet.load``.
        """
        groups = rows_of_groups(uri)
        empty = PredictionSet.load(uri, [])
        keys = [np.array(PredictionSet.load(uri, [group]).keys, TEXT) for group in range(len(groups))]
        found = cls(
            uri,
            empty.provenance,
            np.concatenate([np.zeros(0, TEXT), *keys]),
            np.arange(sum(groups)),
            tuple(groups),
            empty.quarantine,
        )
        given = np.sort(np.concatenate([found.keys, np.array([*found.quarantine], TEXT)]))
        twice = given[1:][given[1:] == given[:-1]]
        if len(twice):
            raise ValueError(f"{uri}: key {twice[0]} appears twice, wanted every image once")
        return found

    def places(self, keys: Sequence[str] | np.ndarray) -> np.ndarray:
        """The place of each of these images, (F,). ValueError from ``places_of``: it is not exactly these."""
        return places_of(self.keys, np.array(keys, TEXT))

    def at(self, places: np.ndarray) -> PredictionSet:
        """The predictions for the images at some places, in their order."""
        starts = np.cumsum([0, *self.groups])
        rows = self.rows[places]
        group = np.searchsorted(starts, rows, side="right") - 1
        # Places of neighbours are in one row group or a few, each of which is read once.
        sets = [self._group(number).at(rows[group == number] - starts[number]) for number in np.unique(group).tolist()]
        order = np.argsort(group, kind="stable")
        return _joined(self.provenance, sets).at(np.argsort(order, kind="stable"))

    def without(self, keys: Collection[str]) -> PredictionFile:
        """The same without some of the images, and with no quarantine."""
        left = np.flatnonzero([key not in keys for key in self.keys])
        return replace(self, keys=self.keys[left], rows=self.rows[left], quarantine={})

    def save(self, uri: str | Path) -> None:
        """Copies the file."""
        if str(uri) != self.uri:
            copy_file(self.uri, uri)

    def _group(self, number: int) -> PredictionSet:
        if number not in self._held:
            self._held.clear()
            self._held[number] = PredictionSet.load(self.uri, [number])
        return self._held[number]


Predicted = PredictionSet | PredictionFile
"""Predictions in memory, or in a file of any length."""


def _joined(provenance: Provenance, sets: Sequence[PredictionSet]) -> PredictionSet:
    """Sets of different images as one, in their order."""
    joints = len(provenance.skeleton)
    scales = [one.scales for one in sets if one.scales is not None]
    return PredictionSet(
        provenance,
        tuple(key for one in sets for key in one.keys),
        np.concatenate([np.zeros(0, np.int64), *(one.counts for one in sets)]),
        np.concatenate([np.zeros(0), *(one.scores for one in sets)]),
        np.concatenate([np.zeros((0, joints, 2)), *(one.joints_uv for one in sets)]),
        np.concatenate([np.zeros((0, joints, 3)), *(one.joints_cam for one in sets)]),
        scales=np.concatenate(scales) if sets and len(scales) == len(sets) else None,
    )


def places_of(given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place among ``given`` of each of the wanted texts, where both hold the same, each once.

    Raises:
        ValueError: a wanted one is missing, or one is not wanted; names it.
    """
    order, of = np.argsort(given, kind="stable"), np.argsort(wanted, kind="stable")
    if len(order) != len(of) or (given[order] != wanted[of]).any():
        missing, unknown = {*wanted} - {*given}, {*given} - {*wanted}
        kind, some = ("no row for", missing) if missing else ("rows for other images, such as", unknown)
        raise ValueError(f"predictions have {kind} {min(some)} ({len(some)} of {len(wanted)} images)")
    places = np.empty(len(of), np.int64)
    places[of] = order
    return places


def _about(found: Any) -> tuple[Provenance, dict[str, str]]:
    """Provenance and quarantine from a file's metadata."""
    rest = dict(found) if isinstance(found, dict) else found
    quarantine = rest.pop(QUARANTINE, {}) if isinstance(rest, dict) else {}
    return Provenance.from_json(rest), quarantine


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

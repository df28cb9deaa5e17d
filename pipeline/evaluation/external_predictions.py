"""Predictions of other groups, given as files: the documented form (docs/evaluation.md) and one published form.

    FILE.npz or FILE.mat       one row per predicted person
    FOLDER                     MuPots_TS1_camCentric.mat, ... as published by Cheng et al. (CVPR 2021)

A row may name the annotated person that its prediction belongs to (``person``). Predictions with that field are scored
in the given pairs (mupots_paired.py), all others like this project's own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from das.camera import project
from das.fields import check_fields
from das.skeleton import MUPOTS17, Skeleton, skeleton_named
from pipeline.data.record import Record, key_of
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.predictions_file import PredictionSet, Provenance
from pipeline.infra.array_files import read_mat, read_npz
from pipeline.infra.regular_files import inside, read_file

MAX_BYTES = 1 << 30
"""Largest file, and largest arrays in it, bytes: two million people of 21 joints."""
_REQUIRED = ("key", "joints_cam", "skeleton")
_OPTIONAL = ("score", "joints_uv", "person")
# Cheng et al. give people who were not detected this coordinate, mm.
_UNDETECTED = 1e5
_CHENG = re.compile(r"MuPots_(TS\d+)_camCentric\.mat")


@dataclass(frozen=True)
class ExternalPredictions:
    """P people predicted by a model of another group.

    Attributes:
        where: the file or folder. fingerprint: hash of its content.
        skeleton: joint set of the J joints.
        keys: (P,) key of each person's image.
        joints_cam: (P, J, 3) mm, camera frame. joints_uv: (P, J, 2) px of the stored image, or None.
        scores: (P,).
        person: (P,) index of the annotated person among the image's valid ones, in order of annotation, from 0; None
            where predictions are not paired with people.
        padded: rows with a ``person`` beyond the annotated ones are padding and are skipped, not refused.
    """

    where: str
    fingerprint: str
    skeleton: Skeleton
    keys: np.ndarray
    joints_cam: np.ndarray
    joints_uv: np.ndarray | None
    scores: np.ndarray
    person: np.ndarray | None
    padded: bool = False

    def __post_init__(self) -> None:
        people, joints = len(self.keys), len(self.skeleton)
        wanted = {
            "joints_cam": (people, joints, 3),
            "joints_uv": (people, joints, 2),
            "score": (people,),
            "person": (people,),
        }
        for name, shape in wanted.items():
            value = getattr(self, "scores" if name == "score" else name)
            if value is None:
                continue
            if value.shape != shape:
                of = f"{people} keys and the {joints} joints of {self.skeleton.name}"
                raise ValueError(f"{self.where}: {name} has shape {value.shape}, wanted {shape} for {of}")
            wrong = ~np.isfinite(value).reshape(people, -1).all(axis=1)
            if wrong.any():
                raise ValueError(f"{self.where}: {self.keys[wrong.argmax()]}: {name} holds NaN or infinity")
        if self.person is not None:
            pairs, first, count = np.unique(
                np.stack([self.keys.astype(str), self.person.astype(str)], axis=1),
                axis=0, return_index=True, return_counts=True,
            )  # fmt: skip
            if (count > 1).any():
                at = first[(count > 1).argmax()]
                found = f"person {self.person[at]} has {count.max()} predictions"
                raise ValueError(f"{self.where}: {self.keys[at]}: {found}, wanted one")

    def to_predictions(self, annotations: Annotations) -> PredictionSet:
        """The same predictions in the form of this project's models, for exactly these images.

        If ``joints_uv`` is missing, it is the projection of ``joints_cam`` by the image's camera. The score threshold
        is set below the lowest score, so that every prediction counts. There is no mean pose, and it is not known
        which images the model was trained on.

        Raises:
            ValueError: an image that is not among the annotations or has no known camera, or a joint to be projected
                whose depth is not above 0 mm; names the key.
        """
        place = {key: i for i, key in enumerate(annotations.keys)}
        unknown = set(self.keys.tolist()) - place.keys()
        if unknown:
            some = f"{min(unknown)} ({len(unknown)} in all)"
            raise ValueError(f"{self.where}: predictions for other images than {annotations.name} has, such as {some}")
        image = np.array([place[key] for key in self.keys.tolist()], dtype=np.int64)
        order = np.lexsort((-self.scores, image))
        uv = self._pixels(annotations.records, image) if self.joints_uv is None else self.joints_uv
        least = float(self.scores.min(initial=1.0)) - 1.0
        provenance = Provenance(
            model_fingerprint=self.fingerprint,
            data_fingerprint=annotations.fingerprint,
            train_fit=False,
            skeleton=self.skeleton,
            unsupervised_joints=(),
            mean_pose=None,
            score_threshold=least,
            release_threshold=least,
            least_score=least,
            code_version="foreign",
        )
        return PredictionSet(
            provenance=provenance,
            keys=tuple(annotations.keys),
            counts=np.bincount(image, minlength=len(place)),
            scores=self.scores[order],
            joints_uv=uv[order],
            joints_cam=self.joints_cam[order],
        )

    def _pixels(self, records: Sequence[Record], image: np.ndarray) -> np.ndarray:
        uv = np.zeros((*self.joints_cam.shape[:2], 2))
        for i in np.unique(image).tolist():
            record, rows = records[i], image == i
            if record.K is None:
                raise ValueError(f"{self.where}: joints_uv is missing, and the camera of {record.key} is not known")
            behind = self.joints_cam[rows, :, 2] <= 0
            if behind.any():
                raise ValueError(f"{self.where}: {record.key}: joints_cam holds a depth that is not above 0 mm")
            uv[rows] = project(self.joints_cam[rows], record.K, record.distortion)
        return uv


def is_external(where: str) -> bool:
    """Whether a path names one of the forms read here, and not a predictions file of this project."""
    return where.endswith((".npz", ".mat")) or ("://" not in where and Path(where).is_dir())


def read_external(where: str) -> ExternalPredictions:
    """Reads one of the forms.

    Raises:
        ValueError: naming the file, and the field or the image, where something is missing or malformed.
    """
    path = Path(where)
    if path.is_dir():
        return _cheng(path)
    if not path.exists():
        raise ValueError(f"{where}: no such file")
    fields = _fields(path)
    check_fields(fields, _REQUIRED, where, _OPTIONAL)
    keys = _texts(fields["key"], where, "key")
    names = _texts(fields["skeleton"], where, "skeleton")
    if len(names) != 1:
        raise ValueError(f"{where}: skeleton = {names.tolist()}, wanted the name of one joint set")
    try:
        skeleton = skeleton_named(str(names[0]))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error

    def numbers(name: str) -> np.ndarray | None:
        if name not in fields:
            return None
        value = np.asarray(fields[name])
        if value.dtype.kind not in "fiu":
            raise ValueError(f"{where}: {name} is {value.dtype}, wanted numbers")
        # MATLAB has no vectors: it stores one as a matrix with one column.
        return value.reshape(-1).astype(np.float64) if name in ("score", "person") else value.astype(np.float64)

    joints_cam, person, scores = numbers("joints_cam"), numbers("person"), numbers("score")
    assert joints_cam is not None
    return ExternalPredictions(
        where=where,
        fingerprint=_hash([path]),
        skeleton=skeleton,
        keys=keys,
        joints_cam=joints_cam,
        joints_uv=numbers("joints_uv"),
        scores=np.ones(len(keys)) if scores is None else scores,
        person=None if person is None else person.astype(np.int64),
    )


def _fields(path: Path) -> dict[str, Any]:
    read = read_mat if path.suffix == ".mat" else read_npz
    return dict(read(path, f"a {path.suffix} file of arrays", most=MAX_BYTES))


def _texts(value: Any, where: str, name: str) -> np.ndarray:
    """Texts (n,), also from MATLAB's cell arrays and space-padded character arrays."""
    found: np.ndarray = np.asarray(value).reshape(-1)
    if found.dtype == object:
        found = np.array([str(np.asarray(cell).reshape(-1)[0]) if np.size(cell) else "" for cell in found.tolist()])
    if found.dtype.kind != "U":
        raise ValueError(f"{where}: {name} is {found.dtype}, wanted texts")
    return np.char.strip(found)


def _hash(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(read_file(path, MAX_BYTES))
    return digest.hexdigest()


def _cheng(folder: Path) -> ExternalPredictions:
    """Cheng et al. (2021): ``data`` [frame, k-th valid person, 3, 17] mm; 100000 for a person who was not detected."""
    files = {m[1]: inside(folder, path.name) for path in folder.iterdir() if (m := _CHENG.fullmatch(path.name))}
    if not files:
        raise ValueError(f"{folder}: no MuPots_TS*_camCentric.mat, wanted them or a .npz, .mat or .parquet file")
    keys, joints, person = [], [], []
    for sequence, path in sorted(files.items()):
        fields = _fields(path)
        data = np.asarray(fields.get("data", np.zeros(0)), dtype=np.float64)
        if data.ndim != 4 or data.shape[2:] != (3, 17):
            raise ValueError(f"{path}: data has shape {data.shape}, wanted (frames, people, 3, 17)")
        for frame, who in np.argwhere((np.abs(data) < _UNDETECTED).all(axis=(2, 3))).tolist():
            keys.append(key_of("mupots", sequence, "0", frame))
            joints.append(data[frame, who].T)
            person.append(who)
    return ExternalPredictions(
        where=str(folder),
        fingerprint=_hash([files[sequence] for sequence in sorted(files)]),
        skeleton=MUPOTS17,
        keys=np.array(keys),
        joints_cam=np.array(joints),
        joints_uv=None,
        scores=np.ones(len(keys)),
        person=np.array(person, dtype=np.int64),
        padded=True,
    )

"""MuPoTS-3D's own annotation files: ``annot.mat`` and ``occlusion.mat`` of one sequence, every frame and person.

``annotations{frame, person}`` has annot2 (2, 17) px, annot3 and univ_annot3 (3, 17) mm of the camera (y down), and
isValidFrame; ``occlusion_labels{frame, person}`` (1, 17), 1 = occluded. Frames count from 0, as the images do.
univ_annot3 is annot3 scaled about the pelvis. The owners publish no intrinsics: see ``given_intrinsics`` and
``fit_intrinsics``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from das.skeleton import MUPOTS17
from pipeline.data.sources.base import pinhole
from pipeline.data.sources.json_files import load_json, numbers
from pipeline.infra.array_files import read_mat
from pipeline.infra.regular_files import inside, kept_inside

FILES = ("annot.mat", "occlusion.mat")
"""The files of a sequence."""
_SPINE = MUPOTS17.index("spine")
# {"intrinsic_fx_fy_cx_cy": {"TS1": [fx, fy, cx, cy], ...}}, pixels of the full-size images.
INTRINSICS = ("intrinsics.json", "fitted_intrinsics.json")
"""Where intrinsics may be given, relative to the root, the first first."""
_FIELD = "intrinsic_fx_fy_cx_cy"


@dataclass(frozen=True)
class MatPerson:
    """One person in one frame.

    Attributes:
        uv: (17, 2) pixels as in the file; the spine of some people is wrong.
        cam: (17, 3) annot3, mm of the camera. universal: (17, 3) univ_annot3, mm of the camera.
        occluded: (17,) bool. valid: isValidFrame.
    """

    uv: np.ndarray
    cam: np.ndarray
    universal: np.ndarray
    occluded: np.ndarray
    valid: bool


Frames = tuple[tuple[MatPerson, ...], ...]
"""The people of each frame."""
FramesOrErrors = tuple[tuple[MatPerson, ...] | ValueError, ...]
"""The people of each frame, or the error of its malformed entry."""


def read_sequence(folder: Path, root: Path | None = None) -> Frames:
    """As ``read_frames``, but a malformed frame is raised as a ValueError."""
    return tuple(map(people_of, read_frames(folder, root)))


def people_of(frame: tuple[MatPerson, ...] | ValueError) -> tuple[MatPerson, ...]:
    """The people of a frame; its error is raised."""
    if isinstance(frame, ValueError):
        raise frame
    return frame


def read_frames(folder: Path, root: Path | None = None) -> FramesOrErrors:
    """All people of all frames of a sequence: ``frames[frame][person]``, or the ValueError of a malformed frame.

    Args:
        folder: of the sequence.
        root: folder of the data set, which its files may not lead out of; ``folder`` where it is given alone.

    Raises:
        ValueError: a file is missing, leads out or has no cells by frame and person; names the file.
    """
    annotations, occlusion = (kept_inside(root or folder, folder / name) for name in FILES)
    for path in (annotations, occlusion):
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
    return _read(annotations, annotations.stat().st_mtime_ns, occlusion, occlusion.stat().st_mtime_ns)


@lru_cache(maxsize=1)  # the chunks that one process reads share the sequence
def _read(annotations: Path, changed: int, occlusion: Path, occlusion_changed: int) -> FramesOrErrors:
    people = _table(annotations, "annotations")
    hidden = _table(occlusion, "occlusion_labels")
    if people.shape != hidden.shape:
        raise ValueError(f"{occlusion}: (frames, people) {hidden.shape}, wanted {people.shape} as annot.mat has")
    return tuple(_frame(i, people[i], hidden[i], annotations) for i in range(people.shape[0]))


def _frame(i: int, people: np.ndarray, hidden: np.ndarray, path: Path) -> tuple[MatPerson, ...] | ValueError:
    try:
        return tuple(_person(people[k], hidden[k], path, f"frame {i}, person {k}") for k in range(len(people)))
    except ValueError as error:
        return error


def _table(path: Path, name: str) -> np.ndarray:
    table = read_mat(path, f"a .mat file with {name}", [name])[name]
    if table.ndim != 2 or table.dtype != object:
        raise ValueError(f"{path}: {name} of shape {table.shape}, wanted cells by frame and person")
    return table


def _person(entry: Any, hidden: Any, path: Path, where: str) -> MatPerson:
    try:
        fields: dict[str, Any] = {name: entry[name][0, 0] for name in entry.dtype.names}
    except (AttributeError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{path}: entry {where}: wanted a structure ({error!r})") from error
    fields |= {"id": where, "occlusion": hidden}
    return MatPerson(
        uv=numbers(fields, "annot2", (2, 17), path).T,
        cam=numbers(fields, "annot3", (3, 17), path).T,
        universal=numbers(fields, "univ_annot3", (3, 17), path).T,
        occluded=numbers(fields, "occlusion", (17,), path) > 0,
        valid=bool(numbers(fields, "isValidFrame", (1,), path)[0]),
    )


def given_intrinsics(folder: Path, sequence: str) -> np.ndarray | None:
    """K (3, 3) of a sequence from the folder's intrinsics.json; None when there is no such file.

    Raises:
        ValueError: the file does not hold four numbers for this sequence.
    """
    path = next((inside(folder, name) for name in INTRINSICS if (folder / name).is_file()), None)
    if path is None:
        return None
    content = load_json(path)
    table = content.get(_FIELD) if isinstance(content, dict) else None
    if not isinstance(table, dict):
        raise ValueError(f'{path}: wanted {{"{_FIELD}": {{"TS1": [fx, fy, cx, cy], ...}}}}')
    return pinhole(numbers({**table, "id": _FIELD}, sequence, (4,), path))


def fit_intrinsics(frames: FramesOrErrors) -> np.ndarray:
    """K (3, 3) that projects annot3 onto annot2, rounded to a thousandth of a pixel.

    Each axis is a straight line, u = fx X / Z + cx, fitted by least squares. The fit is repeated without labels whose
    residual is above 3 medians, some of which are wrong by hundreds of pixels. Spines are never used.

    Raises:
        ValueError: no person is valid.
    """
    body = [k for k in range(17) if k != _SPINE]
    good = (frame for frame in frames if not isinstance(frame, ValueError))
    people = [person for frame in good for person in frame if person.valid]
    if not people:
        raise ValueError("no valid person to fit intrinsics to, wanted a file of intrinsics")
    uv = np.concatenate([person.uv[body] for person in people])
    cam = np.concatenate([person.cam[body] for person in people])
    focal, centre = np.zeros(2), np.zeros(2)
    for axis in (0, 1):
        x, y = cam[:, axis] / cam[:, 2], uv[:, axis]
        use = np.ones(len(x), bool)
        for _ in range(10):
            dx = x[use] - x[use].mean()
            focal[axis] = dx @ y[use] / (dx @ dx)
            centre[axis] = y[use].mean() - focal[axis] * x[use].mean()
            off = np.abs(focal[axis] * x + centre[axis] - y)
            use = off <= 3 * np.median(off[use]) + 1e-9  # exact labels have residuals of about 0 and stay
    return pinhole(np.round([*focal, *centre], 3))

"""MPI-INF-3DHP (Mehta et al., 3DV 2017): one person in front of calibrated cameras, in two forms.

The output of mmpose's preprocessing, arrays and single images (tested on real files):

    ROOT/mpi_inf_3dhp_train.npz, mpi_inf_3dhp_test_{valid,all}.npz     imgname, part (F, 17, 3) px, S (F, 17, 4) metres
    ROOT/cameras_train.pkl, cameras_test.pkl                           f, c, R, T by S1_Seq1_Cam0 or TS1
    ROOT/S1_Seq1_Cam0_000001.jpg, ROOT/TS1_000001.jpg                  or in ROOT/images/

and the owners' training people (mpi_inf_3dhp_original.py, not yet tested on real files):

    ROOT/S1/Seq1/annot.mat, camera.calibration, imageSequence/video_0.avi

Where both exist, the arrays are read. Both give the 17 joints of MuPoTS-3D, in millimetres of the camera frame. The
owners' test set (annot_data.mat, HDF5) is read in mmpose's form only.
"""

from __future__ import annotations

import pickle
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from das.skeleton import MUPOTS17, Skeleton
from pipeline.data.record import UNLABELLED, VISIBLE, Record
from pipeline.data.sources import mpi_inf_3dhp_original as original
from pipeline.data.sources.base import (
    Chunk,
    ChunkFiles,
    DroppedFrame,
    NoImage,
    Person,
    clipped_box,
    drop_frame,
    make_chunks,
    make_record,
    pinhole,
    read_image,
    require_folder,
)
from pipeline.data.splits import Part, SplitManifest
from pipeline.infra.array_files import read_npz
from pipeline.infra.regular_files import kept_inside, read_file, unread

TERMS = (
    "MPI-INF-3DHP: non-commercial research use only; see https://vcai.mpi-inf.mpg.de/3dhp-dataset and cite "
    "Mehta et al., 3DV 2017"
)
SKELETONS: tuple[Skeleton, ...] = (MUPOTS17,)
# The owners' training and test sets; one of the eight training people is held out. MuCo is composed of all eight.
SPLITS = SplitManifest(
    "mpi_inf_3dhp",
    (
        *(Part(f"S{i}_Seq{j}", "train" if i < 8 else "val") for i in range(1, 9) for j in (1, 2)),
        *(Part(f"TS{i}", "test") for i in range(1, 7)),
    ),
)

_MM_PER_METRE = 1000.0
_MAX_CAMERAS_BYTES = 1 << 22  # of a pickle of cameras, several times its size
ARRAY_FILES = {
    "train": ("mpi_inf_3dhp_train.npz", "test_3dhp_train.npz"),
    "test": ("mpi_inf_3dhp_test_valid.npz", "mpi_inf_3dhp_test_all.npz", "test_3dhp_test.npz"),
}
"""Names of mmpose's arrays of the training and of the test people, in order of preference."""
ARRAY_PLACES = ("", "annotations/")
"""Where the arrays may be, relative to the root, the first first."""
IMAGE_NAME = re.compile(r"(?P<sequence>S\d+_Seq\d+|TS\d+)(?:_Cam(?P<camera>\d+))?_(?P<frame>\d+)\.jpg")


@dataclass(frozen=True)
class _Arrays:
    """One .npz file; ``rows[sequence, camera][frame]`` is the row of a frame.

    Attributes:
        path: of the file.
        uv: (F, 17, 3) pixels and visibility. cam: (F, 17, 4) metres of the camera and visibility.
        names: of the image files, one a row.
    """

    path: Path
    uv: np.ndarray
    cam: np.ndarray
    names: tuple[str, ...]
    rows: dict[tuple[str, str], dict[int, int]]


def chunks(root: str | Path, split: str, splits: SplitManifest = SPLITS) -> list[Chunk]:
    """Chunks of one split, camera by camera.

    Raises:
        ValueError: no such folder, neither form in it, or a file of it is missing or malformed.
    """
    folder = require_folder(root, "mpi_inf_3dhp")
    if not (any(_arrays_file(folder, kind) for kind in ARRAY_FILES) or original.present(folder)):
        wanted = f"{ARRAY_FILES['train'][0]}, {ARRAY_FILES['test'][0]} or S1/Seq1/annot.mat"
        raise ValueError(f"mpi_inf_3dhp: annotations: no file {folder}/{wanted}")
    found = []
    for part in splits.of(split):
        arrays = _arrays_of(folder, part.sequence)
        if arrays is None:
            found += original.chunks(folder, part, splits)
            continue
        for sequence, camera in sorted(arrays.rows):
            if sequence == part.sequence:
                read_intrinsics(folder, sequence, camera)  # its file is every frame's: refused now if it is faulty
                rows = arrays.rows[sequence, camera]
                taken = splits.select(part, sorted(rows))
                images = [_image(folder, arrays.names[rows[frame]]) for frame in taken]
                found += make_chunks("mpi_inf_3dhp", folder, part, camera, taken, images)
    return found


def listed_files(splits: SplitManifest) -> Iterable[str]:
    """The arrays and their cameras, in all places where they may be, and the annotations in the owners' form."""
    names = [name for kind, arrays in ARRAY_FILES.items() for name in (*arrays, f"cameras_{kind}.pkl")]
    return [f"{place}{name}" for place in ARRAY_PLACES for name in names] + original.listed_files(splits)


def files(chunk: Chunk) -> ChunkFiles:
    """Arrays and cameras, or annotations, calibration and video, and the images."""
    folder = Path(chunk.root)
    arrays = _arrays_of(folder, chunk.sequence)
    if arrays is None:
        return original.files(chunk)
    rows = arrays.rows[chunk.sequence, chunk.camera]
    images = [_image(folder, arrays.names[rows[frame]]) for frame in chunk.frames]
    shared = arrays.path, arrays.path.with_name(f"cameras_{_kind(chunk.sequence)}.pkl")
    return ChunkFiles(*(tuple(str(path.relative_to(folder)) for path in paths) for paths in (shared, images)))


def records(chunk: Chunk) -> Iterator[Record | DroppedFrame]:
    """Every frame of the chunk.

    Raises:
        ValueError: an annotation or a camera is missing or malformed; names the file.
    """
    folder = Path(chunk.root)
    arrays = _arrays_of(folder, chunk.sequence)
    if arrays is None:
        yield from original.records(chunk)
        return
    K = read_intrinsics(folder, chunk.sequence, chunk.camera)
    for frame in chunk.frames:
        row = arrays.rows[chunk.sequence, chunk.camera][frame]
        uv, cam = arrays.uv[row], arrays.cam[row]
        if not (np.isfinite(uv).all() and np.isfinite(cam).all()):
            raise ValueError(f"{arrays.path}: {arrays.names[row]}: found NaN or infinity, wanted numbers")
        image = read_image(_image(folder, arrays.names[row]), folder)
        if isinstance(image, NoImage):
            yield drop_frame(chunk, frame, image)
            continue
        labelled = (uv[:, 2] > 0) & (cam[:, 3] > 0)
        person = Person(
            id=0,
            joints_uv=uv[:, :2],
            joints_cam=_MM_PER_METRE * cam[:, :3],
            state=np.where(labelled, VISIBLE, UNLABELLED),
            bbox=clipped_box(uv[labelled, :2], image.size),
        )
        # The size is read from the image: the training cameras' `h` is 204 for images of 2048 rows.
        yield make_record(chunk, frame, image, image.size, MUPOTS17, [person], K=K)


def _kind(sequence: str) -> str:
    return "test" if sequence.startswith("TS") else "train"


def _arrays_file(folder: Path, kind: str) -> Path | None:
    places = (folder / f"{place}{name}" for place in ARRAY_PLACES for name in ARRAY_FILES[kind])
    found = next((path for path in places if path.is_file()), None)
    return None if found is None else kept_inside(folder, found)


def in_arrays(folder: Path, sequence: str) -> bool:
    """Whether a sequence is read from arrays in mmpose's form."""
    return _arrays_file(folder, _kind(sequence)) is not None


def _arrays_of(folder: Path, sequence: str) -> _Arrays | None:
    path = _arrays_file(folder, _kind(sequence))
    return None if path is None else _read_arrays(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)  # the chunks that one process reads share the files, train and test
def _read_arrays(path: Path, changed: int) -> _Arrays:
    wanted = "arrays imgname (F), part (F, 17, 3), S (F, 17, 4)"
    content = read_npz(path, wanted, ("imgname", "part", "S"))
    try:
        names = tuple(str(name).rsplit("/", 1)[-1] for name in content["imgname"])
        uv = np.asarray(content["part"], np.float64).reshape(len(names), 17, 3)
        cam = np.asarray(content["S"], np.float64).reshape(len(names), 17, 4)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: wanted {wanted} ({error!r})") from error
    rows: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for row, name in enumerate(names):
        parts = IMAGE_NAME.fullmatch(name)
        if parts is None:
            raise ValueError(f"{path}: imgname {name!r}, wanted S1_Seq1_Cam0_000001.jpg or TS1_000001.jpg")
        frames = rows[parts["sequence"], parts["camera"] or "0"]
        if int(parts["frame"]) in frames:
            raise ValueError(f"{path}: imgname {name!r} appears twice")
        frames[int(parts["frame"])] = row
    return _Arrays(path, uv, cam, names, dict(rows))


def _image(folder: Path, name: str) -> Path:
    """Path of an image in ROOT or ROOT/images; in the latter if it is in neither."""
    return folder / name if (folder / name).is_file() else folder / "images" / name


def read_intrinsics(folder: Path, sequence: str, camera: str) -> np.ndarray:
    """K (3, 3) of one camera of the arrays; ValueError names the file and the camera."""
    kind = _kind(sequence)
    arrays = _arrays_file(folder, kind)
    assert arrays is not None
    path = kept_inside(folder, arrays.with_name(f"cameras_{kind}.pkl"))
    name = sequence if kind == "test" else f"{sequence}_Cam{camera}"
    try:
        found = _PlainUnpickler(BytesIO(read_file(path, _MAX_CAMERAS_BYTES))).load()[name]
        return pinhole([*np.asarray(found["f"], float).reshape(2), *np.asarray(found["c"], float).reshape(2)])
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file, wanted the cameras of {arrays.name}") from error
    except OSError as error:
        raise ValueError(unread(error)) from error
    except Exception as error:  # a damaged pickle may raise any error
        raise ValueError(f"{path}: camera {name}: wanted f and c of two numbers each ({error!r})") from error


class _PlainUnpickler(pickle.Unpickler):
    """Reads NumPy arrays and plain values only: an unrestricted pickle can execute any code."""

    def find_class(self, module: str, name: str) -> Any:
        plain = {"_reconstruct", "scalar", "ndarray", "dtype"} if module.startswith("numpy") else {"encode"}
        if name in plain and module.split(".")[0] in ("numpy", "_codecs"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"holds {module}.{name}, wanted arrays and plain values only")

"""`das rescale`: stored results for another focal length, without inference.

The network predicts each root's depth divided by the focal length, joint depths relative to the root in mm, and pixels:
none of them depends on the camera. So a focal length that is learned later gives what a prediction with it would have
given, to the last digit that is stored. An interval of focal lengths gives an interval of depths.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from das.camera import CameraSource, back_project, intrinsics_from_fov, mean_focal
from das.camera_check import check_intrinsics
from das.fields import check_values
from pipeline.predict.own_files import check_folder, is_own, refuse_foreign, writing

_KINDS = (".json", ".jsonl")


@dataclass(frozen=True)
class RescaleConfig:
    """Stored results, and the focal length that is now known; one of --focal, --fov and --camera."""

    results: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RESULTS [RESULTS ...]", help_behavior_hint="(required)"),
    ]
    """NAME.json and NAME.jsonl that `das predict` wrote, or folders of them."""
    out: str = "rescaled"
    """Folder for the new files, of the same names."""
    focal: tuple[float, ...] = ()
    """Focal length in pixels; the principal point, the ratio of the focal lengths and the lens stay. Two numbers are an
    interval: people are placed for its middle, and each gets the interval of its root's depth."""
    fov: float | None = None
    """Instead, field of view of the longer side in degrees; again all else of the camera stays."""
    camera: str | None = None
    """Instead, a camera file as `das predict --camera` takes it: intrinsics and lens."""
    camera_name: str | None = None
    """Name of the camera in a calibration; by default the one that the photo's name begins with."""

    def __post_init__(self) -> None:
        if not self.results:
            raise ValueError("results is empty, wanted at least one file or folder that `das predict` wrote")
        given = sum((bool(self.focal), self.fov is not None, self.camera is not None))
        if given != 1:
            raise ValueError(f"{given} of focal, fov and camera are given, wanted one of the three")
        check_values(
            self,
            ("focal", len(self.focal) <= 2 and all(f > 0 for f in self.focal), "one or two numbers above 0"),
            ("focal", list(self.focal) == sorted(self.focal), "the smaller one first"),
            ("fov", self.fov is None or 0 < self.fov < 180, "between 0 and 180 degrees"),
        )


def rescale(config: RescaleConfig) -> None:
    """Runs `das rescale`; prints a line per file.

    Raises:
        ValueError: a file is missing, no result with what is needed, or was written for an image of another size than
            the camera's; or an output cannot be written. All results are read before the first is written.
    """
    out = Path(config.out)
    files = [file for name in config.results for file in _files(Path(name))]
    targets = [out / file.name for file in files]
    for file, target in zip(files, targets, strict=True):
        if targets.count(target) > 1:
            raise ValueError(f"{file}: another file of this name is rescaled too, wanted each name once")
        if os.path.realpath(file) == os.path.realpath(target):
            raise ValueError(f"{file} would replace itself, wanted another --out")
    check_folder(out)
    refuse_foreign(targets)
    for file in files:
        for _ in _rescaled(file, config):
            pass
    from pipeline.infra.files import write_bytes  # here: it imports pyarrow

    for file, target in zip(files, targets, strict=True):
        values = list(_rescaled(file, config))
        if file.suffix == ".json":
            text = json.dumps(values[0], indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        else:
            text = "".join(json.dumps(value) + "\n" for value in values)
        with writing(target):
            write_bytes(target, text.encode())
        people = sum(len(value["people"]) for value in values)
        focals = " to ".join(f"{f:.0f}" for f in config.focal) or f"{values[0]['camera']['focal_px']:.0f}"
        print(f"{file}: {len(values)} images, {people} people, focal length {focals} px: {target}")


def rescaled(value: Mapping[str, Any], K: np.ndarray, distortion: np.ndarray, source: CameraSource) -> dict[str, Any]:
    """The JSON object of a photo or frame, for another camera.

    Args:
        value: as ``Prediction.to_json`` gives it.
        K: (3, 3) intrinsics, pixels of the same image.
        distortion: (5,) or (12,).
        source: how they are known.
    """
    focal = float(mean_focal(K))
    camera = {
        "source": source.kind,
        "assumed": source.kind == "assumed",
        "numbers": dict(source.numbers),
        "remark": source.remark,
        "focal_px": focal,
        "K": K.tolist(),
        "distortion": distortion.tolist(),
    }
    people = []
    for person in value["people"]:
        root = person["root_depth_over_focal"] * focal
        uv = np.array([person["root_uv"], *person["joints_uv"]], dtype=np.float64)
        depth = root + np.array([0.0, *person["depths_from_root"]])
        cam = back_project(uv, depth, K, distortion)
        doubt = {}
        if person.get("root_p90_mm") is not None:  # a share of the distance
            ratio = np.linalg.norm(cam[0]) / np.linalg.norm(person["root_cam"])
            doubt = {"root_p90_mm": round(person["root_p90_mm"] * float(ratio), 1)}
        cam = cam.round(3).tolist()
        people.append({**person, "root_cam": cam[0], "joints_cam": cam[1:], **doubt})
    return {**value, "camera": camera, "people": people}


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = [file for file in sorted(path.iterdir()) if file.suffix in _KINDS and is_own(file)]
        if not found:
            raise ValueError(f"{path}: no .json or .jsonl there that `das predict` wrote")
        return found
    if path.suffix in (".csv", ".parquet", ".html"):
        raise ValueError(f"{path}: rescaled are the .json and .jsonl beside it, which hold what is needed")
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if path.suffix not in _KINDS or not is_own(path):
        raise ValueError(f"{path}: not written by `das predict`, wanted its .json or .jsonl")
    return [path]


def _rescaled(file: Path, config: RescaleConfig) -> Iterator[dict[str, Any]]:
    """The objects of a file, rescaled; each line of .jsonl is one."""
    data = file.read_bytes()
    for number, part in enumerate([data] if file.suffix == ".json" else data.splitlines(), 1):
        where = str(file) if file.suffix == ".json" else f"{file}: line {number}"
        try:
            yield _of_config(json.loads(part), config)
        except KeyError as error:
            raise ValueError(f"{where}: no {error} in it; predict again with this version") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{where}: {error}") from error


def _of_config(value: Mapping[str, Any], config: RescaleConfig) -> dict[str, Any]:
    size = value["image"]["height"], value["image"]["width"]
    if config.camera is not None:
        from pipeline.predict.camera_file import read_camera_file  # here: it imports pyarrow

        given = read_camera_file(config.camera, Path(value.get("photo", value.get("video"))), config.camera_name)
        if given.size not in (None, size):
            found, wanted = (f"{s[1]}x{s[0]}" for s in (size, given.size or size))
            raise ValueError(f"{found} pixels, but the camera is calibrated for {wanted}")
        check_intrinsics(given.K, size)
        return rescaled(value, given.K, given.distortion, CameraSource("given"))
    old, lens = (np.array(value["camera"][name], dtype=np.float64) for name in ("K", "distortion"))
    if config.fov is not None:
        focal = float(intrinsics_from_fov(size[1], size[0], config.fov)[0, 0])
        return rescaled(value, _with_focal(old, focal), lens, CameraSource("assumed", {"fov_degrees": config.fov}))
    focal = sum(config.focal) / len(config.focal)
    K = _with_focal(old, focal)
    check_intrinsics(K, size)
    new = rescaled(value, K, lens, CameraSource("given"))
    return _with_intervals(new, config.focal) if len(config.focal) == 2 else new


def _with_focal(K: np.ndarray, focal: float) -> np.ndarray:
    """The intrinsics with another mean focal length; principal point and ratio of the focal lengths stay."""
    new = K.copy()
    new[:2, :2] *= focal / mean_focal(K)
    return new


def _with_intervals(value: dict[str, Any], focals: Sequence[float]) -> dict[str, Any]:
    people = [
        {**person, "root_depth_interval": [round(person["root_depth_over_focal"] * f, 3) for f in focals]}
        for person in value["people"]
    ]
    units = {**value["units"], "root_depth_interval": "mm, for the focal lengths of camera.focal_interval_px"}
    return {**value, "units": units, "camera": {**value["camera"], "focal_interval_px": list(focals)}, "people": people}

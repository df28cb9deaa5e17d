"""What a checkpoint says of itself, without torch: its config.json, and the names and shapes of its weights.

A checkpoint may come from anywhere, so its files are bounded before they are read. ``check_folder`` compares
config.json with the header of model.safetensors. A folder that asks for more than its file holds is refused before
torch is imported, which takes over a second, and before memory is taken for a network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors

from das.config import DASConfig
from das.fields import check_fields, check_json, check_types, check_values
from das.recipe import InputSize
from das.uncertainty import Calibration

FORMAT = 1
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CRITERION_FILE = "criterion.safetensors"
TRAINING_STATE_FILE = "training_state.pt"
MAX_CONFIG_BYTES = 1 << 22
"""Largest config.json that is read. Ours have a few kB; lists of sources and fingerprints could make them longer."""
MAX_HEADER_BYTES = 1 << 23
"""Longest header of a safetensors file that is read. Ours have about 100 bytes a tensor and below 2000 tensors."""
_DATA_FIELDS = {"sources", "fingerprints", "terms", "split"}

Shapes = dict[str, tuple[int, ...]]
"""Shape of every tensor of a file, by its name."""


@dataclass(frozen=True)
class Origin:
    """Where weights come from that were not trained here, and what their owners say that they were trained on."""

    file: str
    """Name of the imported file."""
    sha256: str
    """Of the file, 64 hex digits."""
    experiment: str
    """Experiment of the official release: panoptic or mupots."""
    trained_on: tuple[str, ...]
    """Splits that its training has seen, such as ``panoptic/train``; which of their images is not recorded."""

    def __post_init__(self) -> None:
        check_types(self)

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``from_json`` inverts it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Origin:
        """From a plain dict; ValueError names unknown, missing or bad fields."""
        check_json(cls, value, "origin")
        return cls(**{**value, "trained_on": tuple(value["trained_on"])})


_OPTIONAL: dict[str, type[Origin] | type[Calibration]] = {"origin": Origin, "calibration": Calibration}
"""Fields of config.json that many checkpoints lack."""


@dataclass(frozen=True)
class ModelInfo:
    """Everything about a trained model but its weights: the content of config.json."""

    model: DASConfig
    """Architecture, units, assignment, loss and decoding."""
    test_size: InputSize
    """Size that images are resized to for prediction."""
    weights: str
    """``ema``: model.safetensors holds the moving average; ``raw``: the last step's weights."""
    score_threshold: float
    """Score above which a candidate counts as a person, chosen on the val split."""
    unsupervised_joints: tuple[str, ...]
    """Joints without a label in any training image; predictions leave them out."""
    recipe: dict[str, Any]
    """The data recipe, as JSON."""
    data: dict[str, Any]
    """Training data, those of the checkpoint it started from included: ``sources``, ``fingerprints`` and ``terms``
    (lists of strings), ``split`` (string)."""
    code_version: str
    """Version of the code that trained the model."""
    mean_pose: tuple[tuple[float, float, float], ...] | None
    """J x (x, y, z) mm: the training split's mean root-aligned pose in camera axes, the baseline; None where it is not
    known, as of imported weights."""
    origin: Origin | None = None
    """Where the weights come from, or those that their training started from; None for weights trained here alone."""
    calibration: Calibration | None = None
    """Radii of doubt, from the val split; None where no person of it was found."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "unsupervised_joints", tuple(self.unsupervised_joints))
        if self.mean_pose is not None:
            object.__setattr__(self, "mean_pose", tuple(tuple(map(float, joint)) for joint in self.mean_pose))
        for name in ("recipe", "data"):  # as they will be read again: lists for tuples
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name), allow_nan=False)))
        joints = self.model.skeleton.joints
        unknown_joints = set(self.unsupervised_joints) - set(joints)
        if self.mean_pose is None:
            mean_pose = self.origin is not None
        else:
            mean_pose = list(map(len, self.mean_pose)) == [3] * len(joints)
        check_values(
            self,
            ("weights", self.weights in ("ema", "raw"), "ema or raw"),
            ("score_threshold", 0 <= self.score_threshold < 1, "0 <= x < 1"),
            ("unsupervised_joints", not unknown_joints, f"some of {', '.join(joints)}"),
            ("data", set(self.data) == _DATA_FIELDS, f"the fields {sorted(_DATA_FIELDS)}"),
            ("mean_pose", mean_pose, f"{len(joints)} x 3 numbers"),
        )

    @property
    def imported(self) -> bool:
        """The weights are as they were imported: no training of this project has changed them."""
        return self.origin is not None and not self.data["fingerprints"]

    def to_json(self) -> dict[str, Any]:
        """The content of config.json; ``from_json`` inverts it."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain |= {"format": FORMAT, "model": self.model.to_json(), "test_size": asdict(self.test_size)}
        for name in _OPTIONAL:  # many checkpoints lack them, and older versions of this code do not know the fields
            if plain[name] is None:
                del plain[name]
            else:
                plain[name] = plain[name].to_json()
        return plain

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ModelInfo:
        """Inverse of ``to_json``; ValueError names another format, unknown, missing or bad fields."""
        if value.get("format") != FORMAT:
            raise ValueError(f"checkpoint format {value.get('format')!r} found, {FORMAT} wanted")
        known = {f.name for f in fields(cls)} - set(_OPTIONAL)
        check_fields(set(value) - {"format"}, known, optional=_OPTIONAL)
        parts: dict[str, Any] = {
            "model": DASConfig.from_json(value["model"]),
            "test_size": InputSize(**value["test_size"]),
            **{name: kind.from_json(value[name]) for name, kind in _OPTIONAL.items() if name in value},
        }
        return cls(**{**{name: value[name] for name in known}, **parts})


def check_folder(folder: str | Path) -> ModelInfo:
    """The description of a checkpoint whose weights can be of the size that it states; no network is built.

    Raises:
        ValueError: no such folder, a file missing or unreadable, config.json of another format or with wrong fields, or
            one that asks for a larger network than the file holds.
    """
    info = load_info(folder)
    check_sizes(Path(folder) / WEIGHTS_FILE, info.model)
    return info


def load_info(folder: str | Path) -> ModelInfo:
    """config.json alone; ValueError as in ``check_folder``."""
    path = existing_file(folder, CONFIG_FILE)
    try:
        if (size := path.stat().st_size) > MAX_CONFIG_BYTES:
            raise ValueError(f"found {size} bytes, wanted at most {MAX_CONFIG_BYTES}")
        return ModelInfo.from_json(json.loads(path.read_text()))
    except RecursionError as error:
        raise ValueError(f"{path}: found lists in lists too deep to read, wanted the fields of a model") from error
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, OSError) as error:
        raise ValueError(f"{path}: {(str(error) or type(error).__name__)[:500]}") from error


def check_sizes(path: Path, config: DASConfig) -> Shapes:
    """The shapes of a safetensors file that holds tensors as wide, and as many, as a configuration asks for.

    Raises:
        ValueError: the file is unreadable or its tensors are smaller.
    """
    found = tensor_shapes(path)
    # Every width is the size of some tensor's axis, and every level has tensors. Tensors without elements take no place
    # in the file, so their axes prove nothing.
    widest = max((size for shape in found.values() if math.prod(shape) for size in shape), default=0)
    bounds = {
        "backbone_width": (config.backbone_width, widest),
        "fpn_channels": (config.fpn_channels, widest),
        "update_samples": (config.update_samples if config.update in ("multi", "release") else 0, widest),
        "skeleton": (config.n_joints, widest),
        "strides": (len(config.strides), len(found)),
    }
    for name, (width, most) in bounds.items():
        if width > most:
            raise ValueError(f"{path} is of another architecture: config.json has {name} of {width}, found {most}")
    return found


def tensor_shapes(path: Path) -> Shapes:
    """Shape of every tensor of a safetensors file, from its header; ValueError for a file that is none.

    The header is checked against the length of the file: shapes that it states are there.
    """
    existing_file(path.parent, path.name)
    try:
        with path.open("rb") as file:
            if (length := int.from_bytes(file.read(8), "little")) > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes, wanted at most {MAX_HEADER_BYTES}")
        with safetensors.safe_open(path, "numpy") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error


def shape_differences(found: Shapes, wanted: Shapes) -> str:
    """In what the tensors of a file differ from those of a network: counts and first names; empty if in nothing."""
    other = [name for name in wanted if found.get(name, wanted[name]) != wanted[name]]
    kinds = (
        ("missing", [name for name in wanted if name not in found]),
        ("of another shape", [f"{name} {found[name]} for {wanted[name]}" for name in other]),
        ("unused", [name for name in found if name not in wanted]),
    )
    return "; ".join(f"{len(names)} {kind} ({first_names(names)})" for kind, names in kinds if names)


def first_names(names: Collection[str], most: int = 3) -> str:
    """The first of some names, each cut to 100 characters; an ellipsis stands for the others."""
    shown = [name[:100] for name in list(names)[:most]]
    return ", ".join(shown + ["..."] * (len(names) > most))


def existing_file(folder: str | Path, name: str) -> Path:
    """Path of one of a checkpoint's files; ValueError without the folder, or where no regular file has this name."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; a checkpoint folder was wanted")
    path = folder / name
    if not path.is_file():
        state = "is a pipe, device or folder" if path.exists() else "is missing"
        raise ValueError(f"{folder} is no complete checkpoint: {name} {state}")
    return path

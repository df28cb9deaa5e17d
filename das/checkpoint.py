"""A checkpoint is a folder of readable files; loading one never executes code from it.

    model.safetensors        weights of the network, the moving average where training keeps one (``weights``)
    config.json              ``ModelInfo``: architecture, input size, threshold, recipe, data, code version
    criterion.safetensors    the flows of the likelihood loss; training needs them, inference does not
    training_state.pt        optimiser, schedule, epoch, raw weights, random state: plain values and tensors

Each file is written under a temporary name and renamed, so a reader never sees an incomplete one.

A checkpoint may come from anywhere, so its files are bounded before they are read, and config.json is compared with
the names and shapes in the header of model.safetensors before a network is built: memory is taken for what the file
holds, not for what a config.json asks for.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from das.config import DASConfig
from das.fields import check_fields, check_values
from das.model import DAS
from das.recipe import InputSize

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
    mean_pose: tuple[tuple[float, float, float], ...]
    """J x (x, y, z) mm: the training split's mean root-aligned pose in camera axes, the baseline."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "unsupervised_joints", tuple(self.unsupervised_joints))
        object.__setattr__(self, "mean_pose", tuple(tuple(map(float, joint)) for joint in self.mean_pose))
        for name in ("recipe", "data"):  # as they will be read again: lists for tuples
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name), allow_nan=False)))
        joints = self.model.skeleton.joints
        unknown_joints = set(self.unsupervised_joints) - set(joints)
        check_values(
            self,
            ("weights", self.weights in ("ema", "raw"), "ema or raw"),
            ("score_threshold", 0 <= self.score_threshold < 1, "0 <= x < 1"),
            ("unsupervised_joints", not unknown_joints, f"some of {', '.join(joints)}"),
            ("data", set(self.data) == _DATA_FIELDS, f"the fields {sorted(_DATA_FIELDS)}"),
            ("mean_pose", list(map(len, self.mean_pose)) == [3] * len(joints), f"{len(joints)} x 3 numbers"),
        )

    def to_json(self) -> dict[str, Any]:
        """The content of config.json; ``from_json`` inverts it."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"format": FORMAT, **plain, "model": self.model.to_json(), "test_size": asdict(self.test_size)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ModelInfo:
        """Inverse of ``to_json``; ValueError names another format, unknown, missing or bad fields."""
        if value.get("format") != FORMAT:
            raise ValueError(f"checkpoint format {value.get('format')!r} found, {FORMAT} wanted")
        known = {f.name for f in fields(cls)}
        check_fields(set(value) - {"format"}, known)
        parts = {"model": DASConfig.from_json(value["model"]), "test_size": InputSize(**value["test_size"])}
        return cls(**{**{name: value[name] for name in known}, **parts})


def save_model(folder: str | Path, model: DAS, info: ModelInfo) -> None:
    """Writes model.safetensors and config.json into ``folder``, which is made if needed.

    ``model`` holds the weights for inference: the moving average where ``info.weights`` is ema.
    """
    # Val may have chosen another suppression than the network was built with; no weight depends on it.
    suppressed = replace(model.config, oks_threshold=info.model.oks_threshold)
    assert suppressed == info.model, "the weights belong to the architecture that config.json states"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_tensors(folder / WEIGHTS_FILE, model)
    text = json.dumps(info.to_json(), indent=2, allow_nan=False) + "\n"
    _write(folder / CONFIG_FILE, lambda path: path.write_text(text))


def load_model(folder: str | Path) -> tuple[DAS, ModelInfo]:
    """The network in eval mode on the CPU, and its description.

    Raises:
        ValueError: no such folder, a file missing or unreadable, config.json of another format or with wrong
            fields, or weights that are not of the architecture it states (first differing tensor named). A
            config.json that asks for another network than the file holds is refused before that network is built.
    """
    info = load_info(folder)
    path = Path(folder) / WEIGHTS_FILE
    _check_architecture(path, info.model)
    model = DAS(info.model)
    load_tensors(path, model)
    return model.eval(), info


def load_info(folder: str | Path) -> ModelInfo:
    """config.json alone; ValueError as in ``load_model``."""
    path = _existing(folder, CONFIG_FILE)
    try:
        if (size := path.stat().st_size) > MAX_CONFIG_BYTES:
            raise ValueError(f"found {size} bytes, wanted at most {MAX_CONFIG_BYTES}")
        return ModelInfo.from_json(json.loads(path.read_text()))
    except RecursionError as error:
        raise ValueError(f"{path}: found lists in lists too deep to read, wanted the fields of a model") from error
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, OSError) as error:
        raise ValueError(f"{path}: {(str(error) or type(error).__name__)[:500]}") from error


def save_criterion(folder: str | Path, criterion: nn.Module) -> None:
    """Writes criterion.safetensors (the flows) into ``folder``."""
    _write_tensors(Path(folder) / CRITERION_FILE, criterion)


def load_criterion(folder: str | Path, criterion: nn.Module) -> None:
    """Reads the flows into ``criterion``; ValueError as in ``load_model``."""
    load_tensors(_existing(folder, CRITERION_FILE), criterion)


def save_training_state(folder: str | Path, state: dict[str, Any]) -> None:
    """Writes training_state.pt: a tree of dicts, lists, tuples, tensors, numbers, strings, bools and None.

    Other objects could be saved but not loaded again (``weights_only``), so they raise TypeError here, named.
    """
    _check_plain(state, "state")
    _write(Path(folder) / TRAINING_STATE_FILE, lambda path: torch.save(state, path))


def load_training_state(folder: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state; ValueError if the file is missing or holds more than plain values and tensors."""
    path = _existing(folder, TRAINING_STATE_FILE)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch has no common type for truncated, foreign and unsafe files
        raise ValueError(f"{path} is no training state: {str(error).splitlines()[0]}") from error


def fresh_tensors(folder: str | Path, model: DASConfig) -> tuple[str, ...]:
    """Tensors that a model of this configuration cannot start from a checkpoint with: those of other joints.

    None when the joints and their root are the same; else all whose shape follows from the number of joints, even
    where the numbers agree, because a channel means another joint then.

    Raises:
        ValueError: as ``load_info``.
    """
    theirs, ours = load_info(folder).model.skeleton, model.skeleton
    if (theirs.joints, theirs.root) == (ours.joints, ours.root):
        return ()
    more = replace(ours, joints=(*ours.joints, "one more"))
    with torch.device("meta"):  # shapes alone
        tensors, others = (DAS(replace(model, skeleton=s)).state_dict() for s in (ours, more))
    return tuple(name for name in tensors if tensors[name].shape != others[name].shape)


def load_tensors(path: str | Path, module: nn.Module, fresh: Collection[str] = ()) -> None:
    """Copies a safetensors file into a module of exactly these tensors, names and shapes.

    Args:
        path: the file.
        module: what they are copied into.
        fresh: tensors of the module that stay as they are, whatever the file has under their names.

    Raises:
        ValueError: unreadable file, or tensors that are missing, unknown or of another shape; the first ones
            are named with what was found and what was wanted.
    """
    path, wanted = Path(path), module.state_dict()
    _compare_shapes(path, _shapes(path), {name: tuple(value.shape) for name, value in wanted.items()}, fresh)
    found = load_file(path)
    module.load_state_dict({name: (wanted if name in fresh else found)[name] for name in wanted})


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a safetensors file, from its header; ValueError for a file that is none.

    The header is checked against the length of the file: shapes that it states are there.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        with path.open("rb") as file:
            if (length := int.from_bytes(file.read(8), "little")) > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes, wanted at most {MAX_HEADER_BYTES}")
        with safetensors.safe_open(path, "pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error


def _check_architecture(path: Path, config: DASConfig) -> None:
    """Compares the network of a configuration with the header of a safetensors file, without memory for either.

    Raises:
        ValueError: the file is unreadable or is of another architecture.
    """
    found = _shapes(path)
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
    with torch.device("meta"):  # shapes alone
        try:
            wanted = DAS(config).state_dict()
        except RuntimeError as error:  # a tensor of more bytes than 64 bits count
            asked = f"backbone_width {config.backbone_width}, fpn_channels {config.fpn_channels}"
            raise ValueError(f"{path} is of another architecture: config.json has {asked}") from error
    _compare_shapes(path, found, {name: tuple(value.shape) for name, value in wanted.items()})


def _compare_shapes(
    path: Path,
    found: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    fresh: Collection[str] = (),
) -> None:
    """ValueError names the first tensors, ``fresh`` ones left out, that differ between a file and a network."""
    names = [*wanted, *(name for name in found if name not in wanted)]
    wrong = [name for name in names if name not in fresh and found.get(name) != wanted.get(name)]
    if wrong:
        said = [f"{n[:100]}: found {found.get(n, 'nothing')}, wanted {wanted.get(n, 'nothing')}" for n in wrong[:3]]
        raise ValueError(f"{path} is of another architecture, {len(wrong)} tensors differ: {'; '.join(said)}")


def _write_tensors(path: Path, module: nn.Module) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    _write(path, lambda staging: save_file(tensors, staging))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    staging = path.with_name(f".{path.name}.{os.getpid()}.staging")
    try:
        write(staging)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def _existing(folder: str | Path, name: str) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; a checkpoint folder was wanted")
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{folder} is no complete checkpoint: {name} is missing")
    return path


def _check_plain(value: object, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(key, f"key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_plain(item, f"{where}[{i}]")
    elif not (value is None or type(value) in (bool, int, float, str, Tensor)):
        raise TypeError(f"{where} is a {type(value).__qualname__}, wanted a plain value or tensor")

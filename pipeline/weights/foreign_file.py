"""Files of weights that others wrote, read without executing anything from them, whatever they turn out to be."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from das.model_info import first_names, tensor_shapes
from pipeline.infra.regular_files import regular_file, unread

MAX_WEIGHTS_BYTES = 1 << 31
"""Largest file of weights that is read, bytes. The release's larger model, with its optimiser's state, has 0.8 GB."""
_WRAPPERS = ("state_dict", "model")
_PARALLEL = "module."  # data-parallel wrappers put it before all names


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .pth, .pt or .safetensors file, by name, on the CPU.

    A state dict in an entry ``state_dict`` or ``model`` is taken from there, and the entries beside it are left; so is
    the prefix ``module.``, if all names have it.

    Raises:
        ValueError: in one line with the file: missing, a folder, pipe or device, empty, too large, not of this kind,
            or one that needs more than tensors and plain values to be made; names what it needs.
    """
    path = Path(path)
    try:
        regular_file(path, MAX_WEIGHTS_BYTES)
    except OSError as error:
        raise ValueError(f"{unread(error)}, wanted a file of weights") from error
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty, wanted a file of weights")
    if path.suffix == ".safetensors":
        tensor_shapes(path)  # its ValueError says what is wrong with the header
        state: Mapping[Any, Any] = safetensors.torch.load_file(path)
    else:
        state = _state_dict(path, _unpickled(path))
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or not _is_plain(value):
            raise ValueError(f"{path}: {str(name)[:100]} is no plain tensor, wanted tensors by name only")
    if not state:
        raise ValueError(f"{path} holds no tensors")
    prefix = _PARALLEL if all(name.startswith(_PARALLEL) for name in state) else ""
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _unpickled(path: Path) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > MAX_WEIGHTS_BYTES:  # torch stores parts uncompressed, but reads compressed ones
            raise ValueError(f"{path}: its parts are {size} bytes, wanted at most {MAX_WEIGHTS_BYTES}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no common type for truncated, foreign and unsafe files
        if needed := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"{path} can only be read by calling {needed[1]}, which a file of weights does not need: refused"
            ) from error
        # Of an unsafe file torch's own text tells the reader to load it all the same.
        found = re.search(r"WeightsUnpickler error:\s*(.+)", str(error)) or re.match(
            r"(?!Weights only)(.+)", str(error)
        )
        reason = found[1][:200] if found else type(error).__name__
        raise ValueError(f"{path} is no file of weights that torch can read: {reason}") from error


def _state_dict(path: Path, content: object) -> Mapping[Any, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, wanted tensors by name")
    for name in _WRAPPERS:
        if isinstance(inner := content.get(name), Mapping):
            return inner
    if content and not any(isinstance(value, Tensor) for value in content.values()):
        names = first_names([str(name) for name in content])
        raise ValueError(f"{path} holds {names}, wanted tensors by name, or {' or '.join(_WRAPPERS)} with these")
    return content


def _is_plain(value: Tensor) -> bool:
    return value.device.type == "cpu" and value.layout == torch.strided and not value.is_quantized

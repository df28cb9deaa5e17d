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
import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from das.config import DASConfig
from das.model import DAS
from das.model_info import (
    CONFIG_FILE,
    CRITERION_FILE,
    TRAINING_STATE_FILE,
    WEIGHTS_FILE,
    ModelInfo,
    Shapes,
    check_sizes,
    existing_file,
    load_info,
    tensor_shapes,
)


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


def save_criterion(folder: str | Path, criterion: nn.Module) -> None:
    """Writes criterion.safetensors (the flows) into ``folder``."""
    _write_tensors(Path(folder) / CRITERION_FILE, criterion)


def load_criterion(folder: str | Path, criterion: nn.Module) -> None:
    """Reads the flows into ``criterion``; ValueError as in ``load_model``."""
    load_tensors(existing_file(folder, CRITERION_FILE), criterion)


def save_training_state(folder: str | Path, state: dict[str, Any]) -> None:
    """Writes training_state.pt: a tree of dicts, lists, tuples, tensors, numbers, strings, bools and None.

    Other objects could be saved but not loaded again (``weights_only``), so they raise TypeError here, named.
    """
    _check_plain(state, "state")
    _write(Path(folder) / TRAINING_STATE_FILE, lambda path: torch.save(state, path))


def load_training_state(folder: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state; ValueError if the file is missing or holds more than plain values and tensors."""
    path = existing_file(folder, TRAINING_STATE_FILE)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch has no common type for truncated, foreign and unsafe files
        reason = (str(error) or type(error).__name__).splitlines()[0]  # of an empty file there is no text
        raise ValueError(f"{path} is no training state: {reason}") from error


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
    tensors, others = (network_shapes(replace(model, skeleton=s)) for s in (ours, more))
    return tuple(name for name in tensors if tensors[name] != others[name])


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
    _compare_shapes(path, tensor_shapes(path), {name: tuple(value.shape) for name, value in wanted.items()}, fresh)
    found = load_file(path)
    module.load_state_dict({name: (wanted if name in fresh else found)[name] for name in wanted})


def _check_architecture(path: Path, config: DASConfig) -> None:
    """Compares the network of a configuration with the header of a safetensors file, without memory for either.

    Raises:
        ValueError: the file is unreadable or is of another architecture.
    """
    found = check_sizes(path, config)
    try:
        wanted = network_shapes(config)
    except RuntimeError as error:  # a tensor of more bytes than 64 bits count
        asked = f"backbone_width {config.backbone_width}, fpn_channels {config.fpn_channels}"
        raise ValueError(f"{path} is of another architecture: config.json has {asked}") from error
    _compare_shapes(path, found, wanted)


def network_shapes(config: DASConfig) -> Shapes:
    """Shapes of a network's tensors; memory is taken for none of them."""
    with torch.device("meta"), _WithoutFilling():
        return {name: tuple(value.shape) for name, value in DAS(config).state_dict().items()}


class _WithoutFilling(TorchFunctionMode):
    """Initialisers do nothing. On the meta device random ones would import torch._dynamo and sympy, for a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        fills = getattr(func, "__module__", "") == nn.init.__name__ or func in (Tensor.normal_, Tensor.uniform_)
        kwargs = kwargs or {}
        return (args or (kwargs["tensor"],))[0] if fills else func(*args, **kwargs)


def _compare_shapes(
    path: Path,
    found: Shapes,
    wanted: Shapes,
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

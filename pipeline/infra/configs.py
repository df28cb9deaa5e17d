"""Helpers for configuration dataclasses: choices of the command line, its device, and flat parameters for tracking."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from typing import Any

from tyro.constructors import PrimitiveConstructorSpec


def one_of(names: Iterable[str]) -> Any:
    """Annotation of a field that takes one of these names; the command line lists them and refuses others.

    ``variant: Annotated[str, one_of(VARIANTS)]`` follows the table, while a ``Literal`` would repeat its names.
    """
    choices = tuple(names)
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(choices) + "}",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
        choices=choices,
    )


def device_flag(cpu: Any, cuda: Any, auto: Any = None) -> Any:
    """Annotation of a field that ``--device cpu`` or ``--device cuda`` sets to one of two values; gpu means cuda.

    ``auto``, if given, is the value of ``--device auto``: the GPU where there is one. A field of another name takes
    ``tyro.conf.arg(name="device")`` too, a bool ``tyro.conf.FlagConversionOff``.
    """
    values = {"cpu": cpu, "cuda": cuda, "gpu": cuda}
    if auto is not None:
        values = {"auto": auto, **values}
    names = {value: name for name, value in reversed(values.items()) if name != "gpu"}
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(name for name in values if name != "gpu") + "}",
        instance_from_str=lambda words: values[words[0]],
        is_instance=lambda value: value in names,
        str_from_instance=lambda value: [names[value]],
        choices=tuple(values),
    )


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested dataclass or dict as one level of dotted names, for the parameters of a tracked run.

    ``{"model": {"width": 8}}`` becomes ``{"model.width": 8}``; an empty dict disappears. ``prefix`` begins every name.
    """
    items = config.items() if isinstance(config, dict) else asdict(config).items()
    out: dict[str, Any] = {}
    for key, value in items:
        if isinstance(value, dict) or (is_dataclass(value) and not isinstance(value, type)):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out

"""What all configuration dataclasses have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from typing import Any

from tyro.constructors import PrimitiveConstructorSpec


def one_of(names: Iterable[str]) -> Any:
    """Annotates a field that takes one of these names, so that the command line offers and checks them.

    ``variant: Annotated[str, one_of(VARIANTS)]``: a new entry of the table needs no second list.
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


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass or dict, with others nested in it, as one level of dotted names, for parameters of a tracked run."""
    items = config.items() if isinstance(config, dict) else asdict(config).items()
    out: dict[str, Any] = {}
    for key, value in items:
        if isinstance(value, dict) or (is_dataclass(value) and not isinstance(value, type)):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out

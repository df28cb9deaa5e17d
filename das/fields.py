"""Checks that every configuration shares: types, values, and JSON objects with exactly the known fields."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

NAME = "1 to 200 letters, digits, _ - . : and spaces, the first one no point or space"
"""What ``check_name`` wants, for messages."""


def check_types(config: object) -> None:
    """Refuses a dataclass's values that are not of their field's type: ValueError names the field.

    Lists, as JSON has them, become tuples where a tuple is wanted. Numbers must be finite; their ranges are
    the dataclass's own business (``check_values``).
    """

    def fits(value: Any, hint: Any) -> bool:
        if get_origin(hint) is Literal:
            return value in get_args(hint)
        if get_origin(hint) is tuple:
            if not isinstance(value, tuple):
                return False
            inner = get_args(hint)
            hints = (inner[0],) * len(value) if inner[-1] is Ellipsis else inner
            return len(value) == len(hints) and all(map(fits, value, hints))
        if isinstance(value, bool):
            return hint is bool
        if hint is float:
            return isinstance(value, int | float) and math.isfinite(value)
        return isinstance(value, hint)

    kind: Any = type(config)
    for name, hint in _type_hints(kind).items():
        value = getattr(config, name)
        if get_origin(hint) is tuple and isinstance(value, list):
            value = tuple(value)
            object.__setattr__(config, name, value)
        if not fits(value, hint):
            wanted = getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint)
            raise ValueError(f"{name} = {value!r}, wanted {wanted.replace('typing.', '')}")


def check_values(config: object, *checks: tuple[str, bool, str], what: str = "") -> None:
    """Refuses a configuration's values: ValueError names the field, the value found and the value wanted.

    Args:
        config: the dataclass.
        checks: (name of the field, whether its value is good, what is wanted); the first bad one is named.
        what: what the configuration is called in front of the field's name, if anything.
    """
    for name, good, wanted in checks:
        if not good:
            raise ValueError(f"{what and f'{what}: '}{name} = {getattr(config, name)!r}, wanted {wanted}")


def at_least(config: object, **least: float) -> None:
    """Refuses numbers below a bound: ``at_least(self, workers=1)``; None, for a field that may have it, passes."""
    values = {name: getattr(config, name) for name in least}
    checks = ((name, v is None or v >= least[name], f"at least {least[name]:g}") for name, v in values.items())
    check_values(config, *checks)


def check_threshold(config: object, name: str = "threshold") -> None:
    """Refuses a score threshold outside 0 <= x < 1; None, where the field may have it, passes."""
    value = getattr(config, name)
    check_values(config, (name, value is None or 0 <= value < 1, "0 <= x < 1"))


def check_name(config: object, name: str = "name") -> None:
    """Refuses a name that is no name of a folder; None, where the field may have it, passes.

    A name becomes a folder in the storage, or an object in it, and is part of a search expression of MLflow. So it is
    at most 200 of the characters that mean the same to all of them, and does not begin with a point: ``..`` is the
    folder above, and names that begin with one are hidden.
    """
    value = getattr(config, name)
    good = value is None or is_name(value)
    check_values(config, (name, good, NAME))


def is_name(value: object) -> bool:
    """Whether a value may be the name of a folder, see ``check_name``."""
    return isinstance(value, str) and re.fullmatch(r"[\w\-:][\w\-.: ]{0,199}", value, re.ASCII) is not None


def check_fields(found: Iterable[str], wanted: Iterable[str], what: str = "", optional: Iterable[str] = ()) -> None:
    """Refuses an object with other fields than the wanted ones: ValueError names unknown and missing ones.

    Args:
        found: names of its fields.
        wanted: those that it must have.
        what: what the object is, for the message; a file's name for example.
        optional: those that it may have.
    """
    found, wanted = set(found), set(wanted)
    unknown, missing = sorted(found - wanted - set(optional)), sorted(wanted - found)
    if unknown or missing:
        raise ValueError(f"{what and f'{what}: '}unknown fields {unknown}, missing fields {missing}")


def check_json(cls: type, value: Mapping[str, Any], what: str = "") -> None:
    """``check_fields`` of a JSON object against all fields of a dataclass."""
    check_fields(value, (f.name for f in fields(cls)), what)


def json_kind(value: Any) -> str:
    """What a value of a JSON file is, in JSON's own words: ``an object``, ``a list``, ``a number``."""
    if isinstance(value, bool):
        return "true or false"
    kinds = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


@cache  # hints are evaluated from their text, which takes longer than the checks; every augmentation makes a config
def _type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)

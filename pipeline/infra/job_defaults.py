"""What a job takes where its command line says nothing: from the environment, else from a file das.yaml.

So `ray job submit jobs/train_panoptic.py`, without any option, knows what to train on and where results go. The order
is command line, environment, das.yaml, default. das.yaml is looked for in the project's folder, which holds jobs/, and
then in the home folder of the machine that runs the job (the head of a cluster). A field that the first file does not
have is taken from the second:

    preset: small                                  # or DAS_PRESET
    prepared: [s3://bucket/panoptic, /data/coco]   # or DAS_PREPARED, with commas between the places
    storage: s3://bucket/runs                      # or DAS_STORAGE
    tracking_uri: http://HEAD:5000                 # or MLFLOW_TRACKING_URI

Relative paths in the file are relative to its folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from pipeline.infra.flags import did_you_mean
from pipeline.infra.redaction import redacted

PROJECT = Path(__file__).resolve().parents[2]
FILE = "das.yaml"
VARIABLES: Final = {
    "preset": "DAS_PRESET",
    "prepared": "DAS_PREPARED",
    "storage": "DAS_STORAGE",
    "tracking_uri": "MLFLOW_TRACKING_URI",
}
"""Field of das.yaml -> the variable of the environment that goes before it."""


@dataclass(frozen=True)
class Given:
    """What was found for a field.

    Attributes:
        values: one, or of the prepared data several.
        source: where it was found, for messages.
    """

    values: tuple[str, ...]
    source: str


def given(name: str) -> Given | None:
    """The value of a field of das.yaml from the environment or from a file; None where neither has it.

    Raises:
        ValueError: a das.yaml that is no mapping of known fields to texts (of ``prepared`` also a list of texts).
    """
    files = list(_files())  # a wrong file is refused also where the environment goes before it
    variable = VARIABLES[name]
    if text := os.environ.get(variable, "").strip():
        parts = text.split(",") if name == "prepared" else [text]
        return Given(tuple(part.strip() for part in parts if part.strip()), variable)
    for path, content in files:
        if name in content:
            return Given(content[name], str(path))
    return None


def given_value(name: str) -> str | None:
    """The same for a field of one value, without its source."""
    found = given(name)
    return found.values[0] if found else None


def how_to_give(name: str) -> str:
    """End of a message about a missing value: the ways to give it beside the command line."""
    return f"or set {VARIABLES[name]}, or `{name}:` in a {FILE} beside jobs/ or in {Path.home()}"


def _files() -> Iterator[tuple[Path, dict[str, tuple[str, ...]]]]:
    """(path, fields) of the files that exist."""
    for path in dict.fromkeys((PROJECT / FILE, Path.home() / FILE)):
        if path.is_file():
            try:
                content = yaml.safe_load(path.read_text())
            except yaml.YAMLError as error:
                raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
            if not isinstance(content, dict):
                raise ValueError(f"{path}: holds {content!r}, wanted fields: {', '.join(VARIABLES)}")
            yield path, {_known(path, name): _read(path, name, value) for name, value in content.items()}


def _known(path: Path, name: Any) -> str:
    if name in VARIABLES:
        return str(name)
    near = did_you_mean(str(name), VARIABLES)
    raise ValueError(f"{path}: unknown field {name!r}, wanted some of {', '.join(VARIABLES)}{near}")


def _read(path: Path, name: str, value: Any) -> tuple[str, ...]:
    """The field's texts, paths made absolute."""
    several = name == "prepared"
    values = value if several and isinstance(value, list) else [value]
    if not values or not all(isinstance(text, str) and text.strip() for text in values):
        wanted = "a text or a list of texts" if several else "a text"
        raise ValueError(f"{path}: {name} = {redacted(repr(value))}, wanted {wanted}")
    if name in ("prepared", "storage"):
        values = [text if "://" in text else str(path.parent / Path(text).expanduser()) for text in values]
    return tuple(values)

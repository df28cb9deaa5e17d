"""Names and texts as MLflow accepts them: allowed characters, limited lengths."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.infra.configs import flat
from pipeline.infra.redaction import redacted, redacted_values

PARAM_LENGTH = 500
"""Longest value of a parameter, characters; a longer one is cut and ends in its hash. MLflow allows 6000, its tables
show 500."""
TAG_LENGTH = 5000
"""Longest value of a tag, likewise; MLflow allows 8000."""
NOTE_LENGTH = 7500
"""Longest description of a run, likewise: it is a tag too."""
_NAME_LENGTH = 240  # MLflow allows 250


def parameters(values: Any) -> dict[str, str]:
    """A configuration as MLflow parameters: ``a.b.c`` -> text.

    Lists become JSON, other values their ``str``; addresses are redacted, and texts over PARAM_LENGTH cut.

    Args:
        values: a dataclass or dict, nested or flat.
    """
    return {valid_name(name): cut(_text(value), PARAM_LENGTH) for name, value in flat(values).items()}


def metric_values(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics with valid names; ValueError names a value that is no number."""
    values = {}
    for name, value in metrics.items():
        try:
            values[valid_name(name)] = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metric {name} = {value!r}, wanted a number") from error
    return values


def valid_name(name: str) -> str:
    """The name of a metric, parameter or tag in MLflow's characters and length: PCK@150 becomes PCK_150."""
    return re.sub(r"[^\w\-. :/]", "_", cut(name, _NAME_LENGTH), flags=re.ASCII)


def cut(text: str, length: int) -> str:
    """The text, or its beginning and hash in ``length`` characters: two different long texts stay different."""
    if len(text) <= length:
        return text
    ending = f"... [{len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}]"
    return text[: length - len(ending)] + ending


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return json.dumps(redacted_values(value), default=str)
    return redacted(str(value))

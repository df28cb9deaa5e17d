"""What all configuration dataclasses have in common."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested dataclass or dict as one level of dotted names, for parameters of a tracked run."""
    items = config.items() if isinstance(config, dict) else asdict(config).items()
    out: dict[str, Any] = {}
    for key, value in items:
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out

"""A split manifest for sequences that no committed one has, as commands that work when they are typed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence


def manifest_file(sequences: Sequence[str]) -> str:
    """Name of the proposed file: that of the first sequence, in plain letters."""
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in sequences[0]) + ".json"


def check_command(root: str, sequences: Sequence[str]) -> str:
    """The command that checks a folder against the proposed file."""
    return shlex.join(["das", "doctor", "data", root, "--split-manifest", manifest_file(sequences)])


def proposal(root: str, sequences: Sequence[str], cameras: Sequence[str]) -> list[str]:
    """Lines of the report: how to write the manifest, and the command that uses it.

    Args:
        root: folder of the data set.
        sequences: that the manifest shall have, one or more.
        cameras: that it shall read of each.
    """
    file = manifest_file(sequences)
    parts = [{"sequence": name, "split": "test"} for name in sequences]
    content = json.dumps({"name": file.removesuffix(".json"), "parts": parts, "cameras": [*cameras]})
    return [
        "write a split manifest, here with all of them as test (train and val are the others), and use it:",
        f"printf '%s' {shlex.quote(content)} > {file}",
        check_command(root, sequences),
    ]

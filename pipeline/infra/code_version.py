"""The version of the code that made a file: release and commit, or a hash of the sources."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[2]


def code_version(project: Path = _PROJECT) -> str:
    """``0.1.0+git.<commit>``, with ``.dirty`` when tracked files differ from the commit.

    Without a git repository (``ray job submit`` does not copy .git) it is ``0.1.0+src.<hash>``, a hash of the Python
    sources, which still distinguishes two states of the code.
    """
    version = importlib.metadata.version("das-pose") if _installed("das-pose") else "0"
    # A copy of the project inside another repository must not be given that repository's commit.
    top = _git(project, "rev-parse", "--show-toplevel")
    if top is not None and Path(top).resolve() == project.resolve():
        commit = _git(project, "rev-parse", "HEAD")
        if commit:
            dirty = _git(project, "status", "--porcelain", "--untracked-files=no")
            return f"{version}+git.{commit[:12]}" + (".dirty" if dirty else "")
    digest = hashlib.sha256()
    for path in sorted(p for package in ("das", "pipeline", "jobs") for p in (project / package).rglob("*.py")):
        digest.update(f"{path.relative_to(project)}\0".encode() + path.read_bytes())
    return f"{version}+src.{digest.hexdigest()[:12]}"


def _installed(distribution: str) -> bool:
    return any(importlib.metadata.distributions(name=distribution))


def _git(folder: Path, *arguments: str) -> str | None:
    """Standard output of git; None without git or outside a repository."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None

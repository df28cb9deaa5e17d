"""requirements.lock is the whole environment, in a form that every index can serve."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)( ; .+)?")


def pins(text: str) -> dict[str, str]:
    """Canonical name -> version; ValueError names the first line that is no plain pin."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = PIN.fullmatch(line)
        if match is None:
            raise ValueError(f"{line!r} is no plain name==version")
        if match[3]:
            Marker(match[3].removeprefix(" ; "))
        found[canonicalize_name(match[1])] = match[2]
    return found


@pytest.fixture(scope="module")
def lock() -> dict[str, str]:
    return pins((PROJECT / "requirements.lock").read_text())


def test_lock_has_no_local_versions_and_no_addresses():
    text = (PROJECT / "requirements.lock").read_text()
    assert "+" not in text and "://" not in text


@pytest.mark.parametrize(
    "line", ["torch==2.13.0+cpu", "torch @ https://host/torch.whl", "torch>=2.13", "--index-url x", "-e .", "torch"]
)
def test_anything_but_a_plain_pin_is_refused(line):
    with pytest.raises(ValueError, match="no plain name==version"):
        pins(f"numpy==2.4.6\n{line}\n")


def direct_requirements() -> list[Requirement]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return [
        Requirement(r) for group in (project["dependencies"], *project["optional-dependencies"].values()) for r in group
    ]


def test_every_direct_dependency_is_pinned_inside_its_range(lock):
    for requirement in direct_requirements():
        assert requirement.specifier.contains(lock[canonicalize_name(requirement.name)]), requirement


def test_the_lock_is_what_the_project_needs_and_nothing_else(lock):
    """Follows the requirements of the installed distributions, with the extras that are asked for."""
    needed: dict[str, set[str]] = {}

    def need(requirement: Requirement) -> None:
        name = canonicalize_name(requirement.name)
        if name in needed and requirement.extras <= needed[name]:
            return
        needed[name] = needed.get(name, set()) | requirement.extras
        for further in map(Requirement, importlib.metadata.requires(name) or []):
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in {"", *needed[name]}):
                need(further)

    for requirement in direct_requirements():
        need(requirement)
    # What torch's GPU build brings on Linux is pinned by torch itself and absent from its CPU build.
    cuda = {name for name in needed if name.startswith(("nvidia-", "cuda-")) or name == "triton"}
    cuda -= {canonicalize_name(requirement.name) for requirement in direct_requirements()}
    assert set(needed) - cuda == set(lock)


def test_the_installed_environment_is_the_locked_one(lock):
    installed = {name: importlib.metadata.version(name).partition("+")[0] for name in lock}
    assert installed == lock


def test_exactly_one_opencv_is_installed():
    names = {canonicalize_name(d.metadata["Name"]) for d in importlib.metadata.distributions()}
    assert {name for name in names if name.startswith("opencv")} == {"opencv-python-headless"}

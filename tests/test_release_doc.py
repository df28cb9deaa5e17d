"""docs/release.md names files, fields and functions: each is found in the code."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PAGE = PROJECT / "docs" / "release.md"


def rows() -> list[tuple[str, str]]:
    """(file, name) of every row of the page's tables; a name may be ``Class.member``."""
    cells = [line.split("|")[1:3] for line in PAGE.read_text().splitlines() if re.match(r"\| *`", line)]
    return [(file.strip().strip("`"), name.strip().strip("`")) for file, name in cells]


def defined(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a module or class defines: functions, classes and assigned names."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return found


def has(file: Path, name: str) -> bool:
    """Whether a file defines a name, or a class of it the member."""
    body = ast.parse(file.read_text()).body
    for part in name.split("."):
        names = defined(body)
        if part not in names:
            return False
        body = getattr(names[part], "body", [])
    return True


def test_the_tables_have_rows():
    assert len(rows()) > 50


@pytest.mark.parametrize(("file", "name"), rows())
def test_every_file_and_name_of_the_page_exists(file, name):
    assert (PROJECT / file).is_file(), f"docs/release.md names {file}, which does not exist"
    assert has(PROJECT / file, name), f"docs/release.md names {name}, which {file} does not define"


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`([\w/]+\.(?:py|md))`", PAGE.read_text()))))
def test_every_other_file_of_the_page_exists(file):
    assert (PROJECT / file).is_file()


def test_every_release_switch_of_the_configurations_is_listed():
    """Fields whose value differs between the release's variants or recipes and ours."""
    from das.config import DASConfig, release_mupots, release_panoptic
    from das.recipe import RECIPES

    ours = (DASConfig(), RECIPES["ours_panoptic"](), RECIPES["ours_mupots"]())
    theirs = (release_panoptic(), RECIPES["release_panoptic"](), RECIPES["release_mupots"]())
    wanted = {
        f"{type(a).__name__}.{name}"
        for a, b in (*zip(ours, theirs, strict=True), (DASConfig(), release_mupots()))
        for name in vars(a)
        if getattr(a, name) != getattr(b, name)
    }
    listed = {name for _, name in rows()}
    # The joint set and the number of MSPN stages are part of the experiment, not of a difference from the paper.
    assert wanted - {"DASConfig.skeleton", "DASConfig.mspn_stages"} <= listed


@pytest.mark.parametrize("name", ["DASConfig.nothing", "Nothing", "DASConfig.update.nothing", "nothing.update"])
def test_a_name_that_the_code_lacks_is_not_found(name):
    assert not has(PROJECT / "das/config.py", name)

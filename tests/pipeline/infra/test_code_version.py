"""The version of the code that a run is made with."""

import subprocess

from pipeline.infra.code_version import code_version


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout


def test_code_version_names_commit_changes_and_sources(tmp_path):
    (tmp_path / "das").mkdir()
    source = tmp_path / "das/model.py"
    source.write_text("a = 1\n")
    unversioned = code_version(tmp_path)
    assert "+src." in unversioned
    source.write_text("a = 2\n")
    assert code_version(tmp_path) != unversioned
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "x")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert code_version(tmp_path).endswith(f"+git.{commit}")
    source.write_text("a = 3\n")
    assert code_version(tmp_path).endswith(f"+git.{commit}.dirty")
    # A copy inside another project's repository does not have that repository's commit.
    (tmp_path / "vendored/das").mkdir(parents=True)
    assert "+src." in code_version(tmp_path / "vendored")

"""From a model's URI to a checkpoint folder on this machine, for every room that loads models."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from das.checkpoint import TRAINING_STATE_FILE, load_info
from pipeline.infra.mlflow_client import mlflow_client, refusal, talking_to

_UNREGISTERED = (TRAINING_STATE_FILE,)  # progress, not model
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")
FINGERPRINT = "das.model_fingerprint"
"""Tag of a version: ``fingerprint`` of its files."""


def fingerprint(checkpoint: str | Path) -> str:
    """sha256 over names and bytes of the files that a version holds: of the model, not of the training's progress.

    Raises:
        ValueError: no checkpoint folder, or one that holds a pickle.
    """
    digest = hashlib.sha256()
    for path in registered_files(Path(checkpoint)):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def registered_files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint folder that a version holds, by name; ValueError as ``fingerprint``."""
    load_info(checkpoint)  # names what is wrong with a folder that is no checkpoint
    files = sorted(p for p in checkpoint.iterdir() if p.name not in _UNREGISTERED and not p.name.startswith("."))
    for path in files:
        if path.suffix in _PICKLES or not path.is_file():
            raise ValueError(f"{path}: a registered checkpoint holds plain files and no pickle")
    return files


def resolve_model(uri: str, tracking_uri: str | None = None, cache: str | Path = "~/.cache/das/models") -> Path:
    """A local checkpoint folder for a model URI, downloaded unless the store is on this machine.

    Args:
        uri: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID/PATH, or a local folder.
        tracking_uri: absolute address of the MLflow store; not needed for folders.
        cache: where downloads are kept.

    Raises:
        ValueError: a name, alias, version, run or folder that is not there (and which ones are), or a version whose
            files are not those that were registered.
    """
    form = re.fullmatch(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))", uri) or re.fullmatch(
        r"runs:/(?P<run>[^/]+)/(?P<path>.+)", uri
    )
    if form is None:
        if re.match(r"\w+:/", uri):
            raise ValueError(
                f"model {uri!r}, wanted models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID/PATH or a folder"
            )
        load_info(uri)
        return Path(uri).resolve()
    if tracking_uri is None:
        raise ValueError(f"model {uri!r} needs tracking_uri, the MLflow store that knows it")
    parts, cache = form.groupdict(), Path(cache).expanduser()
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        if "run" in parts:
            require_run(client, parts["run"], tracking_uri)
            return _fetched(client, parts["run"], parts["path"], cache)
        number = int(parts["version"]) if parts["version"] else aliased(client, parts["name"], parts["alias"])
        version = find_version(client, parts["name"], number)
        path = version.source.removeprefix(f"runs:/{version.run_id}/")
        wanted = version.tags[FINGERPRINT]
        folder = _fetched(client, version.run_id, path, cache, keep_as=wanted)
    found = fingerprint(folder)
    if found != wanted:
        raise ValueError(f"{uri}: {wanted[:16]} was registered, but {folder} is {found[:16]}: its files were changed")
    return folder


def _fetched(client: Any, run_id: str, path: str, cache: Path, keep_as: str | None = None) -> Path:
    """A checkpoint among a run's artifacts: where it lies if that is this machine, else a copy in the cache.

    Without a name to keep it as, every call makes a new copy: a run's artifacts may change.
    """
    if keep_as and (cache / keep_as).is_dir():
        return cache / keep_as
    if not client.list_artifacts(run_id, path):
        folders = sorted(file.path for file in client.list_artifacts(run_id) if file.is_dir)
        raise ValueError(f"run {run_id} has no artifact folder {path!r}; it has: {', '.join(folders) or 'none'}")
    root = urlparse(client.get_run(run_id).info.artifact_uri)
    here = Path(url2pathname(root.path)) / path
    if root.scheme in ("", "file") and here.is_dir():
        load_info(here)
        return here
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / keep_as if keep_as else Path(tempfile.mkdtemp(prefix="run-", dir=cache)) / Path(path).name
    with tempfile.TemporaryDirectory(prefix="download-", dir=cache) as staging:
        folder = Path(client.download_artifacts(run_id, path, staging))
        load_info(folder)
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster with the same content
                raise
    return target


def require_run(client: Any, run_id: str, tracking_uri: str) -> None:
    """ValueError where the store has no such run."""
    with missing(f"run {run_id!r} is not in {tracking_uri}"):
        client.get_run(run_id)


def _model_names(client: Any) -> list[str]:
    """Registered models, for an answer that names them; the queues of ``turn`` are none."""
    found = client.search_registered_models(max_results=1000)
    return sorted(model.name for model in found if "das.queue" not in model.tags)


def aliases(client: Any, name: str) -> dict[str, int]:
    """Alias -> version; ValueError without such a model."""
    try:
        found = client.get_registered_model(name)
    except Exception as error:
        if refusal(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
        there = ", ".join(_model_names(client)) or "none"
        raise ValueError(f"no registered model {name!r}; there are: {there}") from error
    return {alias: int(version) for alias, version in found.aliases.items()}


def all_versions(client: Any, name: str) -> list[Any]:
    """MLflow's entities of all versions, the oldest first."""
    found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    return sorted(found, key=lambda version: int(version.version))


def find_version(client: Any, name: str, version: int) -> Any:
    """MLflow's entity of a version; ValueError where there is none, or one that ``register`` did not make."""
    aliases(client, name)
    there = ", ".join(str(version.version) for version in all_versions(client, name))
    with missing(f"model {name!r} has no version {version}; there are: {there or 'none'}"):
        found = client.get_model_version(name, str(version))
    if FINGERPRINT not in found.tags:
        raise ValueError(f"version {version} of {name!r} has no tag {FINGERPRINT}: not registered by `register`")
    return found


def aliased(client: Any, name: str, alias: str) -> int:
    """The version that holds an alias; ValueError where no version does."""
    found = aliases(client, name)
    if alias not in found:
        there = ", ".join(f"{a} (version {v})" for a, v in sorted(found.items()))
        raise ValueError(f"model {name!r} has no alias {alias!r}; there are: {there or 'none'}")
    return found[alias]


@contextmanager
def missing(message: str) -> Iterator[None]:
    """Turns MLflow's "does not exist" into one line."""
    try:
        yield
    except Exception as error:
        if refusal(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ValueError(message) from error

"""From a model's URI to a checkpoint folder on this machine, for every room that loads models."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from das.model_info import TRAINING_STATE_FILE, check_folder, load_info
from pipeline.infra.files import copy_folder
from pipeline.infra.mlflow_client import MlflowStore, error_code
from pipeline.infra.redaction import redacted

FINGERPRINT_TAG = "das.model_fingerprint"
"""Tag of a version: ``fingerprint`` of its files."""
FINISHED_FILE = "finished.json"
"""Of a training, in the folder that contains its best checkpoint: MLflow run and metrics, written at the end."""
QUEUE_TAG = "das.queue"
"""Tag of the registered models that hold no model but the tickets of ``registry.champion_lock``."""
_UNREGISTERED = (TRAINING_STATE_FILE,)  # the training's progress, which a version does not contain
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")


# ---- a checkpoint's files ----


def fingerprint(checkpoint: str | Path) -> str:
    """sha256 over names, sizes and bytes of the files that a version contains; the training state is left out.

    Raises:
        ValueError: no checkpoint folder, or one with a pickle in it.
    """
    digest = hashlib.sha256()
    for path in registered_files(Path(checkpoint)):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def registered_files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint folder that a version contains, by name; ValueError as ``fingerprint``."""
    load_info(checkpoint)  # its ValueError says what is wrong with a folder that is no checkpoint
    files = sorted(p for p in checkpoint.iterdir() if p.name not in _UNREGISTERED and not p.name.startswith("."))
    for path in files:
        if path.suffix in _PICKLES or not path.is_file():
            raise ValueError(f"{path}: a registered checkpoint holds plain files and no pickle")
    return files


# ---- from a URI to a folder ----


def resolve_model(uri: str, tracking_uri: str | None = None, cache: str | Path = "~/.cache/das/models") -> Path:
    """A local checkpoint folder for a model URI, downloaded unless the store is on this machine.

    Args:
        uri: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID/PATH, or a folder, local or of object storage.
        tracking_uri: absolute address of the MLflow store; not needed for folders.
        cache: folder of the downloads.

    Raises:
        ValueError: a name, alias, version, run or folder that does not exist (the message lists those that do), or a
            version whose files are not those that were registered. A folder whose config.json asks for a larger
            network than its weights hold is refused here, without torch.
        ConnectionError: the MLflow server does not answer.
    """
    form = re.fullmatch(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))", uri) or re.fullmatch(
        r"runs:/(?P<run>[^/]+)/(?P<path>.+)", uri
    )
    if form is None:
        if "://" in uri and not in_store(uri):
            return _copied_folder(uri, Path(cache).expanduser())
        if re.match(r"\w+:/", uri):
            wanted = "models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID/PATH or a folder"
            raise ValueError(f"model {redacted(uri)!r}, wanted {wanted}")
        check_folder(uri)
        return Path(uri).resolve()
    if tracking_uri is None:
        raise ValueError(f"model {uri!r} needs tracking_uri, the address of its MLflow store")
    parts, cache = form.groupdict(), Path(cache).expanduser()
    with MlflowStore(tracking_uri).connected() as client:
        if "run" in parts:
            require_run(client, parts["run"])
            return _artifact_folder(client, parts["run"], parts["path"], cache)
        number = int(parts["version"]) if parts["version"] else aliased(client, parts["name"], parts["alias"])
        version = find_version(client, parts["name"], number)
        path = version.source.removeprefix(f"runs:/{version.run_id}/")
        wanted = version.tags[FINGERPRINT_TAG]
        if not re.fullmatch("[0-9a-f]{64}", wanted):  # it becomes a folder's name
            raise ValueError(f"{uri}: its tag {FINGERPRINT_TAG} is {wanted[:80]!r}, wanted 64 hex digits")
        folder = _artifact_folder(client, version.run_id, path, cache, cached_as=wanted)
    found = fingerprint(folder)
    if found != wanted:
        raise ValueError(f"{uri}: {wanted[:16]} was registered, but {folder} is {found[:16]}: its files were changed")
    return folder


def in_store(uri: str) -> bool:
    """Whether a model's URI can only be read with the address of an MLflow store."""
    return re.match("(models|runs):/", uri) is not None


def pinned(uri: str, tracking_uri: str) -> str:
    """models:/NAME@ALIAS with the number of the version that has the alias now; any other URI as it is.

    Raises:
        ValueError, ConnectionError: as ``resolve_model``.
    """
    form = re.fullmatch(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)", uri)
    if form is None:
        return uri
    with MlflowStore(tracking_uri).connected() as client:
        return f"models:/{form['name']}/{aliased(client, form['name'], form['alias'])}"


def _copied_folder(uri: str, cache: Path) -> Path:
    """A new local copy of a checkpoint folder in object storage: a training may replace the folder's files."""
    cache.mkdir(parents=True, exist_ok=True)
    target = Path(tempfile.mkdtemp(prefix="run-", dir=cache)) / "checkpoint"
    try:
        copy_folder(uri, target)
        check_folder(target)
    except BaseException as error:
        shutil.rmtree(target.parent)
        if isinstance(error, ValueError):  # of the copy, which the user does not know
            raise ValueError(str(error).replace(str(target), redacted(uri))) from error
        raise
    return target


def _artifact_folder(client: Any, run_id: str, path: str, cache: Path, cached_as: str | None = None) -> Path:
    """A checkpoint folder among a run's artifacts: the original if it is on this machine, else a copy in the cache.

    Args:
        client: of the run's store.
        run_id: the run.
        path: of the folder in the run's artifacts.
        cache: folder of the copies.
        cached_as: name of the copy, which later calls use again. Without one every call makes a new copy, because a
            run's artifacts may change.

    Raises:
        ValueError: the run has no such folder, or it is no checkpoint.
    """
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"run {run_id}: {path!r} leads out of its artifacts, wanted a folder in them")
    if cached_as and (cache / cached_as).is_dir():
        return cache / cached_as
    if not client.list_artifacts(run_id, path):
        folders = sorted(file.path for file in client.list_artifacts(run_id) if file.is_dir)
        raise ValueError(f"run {run_id} has no artifact folder {path!r}; it has: {', '.join(folders) or 'none'}")
    root = urlparse(client.get_run(run_id).info.artifact_uri)
    here = Path(url2pathname(root.path)) / path
    if root.scheme in ("", "file") and here.is_dir():
        check_folder(here)
        return here
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / cached_as if cached_as else Path(tempfile.mkdtemp(prefix="run-", dir=cache)) / Path(path).name
    with tempfile.TemporaryDirectory(prefix="download-", dir=cache) as staging:
        folder = Path(client.download_artifacts(run_id, path, staging))
        check_folder(folder)
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process has just put the same content there
                raise
    return target


# ---- look-ups with an MlflowClient; each ValueError lists what exists ----


def require_run(client: Any, run_id: str) -> None:
    """ValueError where the client's store has no such run."""
    with _absence_as(f"run {run_id!r} is not in {redacted(client.tracking_uri)}"):
        client.get_run(run_id)


def run_file(store: MlflowStore, run_id: str, path: str, target: str | Path) -> Path:
    """Copies one artifact of a run into the local folder ``target``; ValueError without such a run or artifact."""
    with store.connected() as client:
        require_run(client, run_id)
        folder = path.rpartition("/")[0]
        if path not in [file.path for file in client.list_artifacts(run_id, folder or None)]:
            raise ValueError(f"run {run_id} has no artifact {path}, wanted a finished evaluation")
        return Path(client.download_artifacts(run_id, path, str(target)))


def is_registered(client: Any, name: str) -> bool:
    """Whether the store has a registered model of this name, with or without versions."""
    return _registered_model(client, name) is not None


def aliases(client: Any, name: str) -> dict[str, int]:
    """Alias -> version of a registered model; ValueError without such a model."""
    found = _registered_model(client, name)
    if found is None:
        models = client.search_registered_models(max_results=1000)
        names = sorted(model.name for model in models if QUEUE_TAG not in model.tags)
        raise ValueError(f"no registered model {name!r}; there are: {', '.join(names) or 'none'}")
    return {alias: int(version) for alias, version in found.aliases.items()}


def _registered_model(client: Any, name: str) -> Any | None:
    try:
        return client.get_registered_model(name)
    except Exception as error:
        if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def aliased(client: Any, name: str, alias: str) -> int:
    """The version that has an alias; ValueError where no version has it."""
    found = aliases(client, name)
    if alias not in found:
        there = ", ".join(f"{a} (version {v})" for a, v in sorted(found.items()))
        raise ValueError(f"model {name!r} has no alias {alias!r}; there are: {there or 'none'}")
    return found[alias]


def all_versions(client: Any, name: str) -> list[Any]:
    """MLflow's entities of all versions, the oldest first."""
    found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    return sorted(found, key=lambda version: int(version.version))


def find_version(client: Any, name: str, version: int) -> Any:
    """MLflow's entity of a version; ValueError where there is none, or one without a fingerprint."""
    aliases(client, name)
    there = ", ".join(str(version.version) for version in all_versions(client, name))
    with _absence_as(f"model {name!r} has no version {version}; there are: {there or 'none'}"):
        found = client.get_model_version(name, str(version))
    if FINGERPRINT_TAG not in found.tags:
        raise ValueError(f"version {version} of {name!r} has no tag {FINGERPRINT_TAG}: not registered by `das promote`")
    return found


@contextmanager
def _absence_as(message: str) -> Iterator[None]:
    """Raises a ValueError of one line where MLflow reports that something does not exist."""
    try:
        yield
    except Exception as error:
        if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ValueError(message) from error

"""Model versions, the alias ``champion``, and the way from a URI to a predictor.

A version is a checkpoint folder, uploaded as it is to the artifacts of the run that trained it: no pickle is written
or read. Its fingerprint (over names and bytes of all files) stands on the version, names the upload's folder, and is
checked whenever the version is loaded; scores carry it too, so nobody's scores can promote another model.

Every task has its own registered name: a 21-joint model must never replace a 15-joint champion.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from das.checkpoint import load_info
from das.predictor import Predictor
from pipeline.gate import Gate, Scores, Verdict
from pipeline.tracking import mlflow_client, talking_to

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAMES = {"panoptic": "das-panoptic", "mupots": "das-mupots", "demo": "das-demo"}
"""Task -> registered model."""
CHAMPION = "champion"

SCORES_FILE = "scores.json"
"""Artifact of the evaluation run that holds its ``Scores``."""

_UNREGISTERED = ("training_state.pt",)  # progress, not model
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")
_SCORES, _FINGERPRINT, _VERDICT = "das.scores", "das.model_fingerprint", "das.verdict"


def fingerprint(checkpoint: str | Path) -> str:
    """sha256 over names and bytes of the files that a version holds: of the model, not of the training's progress.

    Raises:
        ValueError: no checkpoint folder, or one that holds a pickle.
    """
    digest = hashlib.sha256()
    for path in _registered_files(Path(checkpoint)):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _registered_files(checkpoint: Path) -> list[Path]:
    load_info(checkpoint)  # names what is wrong with a folder that is no checkpoint
    files = sorted(p for p in checkpoint.iterdir() if p.name not in _UNREGISTERED and not p.name.startswith("."))
    for path in files:
        if path.suffix in _PICKLES or not path.is_file():
            raise ValueError(f"{path}: a registered checkpoint holds plain files and no pickle")
    return files


def register(
    tracking_uri: str, name: str, run_id: str, checkpoint: str | Path, tags: Mapping[str, str] | None = None
) -> int:
    """Uploads a checkpoint folder to the run that trained it, and makes it a version of a registered model.

    The training state stays behind. The lineage (data, terms, code, architecture) is read from the checkpoint's own
    config.json. A folder that is a version of this name already is not registered twice.

    Args:
        tracking_uri: absolute address of the MLflow store.
        name: registered model, see MODEL_NAMES; created if needed.
        run_id: MLflow run of the training.
        checkpoint: local folder.
        tags: further lineage.

    Returns:
        The version's number.

    Raises:
        ValueError: a name that MLflow cannot search for, no checkpoint, a pickle inside it, or no such run.
    """
    if not re.fullmatch(r"[\w-]+", name, flags=re.ASCII):
        raise ValueError(f"registered name = {name!r}, wanted letters, digits, - and _ such as das-panoptic")
    folder = Path(checkpoint)
    mark = fingerprint(folder)
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        _require_run(client, run_id, tracking_uri)
        if name not in _model_names(client):
            client.create_registered_model(name)
        for version in _versions(client, name):
            if version.tags.get(_FINGERPRINT) == mark:
                return int(version.version)
        # One folder per content: a later checkpoint of the same run must not change an earlier version.
        target = f"checkpoints/{mark[:16]}"
        with tempfile.TemporaryDirectory() as staging:
            for path in _registered_files(folder):
                shutil.copy2(path, staging)
            client.log_artifacts(run_id, staging, target)
        labels = {_FINGERPRINT: mark, **_lineage(folder), **(tags or {})}
        source = f"runs:/{run_id}/{target}"
        return int(client.create_model_version(name, source=source, run_id=run_id, tags=labels).version)


def _lineage(checkpoint: Path) -> dict[str, str]:
    """What the model is and what it was made from, as texts."""
    info = load_info(checkpoint)
    return {
        "das.code_version": info.code_version,
        "das.skeleton": info.model.skeleton.name,
        "das.weights": info.weights,
        "das.config": json.dumps(info.model.to_json()),
        **{f"das.data.{name}": json.dumps(value) for name, value in info.data.items()},
    }


def promote(tracking_uri: str, name: str, version: int, scores: Scores, gate: Gate | None = None) -> Verdict:
    """Lets the gate decide on a registered version, writes the verdict on it, and moves ``champion`` if it passed.

    Args:
        tracking_uri: absolute address of the MLflow store.
        name: registered model.
        version: the candidate.
        scores: of the candidate.
        gate: the conditions; the default gate if None.

    Raises:
        ValueError: no such model or version, or scores of another model.
    """
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        mark = _version(client, name, version).tags[_FINGERPRINT]
        if scores.model_fingerprint != mark:
            found = scores.model_fingerprint
            raise ValueError(f"the scores are of model {found[:16]}, but version {version} of {name} is {mark[:16]}")
        champion = _aliases(client, name).get(CHAMPION)
        if champion == version:
            return Verdict(False, (f"version {version} is the champion already",))
        held = None if champion is None else _scores(client, name, champion)
        verdict = (gate or Gate()).judge(scores, held)
        # All that the version has to say is written before the alias moves: a champion without scores could be
        # compared with nothing.
        label = {_SCORES: json.dumps(scores.to_json()), _VERDICT: str(verdict)}
        if verdict.passed and champion is not None:
            label["das.replaced"] = str(champion)
        for key, value in label.items():
            client.set_model_version_tag(name, str(version), key, value)
        client.update_model_version(name, str(version), description=str(verdict))
        if verdict.passed:
            client.set_registered_model_alias(name, CHAMPION, str(version))
        return verdict


def champion_version(tracking_uri: str, name: str) -> int | None:
    """Number of the version that holds the alias ``champion``; None without one, or without such a model."""
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        return _aliases(client, name).get(CHAMPION) if name in _model_names(client) else None


def read_scores(tracking_uri: str, run_id: str) -> Scores:
    """The scores that an evaluation run logged as SCORES_FILE; ValueError without such a run or file."""
    with talking_to(tracking_uri):
        client = mlflow_client(tracking_uri, must_exist=True)
        _require_run(client, run_id, tracking_uri)
        if SCORES_FILE not in [file.path for file in client.list_artifacts(run_id)]:
            raise ValueError(f"run {run_id} has no artifact {SCORES_FILE}, wanted a finished evaluation")
        with tempfile.TemporaryDirectory() as folder:
            text = Path(client.download_artifacts(run_id, SCORES_FILE, folder)).read_text()
    return Scores.from_json(json.loads(text))


# ---- from a URI to a folder ----


def load_predictor(uri: str, tracking_uri: str | None = None, device: str = "cpu") -> Predictor:
    """The predictor of a model URI; see ``resolve_model``."""
    return Predictor.from_folder(resolve_model(uri, tracking_uri), device=device)


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
            _require_run(client, parts["run"], tracking_uri)
            return _fetched(client, parts["run"], parts["path"], cache)
        number = int(parts["version"]) if parts["version"] else _aliased(client, parts["name"], parts["alias"])
        version = _version(client, parts["name"], number)
        path = version.source.removeprefix(f"runs:/{version.run_id}/")
        wanted = version.tags[_FINGERPRINT]
        folder = _fetched(client, version.run_id, path, cache, keep_as=wanted)
    found = fingerprint(folder)
    if found != wanted:
        raise ValueError(f"{uri}: {wanted[:16]} was registered, but {folder} is {found[:16]}: its files were changed")
    return folder


def _fetched(client: MlflowClient, run_id: str, path: str, cache: Path, keep_as: str | None = None) -> Path:
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


# ---- asking the registry, with answers that a person can use ----


def _require_run(client: MlflowClient, run_id: str, tracking_uri: str) -> None:
    with _missing(f"run {run_id!r} is not in {tracking_uri}"):
        client.get_run(run_id)


def _model_names(client: MlflowClient) -> list[str]:
    return sorted(model.name for model in client.search_registered_models())


def _aliases(client: MlflowClient, name: str) -> dict[str, int]:
    """Alias -> version; ValueError without such a model."""
    with _missing(f"no registered model {name!r}; there are: {', '.join(_model_names(client)) or 'none'}"):
        return {alias: int(version) for alias, version in client.get_registered_model(name).aliases.items()}


def _versions(client: MlflowClient, name: str) -> list[Any]:
    return list(client.search_model_versions(f"name = '{name}'"))


def _version(client: MlflowClient, name: str, version: int) -> Any:
    _aliases(client, name)
    there = ", ".join(map(str, sorted(int(v.version) for v in _versions(client, name))))
    with _missing(f"model {name!r} has no version {version}; there are: {there or 'none'}"):
        found = client.get_model_version(name, str(version))
    if _FINGERPRINT not in found.tags:
        raise ValueError(f"version {version} of {name!r} has no tag {_FINGERPRINT}: not registered by `register`")
    return found


def _aliased(client: MlflowClient, name: str, alias: str) -> int:
    aliases = _aliases(client, name)
    if alias not in aliases:
        there = ", ".join(f"{a} (version {v})" for a, v in sorted(aliases.items()))
        raise ValueError(f"model {name!r} has no alias {alias!r}; there are: {there or 'none'}")
    return aliases[alias]


def _scores(client: MlflowClient, name: str, version: int) -> Scores:
    text = _version(client, name, version).tags.get(_SCORES)
    if text is None:
        raise ValueError(f"version {version} of {name} is champion but was never scored; remove its alias first")
    return Scores.from_json(json.loads(text))


@contextmanager
def _missing(message: str) -> Iterator[None]:
    """Turns MLflow's "does not exist" into one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ValueError(message) from error

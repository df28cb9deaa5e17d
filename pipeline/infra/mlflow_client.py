"""The MLflow store: its address, a client for it, and what its errors mean.

mlflow is imported when first needed: it costs more than a second, and asks at import whether it may report usage.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


def absolute_tracking_uri(uri: str | None, storage: str) -> str:
    """The MLflow store's address, valid from any folder.

    Args:
        uri: sqlite:///PATH (a relative PATH is made absolute), http://HOST:PORT, another database, or None
            for mlflow.db in the storage folder.
        storage: absolute folder or object-storage URI of the runs.

    Raises:
        ValueError: a form that MLflow would not take, or None where storage can hold no database.
    """
    if uri is None:
        if "://" in storage:
            raise ValueError(
                f"tracking_uri is not set and storage = {storage!r} cannot hold a database: "
                "wanted an MLflow server such as http://HEAD:5000"
            )
        return f"sqlite:///{storage}/mlflow.db"
    if uri.startswith("sqlite:///") and len(uri) > len("sqlite:///"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).expanduser().resolve()}"
    if re.match(r"(https?|postgresql|mysql|mssql)(\+\w+)?://.", uri):
        return uri.rstrip("/")
    raise ValueError(f"tracking_uri = {uri!r}, wanted sqlite:///PATH, http://HOST:PORT or a database's address")


def is_local_store(tracking_uri: str) -> bool:
    """Whether the store is a file that only this machine can open."""
    return tracking_uri.startswith("sqlite:")


def mlflow_client(tracking_uri: str, must_exist: bool = False) -> MlflowClient:
    """An MLflow client that reports no usage and gives up on a lost server in seconds, not minutes.

    Args:
        tracking_uri: absolute, see ``absolute_tracking_uri``.
        must_exist: refuse an sqlite file that is not there, which MLflow would create; for those who only
            read.
    """
    if is_local_store(tracking_uri):
        path = Path(tracking_uri.removeprefix("sqlite:///"))
        if must_exist and not path.is_file():
            raise ValueError(f"tracking_uri = {tracking_uri!r}: there is no database {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
    defaults = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # they announce every table of a new database
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


@contextmanager
def talking_to(tracking_uri: str) -> Iterator[None]:
    """A lost server becomes a ConnectionError of one line; everything else passes."""
    try:
        yield
    except Exception as error:
        if not is_loss(error):
            raise
        raise ConnectionError(f"MLflow does not answer at {tracking_uri}: {first_line(error)}") from error


def refusal(error: BaseException) -> str | None:
    """MLflow's code for what it refused, such as RESOURCE_DOES_NOT_EXIST; None for any other error."""
    from mlflow.exceptions import MlflowException

    return str(error.error_code) if isinstance(error, MlflowException) else None


def is_loss(error: BaseException) -> bool:
    """Whether a later attempt may succeed: no answer, or an answer that blames the server."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        code = error.get_http_status_code()
    elif isinstance(error, requests.HTTPError) and error.response is not None:
        code = error.response.status_code
    else:
        return isinstance(error, requests.RequestException | ConnectionError | TimeoutError)
    return bool(code >= 500 or code == 429)


def first_line(error: BaseException) -> str:
    """What an error says, without what follows; its type where it says nothing."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__

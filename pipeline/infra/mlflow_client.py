"""The MLflow store: its address, a client for it, and what its errors mean.

mlflow is imported inside the functions that need it: the import takes more than a second, and it decides then, from the
environment, whether usage is reported.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.infra.redaction import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Set unless the user has set them. MLflow's own defaults (7 retries with growing pauses, 120 s per request) would block
# a training for minutes when the server is lost.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

# A new database takes 2 s, or 20 on a busy machine.
_MIGRATION_SECONDS = 300
_NO_RIGHTS = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED")


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
                f"tracking_uri is not set and storage = {redacted(storage)!r} cannot hold a database: "
                "wanted an MLflow server such as http://HEAD:5000"
            )
        return f"sqlite:///{storage}/mlflow.db"
    if uri.startswith("sqlite:///") and len(uri) > len("sqlite:///"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).expanduser().resolve()}"
    if re.match(r"(https?|postgresql|mysql|mssql)(\+\w+)?://.", uri):
        return uri.rstrip("/")
    raise ValueError(
        f"tracking_uri = {redacted(uri)!r}, wanted sqlite:///PATH, http://HOST:PORT or a database's address"
    )


@dataclass(frozen=True)
class MlflowStore:
    """An MLflow tracking store and model registry; holds the address only, so it can be sent to Ray workers.

    Attributes:
        uri: absolute, see ``absolute_tracking_uri``.
    """

    uri: str

    @property
    def database(self) -> Path | None:
        """The sqlite file, which only this machine can open; None for a server or another database."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:") else None

    def client(self, must_exist: bool = False) -> MlflowClient:
        """A client that reports no usage and gives up on a lost server after seconds.

        Args:
            must_exist: refuse an sqlite file that does not exist, which MLflow would create; for readers.

        Raises:
            ValueError: ``must_exist`` and there is no such file.
        """
        if (path := self.database) is not None:
            if must_exist and not path.is_file():
                raise ValueError(f"tracking_uri = {self.uri!r}: there is no database {path}")
            path.parent.mkdir(parents=True, exist_ok=True)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # at INFO they log every table of a new database
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._alone():
            return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A block that one process at a time is in: MLflow makes and migrates an sqlite file's tables there.

        Raises:
            ConnectionError: another process has been in it for minutes.
        """
        # Where nothing can be written there is nothing to make.
        if (path := self.database) is None or not os.access(path.parent, os.W_OK):
            yield
            return
        from filelock import FileLock, Timeout

        try:
            with FileLock(f"{path}.lock", timeout=_MIGRATION_SECONDS):
                yield
        except Timeout as error:
            raise ConnectionError(f"{path} has been locked by another process for {_MIGRATION_SECONDS} s") from error

    @contextmanager
    def connected(self, must_exist: bool = True) -> Iterator[MlflowClient]:
        """A client for the block, in which a server that is lost, refuses the user or is not MLflow's is one line.

        Args:
            must_exist: see ``client``.

        Raises:
            ConnectionError: the server does not answer, or reports an error of its own.
            ValueError: see ``client``; the database's driver is not installed; the user has not the right; or
                something else than MLflow answers, such as a proxy's page.
        """
        try:
            yield self.client(must_exist)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"tracking_uri = {redacted(self.uri)!r}: it needs the package {error.name}, which is absent"
            ) from error
        except Exception as error:
            if error_code(error) in _NO_RIGHTS:
                raise ValueError(
                    f"MLflow at {redacted(self.uri)} {fault(error)}: wanted a user who may write there "
                    "(MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN)"
                ) from error
            if error_code(error) == "ENDPOINT_NOT_FOUND":
                raise ValueError(
                    f"tracking_uri = {redacted(self.uri)!r} {fault(error)}: wanted the address of an MLflow server"
                ) from error
            if not is_loss(error):
                raise
            raise ConnectionError(f"MLflow does not answer at {redacted(self.uri)}: {first_line(error)}") from error

    def check(self, experiment: str, text: str) -> None:
        """Asks the store for its experiments; if there is one of this name, sets its tag das.checked.

        Raises:
            ConnectionError: as ``connected``.
            ValueError: as ``connected``; or the store refuses, for example without a password.
        """
        from mlflow.exceptions import MlflowException

        with self.connected(must_exist=False) as client:
            try:
                if (found := client.get_experiment_by_name(experiment)) is not None:
                    client.set_experiment_tag(found.experiment_id, "das.checked", text)
            except MlflowException as error:
                if is_loss(error):
                    raise
                raise ValueError(f"MLflow at {redacted(self.uri)} refuses: {first_line(error)}") from error


def error_code(error: BaseException) -> str | None:
    """MLflow's code for a refused request, such as RESOURCE_DOES_NOT_EXIST; None for any other error."""
    from mlflow.exceptions import MlflowException

    return str(error.error_code) if isinstance(error, MlflowException) else None


def is_loss(error: BaseException) -> bool:
    """Whether a later attempt may succeed: no answer, or an answer of status 429 or 5xx."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        code = error.get_http_status_code()
    elif isinstance(error, requests.HTTPError) and error.response is not None:
        code = error.response.status_code
    else:
        return isinstance(error, requests.RequestException | ConnectionError | TimeoutError)
    return bool(code >= 500 or code == 429)


def is_refusal(error: BaseException) -> bool:
    """Whether the server has understood a request and refuses it for its content: the same again would be, too."""
    return error_code(error) in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "INVALID_STATE")


def fault(error: BaseException) -> str:
    """What the server did, in a few words: ``answers 404``, or why there is no answer."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"answers {error.response.status_code}"
    # MLflow's text quotes what came back, which may be a page of HTML.
    if stated := re.search(r"failed with error code (\d{3}) |too many (\d{3}) error responses", str(error)):
        return f"answers {stated[1] or stated[2]}"
    line = first_line(error).partition(" Response body: ")[0]
    return line.partition("(Caused by ")[2].removesuffix(")") or line


def first_line(error: BaseException) -> str:
    """The first line of an error's message, redacted; the name of its type where the message is empty."""
    lines = redacted(str(error)).splitlines()
    return lines[0] if lines else type(error).__name__

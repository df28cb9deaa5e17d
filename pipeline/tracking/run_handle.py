"""What a worker needs to join the driver's MLflow run."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.infra.mlflow_client import MlflowStore


@dataclass(frozen=True)
class RunHandle:
    """The data with which a worker joins the driver's run; plain strings, so any config can contain it."""

    tracking_uri: str
    """Absolute address of the MLflow store."""
    run_id: str
    """The MLflow run."""
    folder: str
    """Folder or object-storage URI of the run; the journal is in its ``tracking/``."""
    host: str = ""
    """Machine of the driver, whose load the driver logs."""

    @property
    def store(self) -> MlflowStore:
        """The MLflow store."""
        return MlflowStore(self.tracking_uri)

"""Settings of `das evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from das.fields import at_least, check_name, check_threshold
from pipeline.data.splits import Split
from pipeline.infra.cluster import ClusterConfig
from pipeline.infra.configs import device_flag


@dataclass(frozen=True)
class EvaluateConfig:
    """One model, or the predictions in one file, scored on one split of prepared data."""

    model: str = ""
    """Checkpoint folder (or URI), or a registered model such as models:/das-panoptic@champion."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(required)")] = ()
    """Prepared data folders (or URIs), scored together; default $DAS_PREPARED, else `prepared` of das.yaml."""
    split: Split = "test"
    """Which of their splits."""
    predictions: str | None = None
    """Instead of a model: predictions of an earlier evaluation, or of another group (docs/evaluation.md)."""
    compare: str | None = None
    """Predictions of another model on the same images; the difference is given with its interval."""
    name: str | None = None
    """Name of the evaluation's folder and of its MLflow run; by default data, split and the model's hash."""
    out: str | None = None
    """Folder or URI for the results; by default evaluations/NAME in the storage. For --predictions there is no default:
    without it no files are written."""
    experiment: str = "das"
    """MLflow experiment."""
    threshold: float | None = None
    """Score above which the strict protocol counts a person; by default the model's own, chosen on its val split."""
    allow_overlap: bool = False
    """Score also images that the model was trained on; every number is then marked train-fit and passes no gate."""
    workers: int = 0
    """Processes that predict; 0 takes one for every GPU, or every CPU but one, of the cluster at its full size."""
    cpus_per_worker: int = 0
    """CPUs of each of them, which decodes in as many threads; 0 takes one, or its GPU's share of a node."""
    gpu: Annotated[
        bool, device_flag(cpu=False, cuda=True), tyro.conf.FlagConversionOff, tyro.conf.arg(name="device")
    ] = False
    """cuda: one GPU for every worker."""
    batch_size: int = 8
    """Images that a worker predicts at once."""
    max_quarantine: int = 100
    """Images that may be left out because they cannot be predicted; one more ends the evaluation."""
    overlays: int = 8
    """Pictures of evenly spread frames."""
    worst: int = 4
    """Pictures of the frames with the largest error."""
    runtime_images: int = 32
    """Images on which latency and throughput are measured; 0 measures neither."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where to run, and where results are written."""

    def __post_init__(self) -> None:
        if bool(self.model) == (self.predictions is not None):
            raise ValueError(f"model = {self.model!r} and predictions = {self.predictions!r}, wanted one of the two")
        at_least(self, workers=0, cpus_per_worker=0, batch_size=1, max_quarantine=0)
        at_least(self, overlays=0, worst=0, runtime_images=0)
        check_threshold(self)
        check_name(self)

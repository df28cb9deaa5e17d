"""`das doctor cluster`: whether a training could run now on the cluster, and what it would wait for.

The same checks stand at the start of every job (pipeline/infra/cluster_checks.py); here all sentences are printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from das.fields import at_least
from pipeline.infra.cluster import ClusterConfig, absolute_storage
from pipeline.infra.configs import device_flag
from pipeline.infra.resources import Needs

if TYPE_CHECKING:
    from pipeline.infra.cluster_checks import Places


@dataclass(frozen=True)
class ClusterDoctorConfig:
    """Which job is asked about: its workers, its data, and where it would run.

    Without options it is the preset of DAS_PRESET or das.yaml for Panoptic, else one worker on a CPU. Exit status: 0,
    all is well; 1, a job can run, and there are remarks; 2, a job cannot run.
    """

    data: tuple[str, ...] = ()
    """Prepared data folders (or URIs) that every node must read; default $DAS_PREPARED, else `prepared` of das.yaml."""
    workers: int = 1
    """Training processes."""
    gpu: Annotated[
        bool, device_flag(cpu=False, cuda=True), tyro.conf.FlagConversionOff, tyro.conf.arg(name="device")
    ] = False
    """cuda: a GPU for each worker."""
    cpus_per_worker: float = 1.0
    """CPUs reserved for each worker."""
    decode_on: Literal["worker", "cluster"] = "worker"
    """Where the training reads its rows: with cluster, blocks of Ray Data fill the object stores, and a CPU more is
    needed (`--ingest.decode-on` of a training)."""
    experiment: str = "das"
    """MLflow experiment."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where the job would run, and where its results would go."""

    def __post_init__(self) -> None:
        at_least(self, workers=1)


def doctor_cluster(config: ClusterDoctorConfig) -> int:
    """Looks at the cluster, prints a sentence for everything it sees, and returns the exit status."""
    from pipeline.infra.cluster_checks import Findings, check_cluster

    on_cluster = config.decode_on == "cluster"
    needs = needs_of(config.workers, config.cpus_per_worker, config.gpu, 1.0 if on_cluster else 0.0)
    data = tuple(map(absolute_storage, config.data))
    blocks = blocks_mb(config.workers, data) if on_cluster else 0.0
    found = Findings()
    check_cluster(config.cluster, needs, _places(config.cluster, data, config.experiment), found, blocks)
    if data and not found.faults:
        found.good.append(f"data {' '.join(data)} can be read")
    print("\n".join(found.lines()))
    return found.status()


def check_job(cluster: ClusterConfig, needs: Needs, folders: Sequence[str], experiment: str) -> None:
    """The checks at the start of a job that reads prepared data and tracks its numbers.

    Raises:
        ValueError, ConnectionError: as ``check_start``.
    """
    from pipeline.infra.cluster_checks import check_start

    check_start(cluster, needs, _places(cluster, tuple(map(absolute_storage, folders)), experiment))


def needs_of(workers: int, cpus: float, gpu: bool, spare_cpus: float = 0.0) -> Needs:
    """What a training reserves: its workers, and the CPUs that tasks need which read for them."""
    return Needs(workers, {"CPU": cpus, **({"GPU": 1.0} if gpu else {})}, spare_cpus=spare_cpus)


def _places(cluster: ClusterConfig, folders: tuple[str, ...], experiment: str) -> Places:
    from pipeline.infra.cluster_checks import Places

    storage, tracking_uri = cluster.locations()
    return Places(storage, tracking_uri, experiment, partial(unreadable, folders) if folders else None)


def unreadable(folders: tuple[str, ...]) -> list[str]:
    """What is wrong with prepared folders, seen from here: manifest, joint sets, and one shard of each split."""
    from das.skeleton import skeleton_named
    from pipeline.data.manifest import load_manifest
    from pipeline.data.stored_rows import check_first_shard

    faults = []
    for folder in folders:
        try:
            manifest = load_manifest(folder)
            for name in manifest.skeletons:
                skeleton_named(name)
            for split in manifest.splits:
                check_first_shard(folder, manifest, split)
        except (OSError, ValueError) as error:
            faults.append(" ".join(str(error).split()))
    return faults


_IMAGE_MB = 1.8
"""An image of 832 x 512 pixels, the largest published size, as Ray tasks make it."""
_IN_FLIGHT = 5
"""Row groups that lie in the object stores for each worker: four made ahead, and one that is being made."""
_GROUP = 64
"""Rows of a row group where the manifest does not say it."""


def blocks_mb(workers: int, folders: tuple[str, ...]) -> float:
    """What lies in the object stores while Ray tasks read and decode for the workers of a training, MB."""
    from pipeline.data.manifest import load_manifest

    rows = 0
    for folder in folders:
        try:
            manifest = load_manifest(folder)
        except (OSError, ValueError):  # said by ``unreadable``
            continue
        groups = manifest.splits["train"].row_groups if "train" in manifest.splits else ()
        rows = max([rows, *(size for shard in groups for size in shard)]) if groups else max(rows, _GROUP)
    return workers * _IN_FLIGHT * rows * _IMAGE_MB

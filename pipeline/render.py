"""The studio as a Ray job: every shard of the rendered data set is one task on some node."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import ray
from tqdm import tqdm

from pipeline.cluster import ClusterConfig, connect
from pipeline.storage import read_json, write_json
from pipeline.studio import StudioConfig, StudioShard, plan, render_shard


@dataclass(frozen=True)
class RenderConfig:
    """Where rendered people go, and what is rendered."""

    out: str
    """Folder that receives the Panoptic layout; all nodes must see it."""
    studio: StudioConfig = field(default_factory=StudioConfig)
    """Sizes, sequences and seed."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where it runs, when Ray is not running yet."""


def render(config: RenderConfig) -> int:
    """Renders everything, or finds it done; returns the number of pictures.

    Raises:
        ValueError: the folder holds what another configuration rendered.
    """
    out = Path(config.out).resolve()
    done = out / "studio.json"
    if done.exists():
        if read_json(done)["config"] != _plain(config.studio):
            raise ValueError(f"{done}: this folder was rendered with other settings: choose another or delete it")
        print(f"{out}: rendered before, nothing to do")
        return int(read_json(done)["pictures"])
    if not ray.is_initialized():
        connect(config.cluster)
    shards = plan(config.studio)
    task = ray.remote(num_cpus=1)(_render_one)
    waiting = [task.remote(config.studio, shard, out) for shard in shards]
    pictures = 0
    with tqdm(total=sum(2 * s.count for s in shards), unit=" pictures", delay=2, desc="render") as progress:
        while waiting:
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            made = ray.get(ready)
            pictures += made
            progress.update(made)
    write_json(done, {"config": _plain(config.studio), "pictures": pictures})
    return pictures


def _plain(studio: StudioConfig) -> dict[str, object]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(studio).items()}


def _render_one(config: StudioConfig, shard: StudioShard, root: Path) -> int:
    cv2.setNumThreads(1)  # one task, one CPU
    return render_shard(config, shard, root)

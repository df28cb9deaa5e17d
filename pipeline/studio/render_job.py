"""The studio as a Ray job: every shard of the rendered data set is one task on some node."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import ray
from tqdm import tqdm

from pipeline.infra.cluster import ClusterConfig, connect
from pipeline.infra.files import read_json, write_json
from pipeline.studio import (
    VERSION,
    Layout,
    StudioChunk,
    StudioConfig,
    finish,
    layout_plan,
    render_chunk_as,
    views_per_frame,
)


@dataclass(frozen=True)
class RenderConfig:
    """Where rendered people go, and what is rendered."""

    out: str
    """Folder that receives the pictures and annotations; all nodes must see it."""
    studio: StudioConfig = field(default_factory=StudioConfig)
    """Sizes, sequences and seed."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where it runs, when Ray is not running yet."""
    layout: Layout = "panoptic"
    """Whose original layout is written: panoptic (for `das prepare --source synthetic`), muco, coco or mupots (for the
    source of that name)."""


def render(config: RenderConfig) -> int:
    """Renders everything, or finds it done; returns the number of pictures.

    Raises:
        ValueError: the folder holds what another configuration or another studio rendered, or the layout has no
            sequences.
    """
    out = Path(config.out).resolve()
    done = out / "studio.json"
    if done.exists():
        # Fields that came later than the folder had their defaults when it was rendered.
        before = {"layout": "panoptic", "version": 1, **read_json(done)}
        before["config"] = {**_plain(StudioConfig()), **before["config"]}
        if before["version"] != VERSION:
            raise ValueError(f"{done}: rendered by version {before['version']} of the studio, this is version "
                             f"{VERSION}: choose another folder or delete it")  # fmt: skip
        if (before["layout"], before["config"]) != (config.layout, _plain(config.studio)):
            raise ValueError(f"{done}: this folder was rendered with other settings: choose another or delete it")
        print(f"{out}: rendered before, nothing to do")
        return int(before["pictures"])
    shards = layout_plan(config.studio, config.layout)
    if not ray.is_initialized():
        connect(config.cluster)
    task = ray.remote(num_cpus=1)(_render_one)
    waiting = [task.remote(config.studio, config.layout, shard, out) for shard in shards]
    pictures = 0
    total = sum(views_per_frame(config.layout) * shard.count for shard in shards)
    with tqdm(total=total, unit=" pictures", delay=2, desc="render") as progress:
        while waiting:
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            made = ray.get(ready)
            pictures += made
            progress.update(made)
    finish(config.studio, config.layout, out)
    what = {"version": VERSION, "layout": config.layout, "config": _plain(config.studio)}
    write_json(done, {**what, "pictures": pictures})
    return pictures


def _plain(studio: StudioConfig) -> dict[str, object]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(studio).items()}


def _render_one(config: StudioConfig, layout: Layout, shard: StudioChunk, root: Path) -> int:
    cv2.setNumThreads(1)  # one task, one CPU
    return render_chunk_as(config, layout, shard, root)

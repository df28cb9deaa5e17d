"""`das render`: renders a data set with Ray, one task per chunk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import cv2
import ray
from tqdm import tqdm

from pipeline.infra.cluster import connect
from pipeline.infra.files import read_json, write_json
from pipeline.studio.config import VERSION, Layout, StudioChunk, StudioConfig
from pipeline.studio.layouts import finish_layout, layout_chunks, render_chunk, views_per_frame
from pipeline.studio.render_config import RenderConfig


def render_with_ray(config: RenderConfig) -> int:
    """Renders a data set, unless the folder already holds it; returns the number of pictures.

    Raises:
        ValueError: the folder was rendered with another configuration or version, or the layout has no sequences.
    """
    out = Path(config.out).resolve()
    done = out / "studio.json"
    if done.exists():
        pictures = _rendered_before(done, config)
        print(f"{out}: rendered before, nothing to do")
        return pictures
    chunks = layout_chunks(config.studio, config.layout)
    if not ray.is_initialized():
        connect(config.cluster)
    task = ray.remote(num_cpus=1)(_render_one_chunk)
    waiting = [task.remote(config.studio, config.layout, chunk, out) for chunk in chunks]
    pictures = 0
    total = sum(views_per_frame(config.layout) * chunk.count for chunk in chunks)
    with tqdm(total=total, unit=" pictures", delay=2, desc="render") as progress:
        while waiting:
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            count = ray.get(ready)
            pictures += count
            progress.update(count)
    finish_layout(config.studio, config.layout, out)
    what = {"version": VERSION, "layout": config.layout, "config": _plain(config.studio)}
    write_json(done, {**what, "pictures": pictures})
    return pictures


def _rendered_before(done: Path, config: RenderConfig) -> int:
    """Number of pictures in a finished folder.

    Args:
        done: the folder's studio.json.
        config: must be the configuration that it was rendered with.

    Raises:
        ValueError: it was rendered by another version of the studio, or with another configuration.
    """
    before = {"layout": "panoptic", "version": 1, **read_json(done)}
    held = dict(before["config"])
    if "shard_frames" in held:  # the name of chunk_frames until a shard meant a Parquet file only
        held["chunk_frames"] = held.pop("shard_frames")
    # A field that was added after the folder was rendered had its default value then.
    held = {**_plain(StudioConfig()), **held}
    if before["version"] != VERSION:
        raise ValueError(f"{done}: rendered by version {before['version']} of the studio, this is version "
                         f"{VERSION}: choose another folder or delete it")  # fmt: skip
    if (before["layout"], held) != (config.layout, _plain(config.studio)):
        raise ValueError(f"{done}: this folder was rendered with other settings: choose another or delete it")
    return int(before["pictures"])


def _plain(studio: StudioConfig) -> dict[str, object]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(studio).items()}


def _render_one_chunk(config: StudioConfig, layout: Layout, chunk: StudioChunk, root: Path) -> int:
    cv2.setNumThreads(1)  # the task reserves one CPU
    return render_chunk(config, layout, chunk, root)

"""Settings of `das render`."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.infra.cluster import ClusterConfig
from pipeline.studio.config import Layout, StudioConfig


@dataclass(frozen=True)
class RenderConfig:
    """What is rendered, and the folder that receives it."""

    out: str
    """Folder of the pictures and annotations; must be shared by all nodes."""
    studio: StudioConfig = field(default_factory=StudioConfig)
    """Sizes, sequences and seed."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """The Ray cluster, used unless Ray is already running."""
    layout: Layout = "panoptic"
    """Original layout: panoptic (read by `das prepare --source synthetic`), muco, coco or mupots (read by the source of
    that name)."""

"""The studio: rendered people in a rendered room, written in CMU Panoptic's original layout. Licence-free.

Read in this order: config, geometry, person, motion, stage (who does what where), skin, outfit, body (what they
look like), cameras, room, render (pictures), annotate, layout (files), produce (the work, in shards).
"""

from pipeline.studio.config import StudioConfig, StudioShard, plan
from pipeline.studio.produce import render, render_shard, write_calibration

__all__ = ["StudioConfig", "StudioShard", "plan", "render", "render_shard", "write_calibration"]

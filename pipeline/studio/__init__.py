"""The studio: rendered people in a rendered room, written in the original layouts of recorded data. Licence-free.

Read in this order: config, geometry, person, motion, stage (who does what where), skin, outfit, body (what they
look like), cameras, room, render (pictures), joints, shots (what a picture shows), annotate, layout, produce (CMU
Panoptic's files, in shards), moon_json, coco_json, export (the other layouts).
"""

from pipeline.studio.config import VERSION, StudioChunk, StudioConfig, plan
from pipeline.studio.export import Layout, finish, layout_plan, render, render_chunk_as, views_per_frame
from pipeline.studio.panoptic_layout import render_chunk, write_calibration

__all__ = [
    "VERSION",
    "Layout",
    "StudioConfig",
    "StudioChunk",
    "finish",
    "layout_plan",
    "plan",
    "render",
    "render_chunk",
    "render_chunk_as",
    "views_per_frame",
    "write_calibration",
]

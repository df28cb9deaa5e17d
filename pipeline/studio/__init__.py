"""Rendered people in a rendered room, in the original layouts of recorded data; free of third-party rights.

Film terms, used in all modules: the stage is the part of the room where people are; an actor is one person with an
outfit and a motion; a take is a few seconds with the same actors; a moment is one point in time of a take; a shot is
one picture of one moment by one camera. A chunk is a unit of rendering work: whole takes of one sequence.

Read in this order: config, geometry, person, motion, spheres, outfit, stage (plans a take), skin and body (meshes),
cameras, room, rasterize (pixels), joints, shots (what a picture shows), annotate (Panoptic's confidences),
panoptic_layout, mupots_json, coco_json, layouts (the other layouts, and rendering on one machine), render_job
(rendering with Ray).
"""

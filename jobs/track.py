#!/usr/bin/env python3
"""Follow the people of predicted videos: identities, smooth motion, a table and BVH.

    python jobs/track.py predictions/walk.jsonl

Seconds, on what `das predict walk.mp4` wrote: tracks/walk_tracks.csv with a row per person, frame and joint, and
tracks/walk_track1.bvh, one for each person.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["track", *sys.argv[1:]])

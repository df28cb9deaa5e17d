#!/usr/bin/env python3
"""Render the studio: licence-free people in the original layout of CMU Panoptic, MuCo-3DHP, COCO or MuPoTS-3D.

    python jobs/render.py --out data/studio --studio.width 320 --studio.height 180
    python jobs/render.py --out data/studio-coco --layout coco --studio.width 320 --studio.height 180

About 2 minutes on 2 cores for 8,000 small images; full HD takes about 25 times as long.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["render", *sys.argv[1:]])

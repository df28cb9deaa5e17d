#!/usr/bin/env python3
"""Look at prepared data: tables and plots of what is in it, and pictures of its annotations.

    python jobs/data.py stats /data/prepared/panoptic --out panoptic.html
    python jobs/data.py show /data/prepared/panoptic --split val --out pictures
    ray job submit --working-dir . -- python jobs/data.py stats s3://bucket/panoptic --out s3://bucket/panoptic.html

About a thousand rows a second for the numbers; pictures take a second each.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["data", *sys.argv[1:]])

#!/usr/bin/env python3
"""Look what is there of original data, what is missing or broken, and what to type next.

    python jobs/doctor.py data /data/panoptic
    python jobs/doctor.py data /data/coco --splits val --decode-all

Seconds for a data set on a local disk. Exit status: 0 complete, 1 partial, 2 nothing to convert or the wrong folder.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])

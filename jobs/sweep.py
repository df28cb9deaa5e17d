#!/usr/bin/env python3
"""Sweep the loss weights of Eq. 10 and the number of update layers with Ray Tune and ASHA.

    ray job submit --working-dir . -- python jobs/sweep.py --data /data/prepared/panoptic --trials 32 --gpu

Every trial is one training; trials that fall behind stop early. The best checkpoint is named at the end.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])

#!/usr/bin/env python3
"""Sweep the loss weights of Eq. 10 and the number of update layers with Ray Tune and ASHA.

    ray job submit --working-dir . -- python jobs/sweep.py ours --train.data /data/prepared/panoptic --trials 32
    python jobs/sweep.py small --train.data data/prepared/studio --trials 4 --train.optim.epochs 3

Every trial is one training; trials that fall behind stop early. The best checkpoint is named at the end, and is
the parent run's in MLflow. The same --name resumes; a finished sweep is a no-op.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])

#!/usr/bin/env python3
"""Look what is there of original data, and what is missing or broken; or look whether a job could run on the cluster.

    python jobs/doctor.py data /data/panoptic
    python jobs/doctor.py data /data/coco --splits val --decode-all
    ray job submit --working-dir . -- python jobs/doctor.py cluster --workers 2

Seconds. Exit status of data: 0 complete, 1 partial, 2 nothing to convert or the wrong folder; of cluster: 0 all good,
1 a job can run and there are remarks, 2 a job cannot run.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])

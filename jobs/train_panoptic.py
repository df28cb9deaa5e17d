#!/usr/bin/env python3
r"""Train DAS on CMU Panoptic (15 joints), with COCO beside it.

    ray job submit jobs/train_panoptic.py
    ray job submit --working-dir . -- python jobs/train_panoptic.py release \
        --data /data/prepared/panoptic /data/prepared/coco --workers 4 --device cuda --name panoptic-release
    python jobs/train_panoptic.py small --data data/prepared/studio --optim.max-minutes 6

Without options it takes preset, data and storage from the environment or das.yaml (pipeline/infra/job_defaults.py); the
bare form is for a cluster that was started in the project's folder, the one with --working-dir for any other.

The same --name resumes after any interruption; a finished training is a no-op. The release took 22 epochs of
16 images a step; the paper reports 53.8 mm MPJPE (Table 2).
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["train-panoptic", *sys.argv[1:]])

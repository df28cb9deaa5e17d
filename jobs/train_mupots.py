#!/usr/bin/env python3
r"""Train DAS for MuPoTS-3D on MuCo-3DHP (21 joints), with COCO beside it.

    ray job submit --working-dir . -- python jobs/train_mupots.py release \
        --data /data/prepared/muco /data/prepared/coco --workers 4 --device cuda --name mupots-release

The paper reports 82.7 % PCK_rel and 39.2 % PCK_abs for all ground truths (Table 3).
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["train-mupots", *sys.argv[1:]])

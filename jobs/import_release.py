#!/usr/bin/env python3
"""Turn a checkpoint file of the official release into a checkpoint folder, for evaluation, prediction and fine-tuning.

    python jobs/import_release.py release.pth --out runs/release/panoptic --data /data/prepared/panoptic

Seconds. docs/weights.md says where its owners give the file out.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["import-release", *sys.argv[1:]])

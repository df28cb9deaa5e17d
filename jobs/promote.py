#!/usr/bin/env python3
r"""Register a checkpoint and make it champion when it passes the gate; says why when it does not.

    python jobs/promote.py --model runs/panoptic-release/best --scores runs/evaluations/.../scores.json \
        --name das-panoptic

Seconds.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["promote", *sys.argv[1:]])

#!/usr/bin/env python3
r"""Asks the model registry: its history, the difference of two versions, a gate; or takes a promotion back.

    python jobs/registry.py history das-panoptic
    python jobs/registry.py diff das-panoptic 3 champion
    python jobs/registry.py rollback das-panoptic --reason "misses people in rain"
    python jobs/registry.py gate das-panoptic

Seconds.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["registry", *sys.argv[1:]])

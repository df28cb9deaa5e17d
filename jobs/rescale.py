#!/usr/bin/env python3
"""Compute stored results of `das predict` for a focal length that is known later.

    python jobs/rescale.py predictions --focal 900 1100

A second, on results of `das predict`: the same files in rescaled/, people placed for 1000 pixels, and for each the
interval of its distance.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["rescale", *sys.argv[1:]])

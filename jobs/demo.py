#!/usr/bin/env python3
"""The whole way on rendered data: render, prepare, train, evaluate, promote, predict.

    python jobs/demo.py          # at most 10 minutes on 2 idle cores, what `make demo` runs
    python jobs/demo.py --long   # at most 60 minutes

It ends with a summary (also runs/demo-data/summary.json) and a picture.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["demo", *sys.argv[1:]])

#!/usr/bin/env python3
"""Time a model on a CPU, a GPU or both, and count its parameters and operations; report and numbers go to MLflow.

    python jobs/benchmark.py --model models:/das-panoptic@champion --data /data/prepared/panoptic --device cpu cuda

Under a minute for a small model on one CPU thread; the GPU needs a node that has one. The paper's Table 4 has 75 ms on
a V100 for two stages of MSPN; the report shows it beside.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["benchmark", *sys.argv[1:]])

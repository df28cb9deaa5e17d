#!/usr/bin/env python3
"""Score a model on prepared data under every protocol; predictions, tables and overlays go to MLflow.

    python jobs/evaluate.py --model models:/das-panoptic@champion --data /data/prepared/panoptic --split test

A few minutes a GPU for Panoptic's 9,600 frames. Data that the model was trained on is refused. Without the model, from
an earlier evaluation's predictions or those of another group, and two of them compared:

    python jobs/evaluate.py --predictions A.parquet --compare B.parquet --data /data/prepared/panoptic

docs/evaluation.md has the protocols, what the intervals mean, and the form of foreign predictions.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])

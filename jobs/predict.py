#!/usr/bin/env python3
"""Draw the 3D poses of the people on photos with a trained or promoted model.

    python jobs/predict.py photo.jpg --model models:/das-demo@champion --storage runs/demo

Seconds a photo: JSON (camera space in mm, pixels, scores), an overlay and a view from above.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])

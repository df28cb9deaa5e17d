#!/usr/bin/env python3
"""Convert original data to checked Parquet shards with a manifest; resumable, a finished one is a no-op.

    python jobs/prepare.py --source panoptic --root /data/panoptic --out /data/prepared/panoptic
    ray job submit --working-dir . -- python jobs/prepare.py --source coco --root /data/coco --out s3://bucket/coco

The originals may lie in object storage, too (--root s3://bucket/originals): tasks copy what they convert.
It is bound by the disks. The manifest it ends with counts images and people. A file that is missing or broken is put
in quarantine with its reason and fails the job in the end; --allow-missing finishes without it.
"""

import sys
from pathlib import Path

# The job may start on a node where the project is not installed: it brings its own root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])

"""Twenty rendered images as data of one's own: what `das prepare --source custom` reads, written by a short script.

    python docs/bring_your_own_example.py my_data        # a minute on two CPUs, under 1 MB

The people are the studio's, seen by two cameras, labelled here with 12 joints of our own choice. Take the function
`line` as the pattern for your own data; docs/bring_your_own.md goes on from here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from das.skeleton import COCO19, Skeleton
from pipeline.data.record import Record
from pipeline.data.sources import synthetic
from pipeline.studio.config import StudioConfig
from pipeline.studio.layouts import render_layout

_SIDES = [f"{side}_{joint}" for side in "lr" for joint in ("shoulder", "elbow", "wrist", "knee", "ankle")]
TWELVE = Skeleton(
    name="studio12",
    joints=("neck", "mid_hip", *_SIDES),
    bones=(
        ("mid_hip", "neck"),
        *(bone for s in "lr" for bone in (
            ("neck", f"{s}_shoulder"), (f"{s}_shoulder", f"{s}_elbow"), (f"{s}_elbow", f"{s}_wrist"),
            ("mid_hip", f"{s}_knee"), (f"{s}_knee", f"{s}_ankle"),
        )),
    ),
    root=("mid_hip",),
)  # fmt: skip

# Frames of each split; both cameras see every frame: 14 images to train on, 4 to validate, 2 to test.
FRAMES = {"train": 7, "val": 2, "test": 1}


def line(record: Record, image: str) -> dict[str, Any]:
    """One image and its people as one line of a JSONL file."""
    assert record.K is not None and record.distortion is not None and record.joints_cam is not None
    joints = [COCO19.index(joint) for joint in TWELVE.joints]
    return {
        "image": image,
        "K": record.K.tolist(),
        "distortion": record.distortion.tolist(),
        "people": [
            {
                "id": int(record.person_id[k]),
                "joints_uv": np.round(record.joints_uv[k, joints].astype(float), 2).tolist(),
                "joints_cam": np.round(record.joints_cam[k, joints].astype(float), 1).tolist(),
                "state": record.state[k, joints].tolist(),
            }
            for k in range(len(record))
        ],
    }


def write_example(out: Path) -> None:
    """Renders, then writes skeleton.json, terms.txt, train.jsonl, val.jsonl, test.jsonl and images/ into ``out``."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "skeleton.json").write_text(json.dumps(TWELVE.to_json(), indent=1) + "\n")
    (out / "terms.txt").write_text("rendered by this project's studio, free of third-party rights\n")
    with tempfile.TemporaryDirectory() as rendered:
        studio = StudioConfig(
            width=320,
            height=180,
            train_frames=FRAMES["train"],
            val_frames=FRAMES["val"],
            test_frames=FRAMES["test"],
            train_sequences=("studio_train_haggling1",),
            val_sequences=("studio_val_mafia1",),
            test_sequences=("studio_test_pizza1",),
            people_min=2,
            people_max=3,
        )
        render_layout(studio, Path(rendered), workers=1)
        for split in FRAMES:
            lines = []
            for chunk in synthetic.chunks(rendered, split):
                for record in synthetic.records(chunk):
                    assert isinstance(record, Record), record
                    image = f"images/{split}_{record.camera}_{record.frame:08d}.jpg"
                    (out / image).write_bytes(record.image)
                    lines.append(json.dumps(line(record, image)))
            (out / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write 20 rendered images as data of one's own.")
    parser.add_argument("out", type=Path, help="folder to write, made if needed")
    write_example(parser.parse_args().out)

"""An untrained model's configuration, a calibration, and how tests read folders and refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from das.config import small

CONFIG = replace(small(), backbone_width=8, fpn_channels=32, max_people=3)


def written(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


def panoptic_calibration(folder: Path) -> Path:
    tilt = np.radians(20)
    R = [[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]]
    cameras = [
        {"name": name, "K": [[f, 0, 80], [0, f, 45], [0, 0, 1]], "distCoef": [-0.2, 0.1, 0, 0, 0.0],
         "resolution": [160, 90], "R": R, "t": [[0], [0], [0]]}
        for name, f in (("00_1", 100.0), ("00_16", 116.0), ("00_30", 130.0))
    ]  # fmt: skip
    path = folder / "calibration.json"
    path.write_text(json.dumps({"calibDataSource": "x", "cameras": cameras}))
    return path

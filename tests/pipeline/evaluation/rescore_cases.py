"""Predictions in files, and `das evaluate --predictions` run in this process."""

import numpy as np

from das.skeleton import MUPOTS17, PANOPTIC15
from pipeline.cli import main
from pipeline.evaluation.config import EvaluateConfig
from tests.pipeline.evaluation.evaluation_cases import (
    joints_as,
    scene,
)

FRAMES = 6


COLUMNS = ("scores", "joints_uv", "joints_cam")


def noisy(records, skeleton=PANOPTIC15, mm=40.0, seed=0):
    rng = np.random.default_rng(seed)
    return [people + rng.normal(0, mm, people.shape) for people in joints_as(records, skeleton)]


def config_of(place, predictions="good.parquet", **changes):
    return EvaluateConfig(data=(str(place / "prepared"),), predictions=str(place / predictions), **changes)


def das_evaluate(capsys, *argv):
    """Exit status, standard output and standard error."""
    try:
        main(["evaluate", *map(str, argv)])
        status = 0
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def refused(capsys, *parts, argv):
    status, out, err = das_evaluate(capsys, *argv)
    assert status == 2 and not out and err.startswith("das: ") and err.count("\n") == 1, err
    assert all(part in err for part in parts), err


def rows_of(records, people, skeleton=PANOPTIC15):
    """The documented form of these predictions, one (n, J, 3) array per record."""
    counts = [len(p) for p in people]
    return {
        "key": np.repeat([r.key for r in records], counts),
        "joints_cam": np.concatenate(people),
        "skeleton": skeleton.name,
        "score": np.linspace(0.1, 0.9, sum(counts)),
    }


def mupots(frames=4):
    records = scene(MUPOTS17, frames, source="mupots", activity="")
    for r in records:
        r.joints_cam_univ = (r.joints_cam * np.float32(1.1)).astype(np.float32)
    return records


def paired(records, people, valid_only=True):
    """The documented form with the place of each person among the valid ones of the image."""
    form = rows_of(records, people, MUPOTS17)
    person = np.concatenate([np.arange(len(p)) for p in people])
    return {**form, "person": person}

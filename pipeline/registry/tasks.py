"""The registered models of this project, each with its joint set and its default gate; others have the plain gate."""

from __future__ import annotations

from dataclasses import dataclass

from das.skeleton import MUCO21, PANOPTIC15, Skeleton
from pipeline.registry.gate import Gate


@dataclass(frozen=True)
class Task:
    """What is fixed for all versions of a registered model.

    Attributes:
        skeleton: joint set that every version predicts. A model of 21 joints must never replace one of 15.
        gate: when a candidate becomes champion, unless `das promote --gate FILE` says otherwise.
    """

    skeleton: Skeleton
    gate: Gate


TASKS: dict[str, Task] = {
    "das-panoptic": Task(PANOPTIC15, Gate()),
    # Twenty short sequences in the wild, some of two people.
    "das-mupots": Task(MUCO21, Gate(slice_margin=0.1)),
    # A small test set of rendered people, and timings of whatever machine runs the demo: both vary.
    "das-demo": Task(PANOPTIC15, Gate(slice_margin=0.15, latency_margin=0.5)),
    # Another rendering: versions are only compared on the same data.
    "das-demo-long": Task(PANOPTIC15, Gate(slice_margin=0.15, latency_margin=0.5)),
}
"""Registered model -> task. Under any other name the first version decides the joint set of all later ones."""


def default_gate(name: str) -> Gate:
    """The gate of a registered model, this project's or another."""
    return TASKS[name].gate if name in TASKS else Gate()

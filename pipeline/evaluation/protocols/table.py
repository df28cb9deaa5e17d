"""The list of all protocols: how each is scored, and where its numbers are shown.

A new protocol takes its formula in das/metrics/, a module beside this one that names its numbers, and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.evaluation.protocols import mupots, panoptic
from pipeline.evaluation.protocols.strict import strict_numbers, strict_sums
from pipeline.evaluation.report.published import TABLE_2, TABLE_3, Published
from pipeline.evaluation.scored import Scored, Setting
from pipeline.infra.text_tables import Numbers


@dataclass(frozen=True)
class Protocol:
    """One way of scoring.

    Attributes:
        name: the names of its metrics and tables begin with it; those of variants continue it, as in
            mupots_release_mended.
        sums: what it keeps of a run of images (sums.py); None where the protocol does not fit them. The field itself
            is None where the input is not ``Scored``: images annotated in 2D only (``score_2d``) and predictions that
            are paired with people (``score_paired``).
        numbers: metrics, tables and scores from what was kept of all images; called where the protocol fits all.
        compared: metrics of which ``das evaluate --compare`` gives the difference of two models.
        headline: metrics at the top of an MLflow run's description.
        optimistic: how the protocol makes errors look smaller than they are; empty where it does not.
        table: the paper's table with numbers of this protocol, or None.
        rows: our rows in that table: name of the row -> a metric for each of the table's columns, "" for a column
            without one. A row is shown when one of its metrics was computed.
        baseline_rows: likewise, with the mean pose of the training data in place of predictions.
    """

    name: str
    sums: Callable[[Scored], Any] | None = None
    numbers: Callable[[Any, Setting], list[Numbers]] | None = None
    compared: tuple[str, ...] = ()
    headline: tuple[str, ...] = ()
    optimistic: str = ""
    table: Published | None = None
    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    baseline_rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name as readers see it, for example panoptic-release."""
        return self.name.replace("_", "-")


def _activities(metric: str) -> tuple[str, ...]:
    """One metric for each column of Table 2: four activities and their mean."""
    return (*(f"{metric}/{activity}" for activity in ("haggling", "mafia", "ultimatum", "pizza")), metric)


def _mupots_rows(*names: str) -> dict[str, tuple[str, ...]]:
    """Rows of Table 3: relative and absolute PCK of each protocol over all and over matched people."""
    return {
        f"this model, {name.replace('_', '-')}, {mode}": (f"{name}/pck_rel_{mode}", f"{name}/pck_abs_{mode}")
        for name in names
        for mode in ("all", "matched")
    }


def _mupots_compared(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}/pck_{kind}_all" for name in names for kind in ("rel", "abs"))


PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        "strict",
        strict_sums,
        strict_numbers,
        compared=(
            "strict/mpjpe",
            "strict/mpjpe_with_misses",
            "strict/pa_mpjpe",
            "strict/pck_150mm",
            "strict/recall",
            "strict/precision",
            "strict/f1",
            "strict/root_error",
            "strict/root_depth_error",
        ),
        headline=(
            "strict/mpjpe",
            "baseline/mpjpe",
            "strict/mpjpe_with_misses",
            "strict/recall",
            "strict/precision",
            "strict/root_error",
        ),
    ),
    Protocol(
        "panoptic_release",
        panoptic.release_sums,
        panoptic.release_numbers,
        compared=("panoptic_release/mpjpe",),
        headline=("panoptic_release/mpjpe",),
        optimistic="takes the nearest of up to 100 candidates for every person, with replacement, wherever they are in "
        "space; the best of 20 random poses of other people already has a third of the mean pose's error",
        table=TABLE_2,
        rows={"this model": _activities("panoptic_release/mpjpe")},
        baseline_rows={"mean pose of its training data": _activities("baseline/panoptic_release_mpjpe")},
    ),
    Protocol(
        "panoptic_smap",
        panoptic.smap_sums,
        panoptic.smap_numbers,
        compared=("panoptic_smap/mpjpe", "panoptic_smap/recall"),
    ),
    Protocol(
        "mupots_release",
        mupots.release_sums,
        mupots.release_numbers,
        compared=_mupots_compared("mupots_release"),
        headline=_mupots_compared("mupots_release"),
        optimistic="takes the nearest prediction for every person, with replacement, after moving it to the true "
        "depth; extra and misplaced people cost nothing",
        table=TABLE_3,
        rows=_mupots_rows("mupots_release", "mupots_release_mended"),
        baseline_rows={
            f"mean pose of its training data, {name.replace('_', '-')}": (f"baseline/{name}_pck_rel_all", "")
            for name in ("mupots_release", "mupots_release_mended")
        },
    ),
    Protocol(
        "mupots_matlab",
        mupots.matlab_sums,
        mupots.matlab_numbers,
        compared=_mupots_compared("mupots_matlab", "mupots_matlab_annot3"),
        table=TABLE_3,
        rows=_mupots_rows(
            "mupots_matlab", "mupots_matlab_unscaled", "mupots_matlab_annot3", "mupots_matlab_annot3_unscaled"
        ),
    ),
    Protocol("mupots_paired"),
    Protocol("oks", headline=("oks/ap", "oks/ap_50", "oks/people")),
)

COMPARED = tuple(name for protocol in PROTOCOLS for name in protocol.compared)
"""Metrics of which two models' difference is reported, where both have them."""

HEADLINE = tuple(name for protocol in PROTOCOLS for name in protocol.headline)
"""Metrics that a reader of an evaluation's run looks for first, in this order."""

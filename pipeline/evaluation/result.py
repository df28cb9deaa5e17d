"""The result of one evaluation: what the caller gets, the terminal shows, and report.json holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.evaluation.benchmark.runtime import Runtime
from pipeline.evaluation.scores import SCORES_FILE, Scores
from pipeline.evaluation.train_overlap import TRAIN_FIT
from pipeline.infra.files import join
from pipeline.infra.redaction import redacted
from pipeline.infra.text_tables import Table

REPORT_FILE = "report.json"
"""All numbers; written last, so it marks a folder that holds a finished evaluation."""
PAGE_FILE = "report.html"
"""The page for readers, one file."""
TABLES_FOLDER, OVERLAYS_FOLDER = "tables", "overlays"
"""CSV files of all tables; JPEG pictures."""


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found, and where its files are.

    Attributes:
        headline: the main numbers in one line; for predictions that are paired with people, what was scored on what.
        metrics: every number by its name in MLflow.
        tables: the same for readers.
        strict_scores: what promotion decides by; None for images annotated in 2D only and for paired predictions.
        out: folder or URI of the files; empty where none were written.
        run_id, tracking_uri: the MLflow run of a model's evaluation; empty for a predictions file.
        runtime: None where it was not measured.
        overlays: pictures, relative to ``out``; the worst frames last.
        remarks: further sentences for the terminal.
        quarantine: reason by key, of images that could not be predicted; all numbers are of the others.
    """

    headline: str
    metrics: Mapping[str, float]
    tables: tuple[Table, ...]
    strict_scores: Scores | None = None
    out: str = ""
    run_id: str = ""
    tracking_uri: str = ""
    runtime: Runtime | None = None
    overlays: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    quarantine: Mapping[str, str] = field(default_factory=dict)

    @property
    def scores(self) -> Scores:
        """What promotion decides by; ValueError where the strict protocol does not fit the data."""
        if self.strict_scores is None:
            raise ValueError(f"{self.headline}: no scores of the strict protocol, wanted images annotated in 3D")
        return self.strict_scores

    @property
    def scores_file(self) -> str:
        """The file that `das promote` reads."""
        return join(self.out, SCORES_FILE)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the report; null where nothing was measured."""
        found: dict[str, Any] = {
            "metrics": {name: None if math.isnan(x) else x for name, x in self.metrics.items()},
            "tables": [table.to_json() for table in self.tables],
        }
        if self.quarantine:
            found["quarantine"] = dict(self.quarantine)
        if not self.run_id or self.strict_scores is None:
            return found
        return found | {
            "run_id": self.run_id,
            "tracking_uri": self.tracking_uri,
            "scores": self.strict_scores.to_json(),
            "runtime": None if self.runtime is None else asdict(self.runtime),
            "overlays": list(self.overlays),
        }

    def summary(self) -> str:
        """Headline, tables and places for the terminal."""
        lines = [self.headline, *(table.text() for table in self.tables if not table.detail), *self.remarks]
        if self.quarantine:
            key, reason = next(iter(self.quarantine.items()))
            lines.append(
                f"incomplete: {len(self.quarantine)} images could not be predicted and are in none of these numbers, "
                f"such as {key}: {reason}" + (f" ({REPORT_FILE} lists all)" if self.out else "")
            )
        if self.runtime is not None:
            r = self.runtime
            lines.append(
                f"runtime on {r.device} (CPU threads: {r.threads}, input {r.input_size[1]}x{r.input_size[0]}): "
                f"latency {r.latency_ms_median:.1f} ms median, {r.latency_ms_p90:.1f} ms p90 at batch 1; "
                f"{r.images_per_second:.1f} images/s at batch {r.batch_size}; peak memory {r.peak_memory_mb:.0f} MB"
            )
        if self.out:
            run = f" (MLflow run {self.run_id})" if self.run_id else ""
            pictures = f", {PAGE_FILE}, {len(self.overlays)} overlays" if self.strict_scores is not None else ""
            lines.append(f"{redacted(self.out)}{run}: {REPORT_FILE}{pictures}")
        return "\n".join(lines)


def strict_headline(scores: Scores, threshold: float) -> str:
    """The strict protocol's main numbers in one line, marked where the images may be training data."""
    mark = f"{TRAIN_FIT}, some of these images may be training data: " if scores.train_fit else ""
    baseline = scores.baseline_mpjpe_mm
    mean_pose = "" if math.isnan(baseline) else f" (mean pose {baseline:.1f} mm)"
    return (
        f"{mark}{scores.split}: strict MPJPE {scores.mpjpe_mm:.1f} mm{mean_pose}, recall {scores.recall:.3f}, "
        f"precision {scores.precision:.3f}, F1 {scores.f1:.3f}, people above score {threshold:.3g}"
    )

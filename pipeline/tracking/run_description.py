"""The description of a run on its MLflow page: status, result, data, settings, files and the next command.

It is made from what the server has of the run only, so it can be written by any process, and again after a restart.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

IDENTITY_TAG = "das.identity"
"""Tag of a run: its name, unique within the experiment."""
SUMMARY_TAG = "das.summary"
"""Tag of a run: its result in Markdown, part of the description."""
HEADLINE_TAG = "das.headline"
"""Tag of a run: names of further metrics that come first, separated by ", "; an evaluation's protocols."""
# The metrics that are shown, in this order, as far as the run has them.
HEADLINE = (
    "val/mpjpe_with_misses",
    "val/mpjpe",
    "val/baseline_mpjpe",
    "val/recall",
    "val/precision",
    "train/loss",
    "epoch",
    "step",
    "runtime/latency_ms_median",
    "runtime/images_per_second",
    "model/parameters",
    "model/gflops",
    "cpu/latency_ms_median",
    "cpu/latency_ms_p90",
    "cpu/images_per_second",
    "gpu/latency_ms_median",
    "gpu/latency_ms_p90",
    "gpu/images_per_second",
    "trials",
)
# Prefix of the metrics that were measured on training data.
_TRAIN_FIT = "train-fit/"
# The parameters that are shown: those in which runs usually differ.
SETTINGS = (
    "model",
    "model.variant",
    "split",
    "threshold",
    "ingest.recipe",
    "ingest.batch_size",
    "optim.epochs",
    "optim.max_minutes",
    "pretrained",
    "workers",
    "gpu",
    "seed",
    "train.model.variant",
    "train.optim.epochs",
)
_FILES = {
    "checkpoint/": "the model, best epoch",
    "benchmark.html": "the report, opens in a browser",
    "benchmark.json": "every number",
    "report.html": "the report, opens in a browser",
    "report.json": "every number",
    "scores.json": "the scores that promotion uses",
    "predictions.parquet": "every predicted person; scores can be computed again from it",
    "tables/": "scores by activity, sequence, joint",
    "overlays/": "pictures; the worst frames last",
    "params.json": "all settings, uncut",
    "best.json": "numbers of the best epoch",
    "trials.json": "settings and scores of every trial",
}
_STATUS_TEXTS = {
    "RUNNING": "is running",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "was stopped",
    "SCHEDULED": "has not started",
}
TRIALS_BY = "val/mpjpe_with_misses"
_MOST_TRIALS = 20


@dataclass(frozen=True)
class Input:
    """A dataset that a run read: name, context (train, val, test), whole fingerprint, folder or URI."""

    name: str
    context: str
    fingerprint: str
    source: str


@dataclass(frozen=True)
class TrialSummary:
    """One nested run of a sweep: its name, status and latest metrics."""

    name: str
    status: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class RunDescription:
    """The content of a description.

    Attributes:
        name: of the run. status: MLflow's. began_ms, ended_ms: milliseconds since 1970; ended_ms is None while it runs.
        tags, params, metrics: of the run, metrics with their latest value.
        inputs: datasets. files: names of artifacts, folders end in a slash. trials: nested runs.
        parent: name of the sweep that this run is a trial of.
        run_id: MLflow's, for the next command.
    """

    name: str
    status: str
    began_ms: int
    ended_ms: int | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    inputs: Sequence[Input] = ()
    files: Sequence[str] = ()
    trials: Sequence[TrialSummary] = ()
    parent: str | None = None
    run_id: str = ""

    def text(self) -> str:
        """The description, Markdown."""
        return "\n\n".join(part for part in self._parts() if part)

    def _parts(self) -> Iterator[str]:
        yield self._opening()
        error = self.tags.get("das.error") or self.tags.get("das.stopped")
        yield f"**Why it ended:** {_cell(error)}" if error and self.status in ("FAILED", "KILLED") else ""
        yield self.tags.get(SUMMARY_TAG, "")
        if self._train_fit:
            yield "**train-fit:** measured on images that may be training data; not used for promotion"
        first = self.tags.get(HEADLINE_TAG, "").split(", ")
        names = [prefix + name for name in (*first, *HEADLINE) for prefix in ("", _TRAIN_FIT)]
        numbers = [(name, self.metrics[name]) for name in names if name in self.metrics]
        yield _table(("number", "value"), [(f"`{name}`", _number(value)) for name, value in numbers])
        yield _table(
            ("data", "used as", "fingerprint", "from"),
            [(i.name, i.context, f"`{i.fingerprint[:12]}`", f"`{_cell(i.source)}`") for i in self.inputs],
        )
        settings = [f"`{name} = {_cell(self.params[name])}`" for name in SETTINGS if name in self.params]
        yield "**Settings:** " + ", ".join(settings) if settings else ""
        changed = {k.removeprefix("das.changed."): v for k, v in self.tags.items() if k.startswith("das.changed.")}
        changes = [f"`{name}` to `{_cell(value)}`" for name, value in sorted(changed.items())]
        yield "**Changed by a restart:** " + ", ".join(changes) if changes else ""
        yield self._trial_table()
        known = [(name, meaning) for name, meaning in _FILES.items() if name in self.files]
        yield "\n".join(("**Files:**", "", *(f"- `{name}`: {meaning}" for name, meaning in known))) if known else ""
        yield f"**Next:** `{following}`" if (following := self._next()) else ""

    @property
    def _train_fit(self) -> bool:
        return any(name.startswith(_TRAIN_FIT) for name in self.metrics)

    def _next(self) -> str:
        """The command to run next; empty where there is none."""
        if "checkpoint/" in self.files:
            return f"das evaluate --model runs:/{self.run_id}/checkpoint --data PREPARED"
        if "scores.json" in self.files and "das.model" in self.tags and not self._train_fit:
            return f"das promote --model {self.tags['das.model']} --scores {self.run_id} --name NAME"
        return ""

    def _opening(self) -> str:
        kind = "Training"
        if self.name.startswith("evaluation/"):
            kind = "Evaluation"
        elif self.name.startswith("benchmark/"):
            kind = "Benchmark"
        elif self.trials:
            kind = f"Sweep of {len(self.trials)} trials"
        elif self.parent is not None:
            kind = f"Trial of the sweep {self.parent}"
        began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.began_ms / 1000))
        duration = "" if self.ended_ms is None else f" after {_duration((self.ended_ms - self.began_ms) / 1000)}"
        where = f" on {self.tags['das.host']}" if self.tags.get("das.host") else ""
        code = f", code {self.tags['das.code_version']}" if "das.code_version" in self.tags else ""
        status = _STATUS_TEXTS.get(self.status, self.status)
        return f"**{kind} `{self.name}` {status}{duration}** (began {began}{where}{code})"

    def _trial_table(self) -> str:
        def error(trial: TrialSummary) -> float:
            value = trial.metrics.get(TRIALS_BY, math.nan)
            return math.inf if math.isnan(value) else value

        best = sorted(self.trials, key=error)[:_MOST_TRIALS]
        rows = [
            (t.name, _STATUS_TEXTS.get(t.status, t.status), _number(t.metrics.get(TRIALS_BY, math.nan)),
             _number(t.metrics.get("epoch", math.nan)))
            for t in best
        ]  # fmt: skip
        table = _table(("trial", "status", f"last {TRIALS_BY}", "epochs"), rows)
        left = len(self.trials) - len(best)
        return f"{table}\n\n{left} more trials are among its nested runs." if left else table


def read_run(client: MlflowClient, run_id: str) -> RunDescription:
    """The description of a run from what the server has of it."""
    run = client.get_run(run_id)
    children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000)
    parent = run.data.tags.get("mlflow.parentRunId")
    return RunDescription(
        name=run.data.tags.get(IDENTITY_TAG, "") or str(run.info.run_name),
        status=run.info.status,
        began_ms=run.info.start_time,
        ended_ms=run.info.end_time,
        tags=run.data.tags,
        params=run.data.params,
        metrics=run.data.metrics,
        inputs=tuple(_input(found) for found in (run.inputs.dataset_inputs if run.inputs else ())),
        files=tuple(file.path + ("/" if file.is_dir else "") for file in client.list_artifacts(run_id)),
        trials=tuple(TrialSummary(c.info.run_name, c.info.status, c.data.metrics) for c in children),
        parent=None if parent is None else client.get_run(parent).info.run_name,
        run_id=run_id,
    )


def _input(found: Any) -> Input:
    """From MLflow's DatasetInput."""
    source = json.loads(found.dataset.source)
    context = next((tag.value for tag in found.tags if tag.key == "mlflow.data.context"), "")
    return Input(found.dataset.name, context, source.get("fingerprint", found.dataset.digest), source.get("uri", ""))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; empty text without rows."""
    if not rows:
        return ""
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text of at most 200 characters without what would end its line, cell or code span."""
    line = " ".join(text.split()).replace("|", "/").replace("`", "'")
    return line if len(line) <= 200 else line[:197] + "..."


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

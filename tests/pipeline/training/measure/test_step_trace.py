"""A trace of a few steps is written where the run is, and the training is the same without it."""

import dataclasses
import gzip
import json
from types import SimpleNamespace

import torch

from pipeline.infra.files import read_bytes
from pipeline.tracking.run_handle import RunHandle
from pipeline.training import loop
from pipeline.training.job import training_job
from pipeline.training.measure.step_trace import STEPS, StepTrace, trace_line
from tests.pipeline.training.ray_train_stand_in import StandIn
from tests.pipeline.training.test_loop import equal_states
from tests.pipeline.training.training_cases import tiny
from tests.servers import s3_server


def names_in(trace: bytes) -> list[str]:
    return [event["name"] for event in json.loads(trace)["traceEvents"]]


def test_a_trace_of_some_steps_changes_no_weight(prepared, tmp_path, monkeypatch):
    log = SimpleNamespace(log_metrics=lambda metrics, step: None, flush=lambda: None)
    monkeypatch.setattr(loop.Tracker, "join", lambda run: log)
    ended = []
    for name in ("plain", "traced"):
        stand_in = StandIn(tmp_path / name)
        stand_in.install(monkeypatch)
        job = training_job(tiny(prepared, profile=name == "traced"))
        handle = RunHandle("", "", str(tmp_path / name), "")
        loop.train_loop({"job": dataclasses.replace(job, val_rows=[], run=handle)})
        ended.append(stand_in.reports[-1][1])
    equal_states(*ended)
    names = names_in(gzip.decompress((tmp_path / "traced" / "trace.json.gz").read_bytes()))
    # Twelve steps: seven before, two in which the profiler starts, three that are recorded.
    assert [i for i in range(12) if f"ProfilerStep#{i}" in names] == [9, 10, 11]
    assert names.count("Optimizer.step#AdamW.step") == STEPS and "aten::convolution_backward" in names
    assert not (tmp_path / "plain" / "trace.json.gz").exists()


def test_a_trace_is_written_to_object_storage(tmp_path, monkeypatch):
    with s3_server(tmp_path) as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        trace = StepTrace("s3://bucket/run", torch.device("cpu"), steps=6)
        for _ in range(8):
            torch.ones(3).sum()
            trace.end_step()
        assert "aten::sum" in names_in(read_bytes("s3://bucket/run/trace.json.gz"))
        assert trace_line("s3://bucket/run").startswith("trace of 3 steps: s3://bucket/run/trace.json.gz (open it at ")


def test_a_training_too_short_for_a_trace_says_so(tmp_path):
    trace = StepTrace(str(tmp_path), torch.device("cpu"), steps=3)
    for _ in range(3):
        trace.end_step()
    assert trace_line(str(tmp_path)) == "no trace: fewer than 5 steps were left to look at"

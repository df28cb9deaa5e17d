"""`--profile`: what host and GPU do in a few steps of a training, as a file that trace viewers read."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from pipeline.infra.files import exists, join, write_bytes
from pipeline.infra.redaction import redacted

TRACE_FILE = "trace.json.gz"
"""Name of the trace in the folder of the run."""
SETTLED, WARM, STEPS = 20, 2, 3
"""Steps before anything is recorded, steps in which the profiler starts, and steps of the trace."""


class StepTrace:
    """Records some steps of this worker once it runs steadily, and writes them into the folder of the run.

    It looks and changes nothing. Before and after these steps it costs nothing.

    Args:
        folder: of the run, or its URI.
        device: of the worker.
        steps: that are left of the training; a short one is looked at earlier.
    """

    def __init__(self, folder: str, device: torch.device, steps: int) -> None:
        self.path = join(folder, TRACE_FILE)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        settled = max(0, min(SETTLED, steps - WARM - STEPS))
        self._written = False
        self._profiler: profile | None = profile(
            activities=activities,
            schedule=schedule(wait=settled, warmup=WARM, active=STEPS, repeat=1),
            on_trace_ready=self._write,
        )
        self._profiler.start()

    def end_step(self) -> None:
        """To be called after every step."""
        if self._profiler is not None:
            self._profiler.step()
            if self._written:
                self._profiler.stop()
                self._profiler = None

    def _write(self, recorded: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            recorded.export_chrome_trace(str(file))
            write_bytes(self.path, file.read_bytes())  # Arrow compresses what is written under such a name
        self._written = True


def trace_line(folder: str) -> str:
    """Where the trace of a run is and how it is opened, or that there is none."""
    path = join(folder, TRACE_FILE)
    if not exists(path):
        return f"no trace: fewer than {WARM + STEPS} steps were left to look at"
    return f"trace of {STEPS} steps: {redacted(path)} (open it at https://ui.perfetto.dev or chrome://tracing)"

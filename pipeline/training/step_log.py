"""What the steps of a training gave: means of the losses for the log, and steps whose numbers are not finite.

Numbers stay on the device until several steps are read together: every reading waits for the GPU.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from das.sample import Batch
from pipeline.tracking.worker_log import WorkerLog


@dataclass(frozen=True)
class _Unread:
    """A step: its number, the sample keys of its parts, and on the device the gradient's norm and the parts' losses."""

    step: int
    keys: list[list[str]]
    numbers: torch.Tensor


class StepLog:
    """The steps since the last flush.

    Args:
        world: number of workers.
        most_bad: steps in a row whose loss or gradient is infinite or NaN, at which the training ends.
        skips: steps with such a gradient are skipped. With fp16 they are not counted, as the scaler looks for the
            largest scale without one; only the losses count.
        tracker: is told about skipped steps.
        group: of processes over which the host exchanges numbers; None: all, by the backend of the gradients.

    Attributes:
        steps: that were read and not bad, since the last flush.
        norm: of the last one's gradient.
    """

    def __init__(
        self,
        world: int,
        most_bad: int,
        skips: bool = True,
        tracker: WorkerLog | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.world, self.most_bad, self.skips, self.tracker, self.group = world, most_bad, skips, tracker, group
        self.steps, self.norm = 0, math.nan
        self._names: list[str] = []
        self._unread: list[_Unread] = []
        self._sums: dict[str, float] = {}
        self._bad_in_a_row = self._all_bad = 0
        self._seconds = self._waited = self._computed = 0.0
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Restarts the clocks, so that validation between epochs does not count as training time."""
        self._step_began, self._computed_before = time.monotonic(), time.process_time()

    def waiting_for(self, batches: Iterable[list[Batch]]) -> Iterator[list[Batch]]:
        """The same batches; measures how long each is waited for."""
        iterator = iter(batches)
        while True:
            began = time.monotonic()
            found = next(iterator, None)
            if found is None:
                return
            self._waited += time.monotonic() - began
            yield found

    def end_step(
        self, step: int, norm: torch.Tensor, losses: Sequence[dict[str, torch.Tensor]], parts: Sequence[Batch]
    ) -> None:
        """Notes a step without reading it.

        Args:
            step: its number.
            norm: of its gradient, the same on all workers.
            losses: of this worker's parts of it.
            parts: this worker's.
        """
        self._names = list(losses[0])
        numbers = torch.stack([norm.detach(), *(value.detach() for part in losses for value in part.values())])
        self._unread.append(_Unread(step, [part.keys for part in parts], numbers))
        now, computed = time.monotonic(), time.process_time()
        self._seconds += now - self._step_began
        self._computed += computed - self._computed_before
        self._step_began, self._computed_before = now, computed

    def read(self) -> None:
        """Reads the steps since the last reading, and names those that are not finite.

        Raises:
            FloatingPointError: the largest number of bad steps in a row is reached.
        """
        if not self._unread:
            return
        unread, self._unread = self._unread, []
        for step, (norm, *losses) in zip(unread, torch.stack([s.numbers for s in unread]).tolist(), strict=True):
            size = len(self._names)
            parts = [dict(zip(self._names, losses[i : i + size], strict=True)) for i in range(0, len(losses), size)]
            if math.isfinite(norm) if self.skips else all(math.isfinite(part["loss"]) for part in parts):
                self._bad_in_a_row = 0
                self.steps, self.norm = self.steps + 1, norm
                for name in self._names:
                    self._sums[name] = self._sums.get(name, 0.0) + sum(part[name] for part in parts)
            else:
                self._note_bad(step, norm, parts)

    def flush(self) -> dict[str, float]:
        """The means over workers and steps, named train/..., and how time was spent.

        Of this worker: seconds per step, those of processor time in all of its threads, and the share of time in which
        it waited for images. All workers must call it together, after ``read`` has found a step.
        """
        values = torch.tensor(list(self._sums.values()), dtype=torch.float64)
        if self.world > 1:
            dist.all_reduce(values, group=self.group)
        means = dict(zip(self._sums, (values / self.steps).tolist(), strict=True))
        means["seconds_per_step"] = self._seconds / self.steps
        means["cpu_seconds_per_step"] = self._computed / self.steps
        means["wait_share"] = self._waited / max(self._seconds, 1e-9)
        self._sums, self.steps = {}, 0
        self._seconds = self._waited = self._computed = 0.0
        return {f"train/{name}": value for name, value in means.items()}

    def _note_bad(self, step: _Unread, norm: float, parts: Sequence[dict[str, float]]) -> None:
        """Names the samples of a step that is not finite, in the worker's log and the run."""
        self._bad_in_a_row += 1
        self._all_bad += 1
        both = list(zip(step.keys, parts, strict=True))
        faulty = [key for keys, found in both if not all(map(math.isfinite, found.values())) for key in keys]
        named = ", ".join(faulty or [key for keys in step.keys for key in keys])
        numbers = ", ".join(f"{name} {value:g}" for name, value in parts[0].items())
        what = f"not finite: gradient norm {norm:g}, {numbers}, on samples {named}"
        line = f"step {step.step} skipped, {what}"
        print(line, file=sys.stderr, flush=True)
        if self.tracker is not None:
            self.tracker.log_metrics({"train/skipped_steps": self._all_bad}, step=step.step)
            self.tracker.set_tags({"das.skipped_step": line})
        if self._bad_in_a_row >= self.most_bad:
            raise FloatingPointError(
                f"{self._bad_in_a_row} steps in a row skipped (optim.max_bad_steps), the last: {what}"
            )

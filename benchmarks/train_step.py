"""Cost of a training step inside of Ray Train against the same step in a bare loop on tensors in memory.

    python benchmarks/train_step.py          # 3 rounds, about 3 minutes

The job is a whole training of `das train-panoptic small`, on rendered or other images, on a local Ray cluster, with its
own reading, decoding and augmenting, log and averaged weights. Its numbers are those that it logs itself, without its
first 20 steps. The bare loop runs in a process without Ray, on batches that were made before: forward and backward
pass, clipping, optimiser and averaged weights, all of the same model, batch size and number of threads.

Rounds of the two alternate within one run, and never run at the same time; ratios are of the same round, and the median
over the rounds counts. Processor time is that of a whole process with all of its threads, so in the job it includes the
reading and decoding of images; what that costs alone is measured too, without a model. Operations of one step are
counted as torch dispatches them; the host waits for those that synchronise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import ray
import torch
from operations import Operations, count

from das.model import channels_last
from das.sample import Batch
from das.train_step import TrainStep
from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.convert import convert
from pipeline.infra.cluster import ClusterConfig, connect
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.studio.config import StudioConfig
from pipeline.studio.layouts import render_layout
from pipeline.training.batches import TrainingBatches
from pipeline.training.config import TrainConfig
from pipeline.training.fit import fit
from pipeline.training.job import TrainJob, training_job
from pipeline.training.loop import LOG_EVERY
from pipeline.training.presets import panoptic_presets
from pipeline.training.progress import TrainingProgress
from pipeline.training.state import TrainingState

KEPT = 8  # batches that the bare loop holds in memory
WANTED = 1.05


@dataclass(frozen=True)
class Cost:
    """Seconds of one step: on the clock, and of processor time in all threads of the process."""

    wall: float
    cpu: float


# ---- the bare loop, in a process of its own ----


def batches_of(job: TrainJob) -> TrainingBatches:
    """The batches of a training of one worker."""
    config = job.config
    return TrainingBatches(
        job.train, config.ingest, job.info.model, config.ingest.build(), config.seed, config.images_per_step, threads=2
    )


class Bare:
    """The loop without anything around it."""

    def __init__(self, job: TrainJob) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(job.config.seed)
        optim, device = job.config.optim, torch.device("cpu")
        made: Iterator[list[Batch]] = batches_of(job)(0)
        self.batches = [batch for (batch,) in islice(made, KEPT)]
        self.step = TrainStep(job.info.model)
        channels_last(self.step)
        self.clip_norm = optim.clip_norm
        self.state = TrainingState.new(self.step, optim, TrainingProgress(optim, 1 << 20), device)
        self.step.train()

    def train(self, batch: Batch) -> None:
        """One step."""
        amp = self.state.amp
        with torch.autocast("cpu", amp, enabled=amp is not None):
            loss = self.step(batch, self.step.counts(batch))["loss"]
        torch.autograd.backward(loss)
        self.state.update(self.clip_norm, batch.keys)

    def measured(self, steps: int) -> Cost:
        """The cost of a step, after some that do not count."""
        for batch in self.batches[:4]:
            self.train(batch)
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in islice(cycle(self.batches), steps):
            self.train(batch)
        return Cost((time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps)

    def operations(self) -> Operations:
        """Of one step, after the first, in which the optimiser makes its state."""
        self.train(self.batches[0])
        return count(lambda: self.train(self.batches[0]))


_bare: list[Bare] = []  # of the process; kept between rounds


def start(job: bytes) -> None:
    _bare.append(Bare(pickle.loads(job)))


def bare(steps: int) -> Cost:
    return _bare[0].measured(steps)


def bare_operations() -> tuple[int, int, dict[str, int]]:
    found = _bare[0].operations()
    return found.every.total(), found.issued.total(), dict(found.waits)


def batches_alone(job: bytes, steps: int) -> Cost:
    """The cost of the batches of a step: reading, decoding, augmenting and collating."""
    torch.set_num_threads(1)
    made = batches_of(pickle.loads(job))(0)
    next(made)
    wall, cpu = time.perf_counter(), time.process_time()
    found = sum(1 for _ in islice(made, steps))
    return Cost((time.perf_counter() - wall) / found, (time.process_time() - cpu) / found)


# ---- the job ----


def in_ray(config: TrainConfig) -> Cost:
    """The cost of a step of a whole training, from the numbers that it logs, without those of its start."""
    run = fit(config).run_id
    client = MlflowStore(config.cluster.locations()[1]).client(must_exist=True)
    wall, cpu = (
        [metric.value for metric in client.get_metric_history(run, f"train/{name}") if metric.step > LOG_EVERY]
        for name in ("seconds_per_step", "cpu_seconds_per_step")
    )
    return Cost(statistics.mean(wall), statistics.mean(cpu))


def render(folder: Path) -> str:
    """Prepared data of 64 rendered training images."""
    studio = StudioConfig(
        width=320,
        height=180,
        train_sequences=("studio_train_haggling1", "studio_train_mafia1"),
        val_sequences=("studio_val_mafia1",),
        test_sequences=("studio_test_pizza1",),
        train_frames=16,
        val_frames=1,
        test_frames=1,
    )
    render_layout(studio, folder / "raw", workers=1)
    convert(ConvertConfig("synthetic", str(folder / "raw"), str(folder / "prepared"), shard_mb=0.2))
    return str(folder / "prepared")


def training(data: str, steps: int, options: argparse.Namespace, storage: Path) -> TrainConfig:
    """One epoch of at least this many steps, in a storage of its own."""
    _, config = panoptic_presets()["small"]
    model = replace(config.model, backbone_width=options.width)
    ingest = replace(config.ingest, batch_size=options.batch_size)
    config = replace(config, data=(data,), model=model, ingest=ingest, optim=replace(config.optim, epochs=1))
    rows = sum(part.rows for part in training_job(config).train)
    where = replace(config.cluster, storage=str(storage), tracking_uri=f"sqlite:///{storage}/mlflow.db")
    return replace(config, repeat=(-(-steps * options.batch_size // rows),), val_images=1, cluster=where)


# ---- both ----


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Measures, and prints the table."""
    connect(ClusterConfig(address="local", num_cpus=2, object_store_mb=100, storage=str(folder)))
    data = options.data or render(folder)
    config = training(data, LOG_EVERY + options.steps, options, folder)
    job = pickle.dumps(training_job(config))
    costs: dict[str, list[Cost]] = {"bare loop": [], "batches alone": [], "in Ray Train": []}
    processes = multiprocessing.get_context("spawn")
    with processes.Pool(1, start, (job,)) as looping, processes.Pool(1) as reading:
        counted = looping.apply(bare_operations)
        for i in range(options.rounds):
            costs["bare loop"].append(looping.apply(bare, (options.steps,)))
            costs["batches alone"].append(reading.apply(batches_alone, (job, options.steps)))
            costs["in Ray Train"].append(in_ray(replace(config, name=f"round-{i}")))
    ray.shutdown()
    size = config.ingest
    print(
        f"model small of width {options.width}, {size.batch_size} images of {size.width}x{size.height} a step, one "
        f"thread; {options.rounds} rounds of {options.steps} steps; torch {torch.__version__}, {os.cpu_count()} CPUs"
    )
    print(f"{'a step, ms':<16}{'wall':>8}{'CPU':>8}   CPU in each round")
    for name, found in costs.items():
        wall, cpu = (1e3 * median([getattr(cost, kind) for cost in found]) for kind in ("wall", "cpu"))
        print(f"{name:<16}{wall:8.1f}{cpu:8.1f}   {', '.join(f'{1e3 * cost.cpu:.1f}' for cost in found)}")
    pairs = list(zip(costs["bare loop"], costs["batches alone"], costs["in Ray Train"], strict=True))
    ratios = {
        "CPU": [inside.cpu / loop.cpu for loop, _, inside in pairs],
        "CPU, less that of the batches alone": [(inside.cpu - read.cpu) / loop.cpu for loop, read, inside in pairs],
        "wall": [inside.wall / loop.wall for loop, _, inside in pairs],
    }
    for name, each in ratios.items():
        print(f"ratio of {name}: {median(each):.3f} ({', '.join(f'{r:.3f}' for r in each)}), wanted at most {WANTED}")
    every, issued, waits = counted
    print(f"operations of a step: {every} dispatched, {issued} of them run on a device, {sum(waits.values())} wait")
    for name, times in waits.items():
        print(f"  {name} waits {times} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="prepared folder; default: images are rendered")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="of a round, in whole twenties")
    parser.add_argument("--width", type=int, default=16, help="of the backbone's first stage")
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


if __name__ == "__main__":
    main()

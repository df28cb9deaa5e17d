"""`das benchmark`: latency, throughput over batch sizes, memory, stages and size of a model, on a CPU and a GPU.

    OUT/benchmark.json   all numbers
    OUT/benchmark.html   a page with the same numbers and the paper's Table 4

The numbers and both files are also in one MLflow run. One new process measures each device, so that the peak memory of
one does not include the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.benchmark.config import BenchmarkConfig
from pipeline.evaluation.benchmark.page import benchmark_page
from pipeline.infra.cluster import absolute_storage, connect
from pipeline.infra.code_version import code_version
from pipeline.infra.configs import flat
from pipeline.infra.files import join, refuse_other, write_bytes, write_json
from pipeline.infra.redaction import redacted, redacted_values
from pipeline.infra.resources import preflight
from pipeline.models import fingerprint, resolve_model
from pipeline.tracking.tracker import Tracker

if TYPE_CHECKING:
    from pipeline.evaluation.benchmark.costs import DeviceCost, ModelCost

NUMBERS_FILE, PAGE_FILE = "benchmark.json", "benchmark.html"


@dataclass(frozen=True)
class BenchmarkResult:
    """The measurements and the places of the results.

    Attributes:
        out: folder or URI of the files.
        run_id, tracking_uri: of the MLflow run.
        model: parameters and operations.
        devices: measurements by device.
    """

    out: str
    run_id: str
    tracking_uri: str
    model: ModelCost
    devices: Mapping[str, DeviceCost]

    def metrics(self) -> dict[str, float]:
        """All numbers by their names in MLflow."""
        numbers: dict[str, float] = {
            "model/parameters": float(sum(self.model.parameters.values())),
            "model/gflops": sum(self.model.flops.values()) / 1e9,
            **{f"model/parameters/{part}": float(n) for part, n in self.model.parameters.items()},
            **{f"model/gflops/{part}": n / 1e9 for part, n in self.model.flops.items()},
        }
        for device, cost in self.devices.items():
            found = {name.removeprefix("runtime/"): value for name, value in cost.runtime.metrics().items()}
            found = {name: value for name, value in found.items() if not name.startswith("stage_ms/")}
            found |= {f"stage_ms/{stage}": value for stage, value in cost.stage_ms.items()}
            for batch in cost.batches:
                found[f"images_per_second/batch_{batch.batch_size}"] = batch.images_per_second
            numbers |= {f"{device}/{name}": value for name, value in found.items()}
        return numbers

    def to_json(self) -> dict[str, Any]:
        """The measurements and the MLflow run as plain values."""
        return {
            "run_id": self.run_id,
            "tracking_uri": self.tracking_uri,
            "model_cost": asdict(self.model),
            "devices": {device: asdict(cost) for device, cost in self.devices.items()},
        }

    def headline(self) -> str:
        """Size and speed in a few lines of text."""
        cost = self.model
        lines = [
            f"{sum(cost.parameters.values()) / 1e6:.1f} M parameters, {sum(cost.flops.values()) / 1e9:.1f} GFLOPs "
            f"for {cost.input_size[1]}x{cost.input_size[0]}"
        ]
        for device, found in self.devices.items():
            r = found.runtime
            lines.append(
                f"{device} ({r.device}): latency {r.latency_ms_median:.1f} ms median, {r.latency_ms_p90:.1f} ms p90 "
                f"at batch 1; {r.images_per_second:.1f} images/s at batch {r.batch_size}"
            )
            lines.append("  " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in found.stage_ms.items()) + " ms")
        return "\n".join(lines)

    def summary(self) -> str:
        """Headline and places of the results, for the terminal."""
        return f"{self.headline()}\n{redacted(self.out)} (MLflow run {self.run_id}): {PAGE_FILE}, {NUMBERS_FILE}"


def benchmark(config: BenchmarkConfig) -> BenchmarkResult:
    """Measures a model, writes the files and the MLflow run; an equal name continues the run and replaces the files.

    Raises:
        ValueError: a model, data or resources that do not exist, or a name in use by the benchmark of another model;
            nothing is written.
    """
    storage, tracking_uri = config.cluster.locations()
    checkpoint = resolve_model(config.model, tracking_uri)
    annotations = read_annotations([absolute_storage(folder) for folder in config.data], config.split)
    hashed = fingerprint(checkpoint)
    name = config.name or f"{annotations.name.replace('/', '-').replace('+', '-')}-{hashed[:8]}"
    out = absolute_storage(config.out or join(storage, "benchmarks", name))
    refuse_other(join(out, NUMBERS_FILE), model_fingerprint=hashed)

    # Here: they import Ray and torch, for seconds, and what is refused above needs neither.
    import ray

    from das.checkpoint import load_model
    from pipeline.evaluation.benchmark.costs import device_cost, model_cost
    from pipeline.evaluation.inference import spread_images

    model, info = load_model(checkpoint)
    cluster = connect(config.cluster)
    for device in config.devices:
        preflight(1, {"CPU": float(config.threads), "GPU": 1.0 if device == "gpu" else 0.0})
    with Tracker.open(cluster.tracking_uri, config.experiment, f"benchmark/{name}", out) as tracker:
        tracker.log_params(flat(config))
        tracker.set_tags({"das.model": config.model, "das.model_fingerprint": hashed})
        records = spread_images(annotations, config.images)
        shipped = ray.put((model, info))
        devices: dict[str, DeviceCost] = {}
        for device in config.devices:
            # One after the other, because two at once would slow each other down. With max_calls the process ends
            # after one call, so the next device starts with a new peak of memory.
            resources = {"num_cpus": config.threads, "num_gpus": 1 if device == "gpu" else 0}
            task = ray.remote(max_calls=1, **resources)(device_cost)
            devices[device] = ray.get(task.remote(shipped, records, device, config))
        height, width = next(iter(devices.values())).runtime.input_size
        result = BenchmarkResult(
            out, tracker.handle.run_id, cluster.tracking_uri, model_cost(model.eval(), height, width), devices
        )
        facts = {
            "benchmark": name,
            "MLflow run": result.run_id,
            "model": config.model,
            "model fingerprint": hashed,
            "data": ", ".join(annotations.folders),
            "code": code_version(),
        }
        page = benchmark_page(f"Cost of {config.model}", annotations.name, result.model, devices, facts)
        write_bytes(join(out, PAGE_FILE), page.encode())
        numbers = {"name": name, "model_fingerprint": hashed, **result.to_json()}
        write_json(join(out, NUMBERS_FILE), redacted_values(numbers))
        tracker.log_metrics(result.metrics(), step=0)
        tracker.describe(result.headline())
        tracker.log_files(out, (PAGE_FILE, NUMBERS_FILE))
    return result

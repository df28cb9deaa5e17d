"""Runtime of a model as parts of a page: conditions, numbers, cost of each stage, and Table 4 for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluation.benchmark.runtime import Runtime
from pipeline.evaluation.report.page import Comparison, published_comparison
from pipeline.evaluation.report.published import TABLE_4, UNKNOWN
from pipeline.infra.html.charts import bar_chart
from pipeline.infra.html.page import Chart, Note, Number


@dataclass(frozen=True)
class RuntimeSection:
    """The content of templates/runtime.html."""

    conditions: str
    numbers: Sequence[Number]
    charts: Sequence[Chart]
    comparison: Comparison


def runtime_section(r: Runtime) -> RuntimeSection:
    """The section for one measurement."""
    conditions = (
        f"{place(r)}; images of {size(r.image_size)} pixels, network input {size(r.input_size)}; "
        f"{r.images} images with {r.people:.1f} people found on average. From encoded bytes to people."
    )
    memory = Number("peak memory", f"{r.peak_memory_mb:.0f}", "MB", "of the whole process")
    if r.peak_gpu_memory_mb is not None:
        memory = Number("peak GPU memory", f"{r.peak_gpu_memory_mb:.0f}", "MB", "held by torch")
    numbers = (
        Number("latency, median", f"{r.latency_ms_median:.1f}", "ms", "one image at a time"),
        Number("latency, p90", f"{r.latency_ms_p90:.1f}", "ms"),
        Number("throughput", f"{r.images_per_second:.1f}", "images/s", f"batches of {r.batch_size}"),
        memory,
    )
    chart = Chart(
        "stages",
        "Cost of each stage",
        bar_chart("Cost of each stage", r.stage_ms, "ms"),
        "Median of each stage at batch 1.",
    )
    return RuntimeSection(conditions, numbers, (chart,), table_4_comparison([r]))


def table_4_comparison(runtimes: Sequence[Runtime]) -> Comparison:
    """Table 4 with a row for each measurement."""
    ours = {f"this model, {place(r)}, {size(r.input_size)}": (r.latency_ms_median, UNKNOWN, UNKNOWN) for r in runtimes}
    note = Note("Our rows are medians from encoded bytes to people, on the device named; the paper used a V100.")
    return published_comparison(TABLE_4, ours, [note])


def place(r: Runtime) -> str:
    """Device and precision in words."""
    where = f"CPU, {r.threads} thread{'s' if r.threads > 1 else ''}" if r.device == "cpu" else r.device
    return where + (", bf16" if r.bf16 else "")


def size(height_width: tuple[int, int]) -> str:
    """Width x height, pixels."""
    return f"{height_width[1]} x {height_width[0]}"

"""The page of a benchmark: speed and memory on each device, time of each stage, size of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.evaluation.report.page import Comparison
from pipeline.evaluation.report.runtime import RuntimeSection, place, runtime_section, size, table_4_comparison
from pipeline.infra.html.charts import bar_chart
from pipeline.infra.html.page import Cell, Chart, Grid, GridRow, Number, render_page, shown

if TYPE_CHECKING:
    from pipeline.evaluation.benchmark.costs import DeviceCost, ModelCost


@dataclass(frozen=True)
class DeviceSection:
    """One device: the section of an evaluation's page with ten stages instead of four, and a row per batch size."""

    id: str
    title: str
    runtime: RuntimeSection
    batches: Grid


@dataclass(frozen=True)
class BenchmarkPage:
    """The fields that templates/benchmark.html reads."""

    title: str
    subtitle: str
    mark: str
    devices: Sequence[DeviceSection]
    numbers: Sequence[Number]
    parts: Grid
    parts_note: str
    comparison: Comparison
    facts: Mapping[str, str]


def benchmark_page(
    title: str, data: str, model: ModelCost, devices: Mapping[str, DeviceCost], facts: Mapping[str, str]
) -> str:
    """One self-contained HTML file.

    Args:
        title: of the page.
        data: name of the data whose images were used.
        model: size of the model.
        devices: measurements by device.
        facts: origin of the numbers, texts by name.
    """
    total_flops, total_parameters = sum(model.flops.values()), sum(model.parameters.values())
    rows = [
        GridRow(part, _part_cells(count, total_parameters, model.flops[part], total_flops))
        for part, count in model.parameters.items()
    ]
    rows.append(GridRow("all", _part_cells(total_parameters, total_parameters, total_flops, total_flops), ours=True))
    page = BenchmarkPage(
        title=title,
        subtitle=f"images of {data}",
        mark="",
        devices=[_device_section(name, cost) for name, cost in devices.items()],
        numbers=[
            Number("parameters", f"{total_parameters / 1e6:.2f}", "M"),
            Number("operations", f"{total_flops / 1e9:.2f}", "GFLOPs", f"one image of {size(model.input_size)}"),
        ],
        parts=Grid(["part", "parameters, M", "%", "GFLOPs", "%"], rows),
        parts_note=(
            "Operations of convolutions and matrix products; a multiplication with an addition is two. Bilinear "
            "sampling (deformable convolutions, the recursive update) takes time but hardly any operations."
        ),
        comparison=table_4_comparison([cost.runtime for cost in devices.values()]),
        facts=facts,
    )
    return render_page("pipeline.evaluation.benchmark", "benchmark.html", page)


def _device_section(name: str, cost: DeviceCost) -> DeviceSection:
    base = runtime_section(cost.runtime)
    title = "Cost of each stage"
    note = (
        "Median of each stage at batch 1, timed one by one. The network is normalize to update; update computes the "
        "maps, candidates samples them where the score passes the threshold, suppression removes duplicates (NMS)."
    )
    chart = Chart(f"stages-{name}", title, bar_chart(title, cost.stage_ms, "ms", ".2f"), note)
    runtime = RuntimeSection(base.conditions, base.numbers, (chart,), base.comparison)
    rows = [
        GridRow(
            str(batch.batch_size),
            [
                Cell(f"{batch.images_per_second:.1f}"),
                Cell(f"{1000 / batch.images_per_second:.1f}"),
                Cell(f"{batch.peak_memory_mb:.0f}"),
                Cell(shown(batch.peak_gpu_memory_mb, ".0f")),
            ],
        )
        for batch in cost.batches
    ]
    columns = ["batch", "images/s", "ms an image", "peak memory MB", "peak GPU memory MB"]
    return DeviceSection(name, place(cost.runtime), runtime, Grid(columns, rows))


def _part_cells(parameters: int, all_parameters: int, flops: int, all_flops: int) -> list[Cell]:
    return [
        Cell(f"{parameters / 1e6:.3f}"),
        Cell(f"{100 * parameters / all_parameters:.0f}"),
        Cell(f"{flops / 1e9:.3f}"),
        Cell(f"{100 * flops / all_flops:.0f}"),
    ]

"""The page of a benchmark shows the numbers of every device and the paper's Table 4."""

from dataclasses import replace

from pipeline.evaluation.benchmark.costs import PARTS, STAGES, DeviceCost, ModelCost
from pipeline.evaluation.benchmark.page import benchmark_page
from pipeline.evaluation.benchmark.runtime import Runtime, Throughput


def test_the_page_shows_both_devices_and_table_4():
    runtime = Runtime("cpu", 2, False, (360, 640), (192, 320), 32, 3.4, 21.4, 25.1, {}, 8, 55.0, 612.0, None)
    gpu = replace(runtime, device="Some GPU", latency_ms_median=4.2, peak_gpu_memory_mb=345.0, bf16=True)
    stages = dict.fromkeys(STAGES, 1.5)
    batches = (Throughput(1, 40.0, 500.0, None), Throughput(8, 55.0, 612.0, 345.0))
    devices = {"cpu": DeviceCost(runtime, stages, batches[:1]), "gpu": DeviceCost(gpu, stages, batches)}
    size = ModelCost((192, 320), dict.fromkeys(PARTS, 1_000_000), dict.fromkeys(PARTS, 2_000_000_000))
    html = benchmark_page("Cost of m", "panoptic/test", size, devices, {"model": "m"})
    for text in (
        "CPU, 2 threads",
        "Some GPU, bf16",
        "4.00",
        "8.00",
        "images of 640 x 360 pixels",
        "network input 320 x 192",
        "this model, Some GPU, bf16, 320 x 192",
        "DAS, the paper, 2-stage MSPN",
        "345",
        "suppression",
    ):
        assert text in html, text
    assert "http" not in html.replace("http-equiv", "")

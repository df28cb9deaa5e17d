"""What a model costs: parts that add up, operations that can be counted by hand, and a run that keeps it all."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from das.checkpoint import load_model
from das.decode import find_candidates, place_candidates, suppress
from das.predictor import Predictor
from das.skeleton import COCO17
from pipeline.data.record import decode_image
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.benchmark import costs
from pipeline.evaluation.benchmark.benchmark import BenchmarkConfig, benchmark
from pipeline.evaluation.benchmark.costs import PARTS, STAGES, DeviceCost, ModelCost, model_cost, stage_costs
from pipeline.evaluation.benchmark.latency import Runtime, Throughput, throughput
from pipeline.evaluation.benchmark.page import benchmark_page
from pipeline.evaluation.inference import images_and_cameras, spread_images
from pipeline.infra.cluster import ClusterConfig
from pipeline.infra.mlflow_client import MlflowStore
from tests.pipeline.evaluation.evaluation_cases import MODEL, read, scene, write_checkpoint, write_prepared


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    write_prepared(folder / "prepared", scene(frames=4))
    write_checkpoint(folder / "model", threshold=0.001)
    return folder


@pytest.fixture
def predictor(place):
    return Predictor.from_folder(place / "model")


def config_of(folder: Path, **changes) -> BenchmarkConfig:
    base = BenchmarkConfig(str(folder / "model"), (str(folder / "prepared"),), name="tiny", images=3)
    return replace(base, **{"batch_sizes": (1, 2), "cluster": ClusterConfig(storage=str(folder / "runs")), **changes})


# ---- costs ----


def test_stages_are_those_of_a_prediction(predictor, monkeypatch):
    """Cut into its stages, the way from bytes to people still ends at the predictor's people."""
    found = []

    def kept(joints_uv, scores, config):
        found.append(suppress(joints_uv, scores, config))
        return found[-1]

    records = scene(frames=2)
    monkeypatch.setattr(costs, "suppress", kept)
    stages = stage_costs(predictor, *images_and_cameras(records), warm_up=0)
    assert tuple(stages) == STAGES and all(ms > 0 for ms in stages.values())
    whole = predictor.predict_batch([decode_image(r) for r in records], [r.K for r in records])
    assert [len(kept) for kept in found] == [len(p.people) for p in whole] and len(found[0]) > 0
    assert not predictor.model.backbone._forward_hooks, "the model is left as it was"


def test_placed_and_suppressed_candidates_are_the_decoded_people(predictor):
    (image,), (K,), (lens,) = images_and_cameras(scene(frames=1))
    inputs = predictor.prepare([decode_image(scene(frames=1)[0])], [K], [lens])
    output, config = predictor.network(inputs), predictor.info.model
    found = find_candidates(output, config, predictor.threshold, inputs.sizes)
    (people,) = place_candidates(found, config, inputs.K, inputs.distortion, inputs.image_transform)
    (expected,) = predictor.people(output, inputs)
    kept = people.select(suppress(people.joints_uv, people.scores, config))
    assert len(people) >= len(kept) == len(expected) > 0 and (people.scores.diff() <= 0).all()
    torch.testing.assert_close(kept.joints_cam, expected.joints_cam)


def test_a_slow_part_shows_in_its_stage(predictor):
    class Slow(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            torch.ones(1).item()
            end = costs.time.perf_counter() + 0.05
            while costs.time.perf_counter() < end:
                pass
            return self.inner(x)

    predictor.model.fpn = Slow(predictor.model.fpn)
    stages = stage_costs(predictor, *images_and_cameras(scene(frames=1)), warm_up=0)
    assert stages["neck"] >= 50 and stages["normalize"] >= 0


def test_parameters_and_operations_are_those_of_the_convolutions(place):
    """Against a count by hooks on every convolution of the backbone: 2 x outputs x inputs to each."""
    model, _ = load_model(place / "model")
    expected = 0

    def count(layer, _, out):
        nonlocal expected
        expected += 2 * out.numel() * layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]

    hooks = [m.register_forward_hook(count) for m in model.backbone.modules() if isinstance(m, nn.Conv2d)]
    found = model_cost(model.eval(), 64, 96)
    for hook in hooks:
        hook.remove()
    assert found.flops["backbone"] == expected > 0 and all(n > 0 for n in found.flops.values())
    assert sum(found.parameters.values()) == sum(p.numel() for p in model.parameters())
    twice = model_cost(model, 128, 96)
    for part in ("backbone", "head"):
        assert twice.flops[part] == pytest.approx(2 * found.flops[part], rel=0.1)


def test_images_whose_camera_nobody_knows_are_timed_too(place):
    records = [replace(r, joints_cam=None, K=None) for r in scene(COCO17, frames=1, source="coco")]
    _, (K,), (lens,) = images_and_cameras(records)
    assert K.shape == (3, 3) and K[0, 2] == pytest.approx(159.5) and not lens.any()


def test_spread_images_bring_their_pixels(place):
    annotations = read_annotations([str(place / "prepared")], "test")
    found = spread_images(annotations, 3)
    assert len(found) == 3 and all(record.image for record in found)
    assert len(spread_images(annotations, 100)) == 4


def test_throughput_fills_whole_batches(predictor):
    jobs = images_and_cameras(scene(frames=2))
    found = throughput(predictor, *jobs, batch_size=4, warm_up=False)
    assert found.batch_size == 4 and found.images_per_second > 0 and found.peak_gpu_memory_mb is None


# ---- the page ----


def test_the_page_tells_both_devices_beside_table_4():
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


# ---- the run ----


@pytest.fixture(scope="module")
def result(place, local_ray):
    return benchmark(config_of(place))


def test_files_and_mlflow_run_hold_the_same_numbers(place, result):
    assert result.out == str(place / "runs" / "benchmarks" / "tiny")
    run = MlflowStore(result.tracking_uri).client().get_run(result.run_id)
    metrics = result.metrics()
    logged = {name: value for name, value in run.data.metrics.items() if not name.startswith("system/")}
    assert run.info.status == "FINISHED" and logged == pytest.approx(metrics)
    numbers = read(Path(result.out) / "benchmark.json")
    cost = numbers["devices"]["cpu"]
    assert cost["runtime"]["images"] == 3 and cost["runtime"]["threads"] == 1
    assert [batch["batch_size"] for batch in cost["batches"]] == [1, 2]
    assert metrics["cpu/latency_ms_median"] == cost["runtime"]["latency_ms_median"] > 0
    assert metrics["cpu/stage_ms/backbone"] == cost["stage_ms"]["backbone"] > 0
    fastest = max(batch["images_per_second"] for batch in cost["batches"])
    assert metrics["cpu/images_per_second"] == fastest
    assert metrics["model/parameters"] == sum(p.numel() for p in load_model(place / "model")[0].parameters())
    artifacts = {a.path for a in MlflowStore(result.tracking_uri).client().list_artifacts(result.run_id)}
    assert {"benchmark.html", "benchmark.json"} <= artifacts
    page = (Path(result.out) / "benchmark.html").read_text()
    assert f"{metrics['cpu/latency_ms_median']:.1f} <small>ms</small>" in page and "GFLOPs" in page
    for part in ("latency", "GFLOPs", "suppression", "benchmark.html", result.run_id):
        assert part in result.summary(), part


def refused(config, *parts):
    with pytest.raises(ValueError) as caught:
        benchmark(config)
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


def test_what_cannot_be_measured_is_refused(place, result, tmp_path):
    write_checkpoint(tmp_path / "model", MODEL, seed=1)
    refused(config_of(place, model=str(tmp_path / "model")), "model_fingerprint", "another --name")
    refused(config_of(place, name="gpu", devices=("cpu", "gpu")), "GPU")
    assert not (place / "runs" / "benchmarks" / "gpu").exists()
    refused(config_of(place, model=str(tmp_path / "nowhere")), "nowhere")
    refused(config_of(place, split="val"), "no split 'val'")


@pytest.mark.parametrize(
    ("change", "part"),
    [({"threads": 0}, "threads"), ({"images": 0}, "images"), ({"batch_sizes": ()}, "batch_sizes"),
     ({"batch_sizes": (0,)}, "batch_sizes"), ({"devices": ()}, "devices"), ({"threshold": 2.0}, "threshold"),
     ({"name": "a/b"}, "name")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(place, change, part):
    with pytest.raises(ValueError, match=part):
        config_of(place, **change)

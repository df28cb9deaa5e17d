"""A benchmark keeps the same numbers in its files and its MLflow run, and refuses what it cannot measure."""

from dataclasses import replace
from pathlib import Path

import pytest

from das.checkpoint import load_model
from das.skeleton import COCO17
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.benchmark.benchmark import benchmark
from pipeline.evaluation.benchmark.config import BenchmarkConfig
from pipeline.evaluation.inference import images_and_cameras, spread_images
from pipeline.infra.cluster import ClusterConfig
from pipeline.infra.mlflow_client import MlflowStore
from tests.pipeline.evaluation.evaluation_cases import MODEL, read, scene, write_checkpoint


def config_of(folder: Path, **changes) -> BenchmarkConfig:
    base = BenchmarkConfig(str(folder / "model"), (str(folder / "prepared"),), name="tiny", images=3)
    return replace(base, **{"batch_sizes": (1, 2), "cluster": ClusterConfig(storage=str(folder / "runs")), **changes})


def test_images_without_intrinsics_are_timed_with_assumed_ones(place):
    records = [replace(r, joints_cam=None, K=None) for r in scene(COCO17, frames=1, source="coco")]
    _, (K,), (lens,) = images_and_cameras(records)
    assert K.shape == (3, 3) and K[0, 2] == pytest.approx(159.5) and not lens.any()


def test_evenly_spaced_images_come_with_their_pixels(place):
    annotations = read_annotations([str(place / "prepared")], "test")
    found = spread_images(annotations, 3)
    assert len(found) == 3 and all(record.image for record in found)
    assert len(spread_images(annotations, 100)) == 4


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


def test_another_model_or_missing_data_or_devices_are_refused(place, result, tmp_path):
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
def test_impossible_settings_are_refused(place, change, part):
    with pytest.raises(ValueError, match=part):
        config_of(place, **change)

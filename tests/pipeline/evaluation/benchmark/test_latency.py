"""Latency and throughput count every image once and carry the conditions of the measurement."""

import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from das.config import small
from das.model import DAS
from das.model_info import ModelInfo
from das.predictor import Predictor
from das.recipe import InputSize
from pipeline.evaluation.benchmark.latency import measure, peak_memory_mb, throughput
from pipeline.evaluation.benchmark.runtime import COARSE_STAGES
from pipeline.evaluation.inference import images_and_cameras
from tests.pipeline.evaluation.evaluation_cases import scene

CONFIG = replace(small(), backbone_width=8, fpn_channels=32)


def tiny_predictor(threshold: float = 0.3) -> Predictor:
    torch.manual_seed(0)
    info = ModelInfo(
        model=CONFIG,
        test_size=InputSize(128, 72),
        weights="raw",
        score_threshold=threshold,
        unsupervised_joints=(),
        recipe={},
        data={"sources": [], "fingerprints": [], "terms": [], "split": "train"},
        code_version="0",
        mean_pose=((0.0, 0.0, 0.0),) * CONFIG.n_joints,
    )
    return Predictor(DAS(CONFIG), info)


def encoded(count: int, height: int = 90, width: int = 160) -> list[bytes]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (count, height, width, 3), np.uint8)
    return [cv2.imencode(".jpg", image)[1].tobytes() for image in images]


def cameras(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    K = np.array([[150.0, 0, 79.5], [0, 150, 44.5], [0, 0, 1]])
    return [K] * count, [np.zeros(5)] * count


def test_a_measurement_has_its_device_and_sizes():
    found = measure(tiny_predictor(), encoded(5), *cameras(5), batch_size=4, warm_up=1)
    assert (found.device, found.threads) == ("cpu", torch.get_num_threads())
    assert found.image_size == (90, 160) and found.input_size == (96, 128)
    assert found.images == 5 and found.batch_size == 4 and found.people == 0
    assert 0 < found.latency_ms_median <= found.latency_ms_p90
    assert tuple(found.stage_ms) == COARSE_STAGES and all(ms > 0 for ms in found.stage_ms.values())
    assert found.images_per_second > 0 and found.peak_gpu_memory_mb is None
    metrics = found.metrics()
    assert metrics["runtime/latency_ms_median"] == found.latency_ms_median
    assert metrics["runtime/stage_ms/network"] == found.stage_ms["network"]
    assert all(isinstance(value, float) for value in metrics.values())


def test_a_slow_stage_slows_its_stage_the_latency_and_the_throughput():
    predictor = tiny_predictor()
    network = predictor.network

    def slow(inputs):
        time.sleep(0.05)
        return network(inputs)

    predictor.network = slow
    found = measure(predictor, encoded(4), *cameras(4), batch_size=2, warm_up=1)
    assert found.stage_ms["network"] >= 50 and found.latency_ms_median >= 50
    assert found.images_per_second <= 2 / 0.05


def test_every_image_is_timed_once_and_warm_up_is_not():
    predictor = tiny_predictor()
    prepare, batches = predictor.prepare, []

    def counted(images, Ks, distortions):
        batches.append(len(images))
        return prepare(images, Ks, distortions)

    predictor.prepare = counted
    found = measure(predictor, encoded(5), *cameras(5), batch_size=2, warm_up=3)
    assert batches == [1] * 3 + [1] * 5 + [2] + [2] * 2
    assert found.images == 5
    batches.clear()
    measure(predictor, encoded(1), *cameras(1), batch_size=3, warm_up=0)
    assert batches == [1, 3], "one image fills a batch by repetition"


def test_throughput_fills_whole_batches(predictor):
    jobs = images_and_cameras(scene(frames=2))
    found = throughput(predictor, *jobs, batch_size=4, warm_up=False)
    assert found.batch_size == 4 and found.images_per_second > 0 and found.peak_gpu_memory_mb is None


def test_the_number_of_people_is_part_of_the_measurement():
    assert measure(tiny_predictor(threshold=0.0), encoded(2), *cameras(2), batch_size=2).people > 0


def test_peak_memory_is_that_of_the_kernel():
    status = Path("/proc/self/status")
    if status.exists():
        expected = next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1024
        assert peak_memory_mb() == pytest.approx(expected, rel=0.05)
    assert 50 < peak_memory_mb() < 1e6  # imports of torch alone take more than 50 MB


@pytest.mark.parametrize(("images", "batch_size"), [([], 1), (encoded(1), 0), ([b"no image"], 1), ([b""], 1)])
def test_no_images_or_no_batches_are_refused(images, batch_size):
    with pytest.raises(ValueError, match="wanted"):
        measure(tiny_predictor(), images, *cameras(len(images)), batch_size=batch_size)

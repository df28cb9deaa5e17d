"""Training steps on this machine's GPU, or on its CPU: images/s, and the share of the device's peak.

    python benchmarks/gpu.py                  # release_panoptic and paper_resnet50, 8 images of 832 x 512 pixels
    python benchmarks/gpu.py --small          # a few seconds, for a CPU

One file, no network and no data: drawn images and people lie in memory, so nothing is waited for. A row is forward
pass, backward pass and optimiser step, after warm-up. FLOPs are those of torch's counter (two per multiply-add, forward
and backward). Give the device's peak with --peak, in TFLOP/s of the precision that is used: no list of devices is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from das.assign import with_targets
from das.config import VARIANTS, DASConfig
from das.model import channels_last
from das.sample import Batch, Sample, collate
from das.train_step import TrainStep
from pipeline.training.optim_config import ours
from pipeline.training.progress import TrainingProgress
from pipeline.training.state import TrainingState


def drawn(config: DASConfig, images: int, height: int, width: int) -> Batch:
    """Images of noise with two people each."""
    rng, joints = np.random.default_rng(0), config.n_joints
    samples = []
    for i in range(images):
        root = rng.uniform([0.2 * width, 0.2 * height], [0.8 * width, 0.8 * height], (2, 2))
        samples.append(
            Sample(
                key=f"noise/{i}",
                skeleton=config.skeleton,
                image=rng.integers(0, 255, (height, width, 3), dtype=np.uint8),
                K=np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]]),
                distortion=np.zeros(5),
                joints_uv=root[:, None] + rng.normal(0, height / 10, (2, joints, 2)),
                joints_depth=rng.uniform(2800, 3200, (2, joints)),
                visible=np.ones((2, joints), bool),
                root_uv=root,
                root_depth=np.full(2, 3000.0),
                has_depth=np.ones(2, bool),
            )
        )
    return with_targets(collate(samples), config)


def measured(config: DASConfig, images: int, height: int, width: int, steps: int, device: torch.device) -> str:
    """One row of the table."""
    torch.manual_seed(0)
    step = TrainStep(config).to(device)
    channels_last(step)
    state = TrainingState.new(step, ours(), TrainingProgress(ours(), steps), device)
    batch = drawn(config, images, height, width)
    batch = batch.pinned() if device.type == "cuda" else batch

    def train() -> None:
        part = batch.to(device)
        with torch.autocast(device.type, state.amp, enabled=state.amp is not None):
            loss = step(part, step.counts(part))["loss"]
        torch.autograd.backward(loss)
        state.update(35.0, part.keys)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    with FlopCounterMode(display=False) as flops:
        train()
    train()
    wait()
    began = time.perf_counter()
    for _ in range(steps):
        train()
    issued = time.perf_counter() - began
    wait()
    seconds = (time.perf_counter() - began) / steps
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    rate, teraflops = images / seconds, flops.get_total_flops() / seconds / 1e12
    return f"{rate:9.1f} {1e3 * seconds:9.1f} {issued / steps / seconds:7.2f} {memory:7.1f} {teraflops:9.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="narrow models and small images")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--peak", type=float, help="of the device, TFLOP/s")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}; host: share of a step in which the host issues work")
    print("model             images/s   step ms    host  GB used   TFLOP/s   of peak")
    for variant in ("release_panoptic", "paper_resnet50"):
        config, size = VARIANTS[variant](), (512, 832)
        if args.small:
            config, size = dataclasses.replace(config, backbone_width=8, fpn_channels=32), (64, 96)
        row = measured(config, args.images, *size, args.steps, device)
        share = f"{float(row.split()[-1]) / args.peak:9.2f}" if args.peak else "        -"
        print(f"{variant:16} {row} {share}", flush=True)


if __name__ == "__main__":
    main()

"""The last update layer: exact at the points that matter, against the whole map.

    python benchmarks/recursive_update.py

Takes well under a minute on two cores. The map is the stride 8 level of a 640 x 1138 image. ``at`` updates that many
points of it, ``dense`` all cells and then picks the points. Time is the median of a forward and backward pass;
memory is what autograd keeps between the two, beyond the maps themselves. Read the ratios: they come from one run,
both ways in turn. Expected for the 30 positives of a training image: 2 to 10 times less time (filling the maps'
gradients remains) and 25 to 60 times less memory; for 1000 points, the most that decoding keeps of a level, 1 to 3
times less time and about the same memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from das.config import Update
from das.recursive_update import FeaturePoints, UpdateState, update_at, update_dense

JOINTS, SAMPLES, HEIGHT, WIDTH = 15, 4, 80, 142
KINDS: tuple[Update, ...] = ("single", "multi", "release")
POINTS = (30, 1000)
REPEATS = 7


def random_state(kind: Update) -> UpdateState:
    def maps(*shape: int) -> Tensor:
        return torch.randn(1, JOINTS, *shape, HEIGHT, WIDTH, requires_grad=True)

    if kind == "single":
        return UpdateState(kind, maps(3))
    return UpdateState(kind, maps(3), maps(SAMPLES, 2), maps(3) if kind == "release" else maps(SAMPLES))


def kept_bytes(state: UpdateState, update: Callable[[], Tensor]) -> int:
    own = {t.data_ptr() for t in (state.offsets, state.sampling, state.confidence) if t is not None}
    kept: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = update()
    del result
    return sum(t.untyped_storage().nbytes() for t in kept.values())


def seconds(update: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    update().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    torch.manual_seed(0)
    print("kind     points    at ms  dense ms   ratio    at MB  dense MB   ratio")
    for kind in KINDS:
        state = random_state(kind)
        for count in POINTS:
            image, y, x = (torch.randint(n, (count,)) for n in (1, HEIGHT, WIDTH))
            points = FeaturePoints(image, y, x)

            def at(state: UpdateState = state, points: FeaturePoints = points) -> Tensor:
                return update_at(state, points)

            def dense(state: UpdateState = state, points: FeaturePoints = points) -> Tensor:
                return update_dense(state)[points.image, :, :, points.y, points.x]

            torch.testing.assert_close(at(), dense(), atol=1e-3, rtol=1e-3)
            pairs = [(seconds(at), seconds(dense)) for _ in range(REPEATS)]
            at_ms, dense_ms = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
            at_mb, dense_mb = kept_bytes(state, at) / 1e6, kept_bytes(state, dense) / 1e6
            print(
                f"{kind:8} {count:6} {at_ms:8.1f} {dense_ms:9.1f} {dense_ms / at_ms:6.1f}x"
                f" {at_mb:8.2f} {dense_mb:9.1f} {dense_mb / at_mb:6.1f}x"
            )


if __name__ == "__main__":
    main()

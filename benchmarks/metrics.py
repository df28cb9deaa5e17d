"""Speed of the Panoptic protocols and of their intervals: whole arrays against a loop over people, in one run.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py [--frames 9600] [--people 8]

Wanted: all protocols together under 10 s on one core at the full size. Times are processor time, so other load does not
change them; both ways must give the same numbers. Takes about 25 s, nearly all of it in the loops.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from das.metrics.bootstrap import blocks, interval
from das.metrics.operating_points import best_threshold
from das.metrics.panoptic import panoptic_release, panoptic_smap, smap_scale
from das.metrics.root_precision import root_average_precision
from das.metrics.strict import strict


def timed(function, *arguments):
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=9600)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="fail when the arrays take longer")
    args = parser.parse_args()

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.das.metrics import metric_loops as loops  # the loops that the tests compare with

    scene = loops.make_scene(np.random.default_rng(0), args.frames, args.people)
    truth, predictions = scene.truth, scene.predictions
    scale = smap_scale(1920, 1080)
    print(f"{args.frames} frames, {len(truth)} people, {len(predictions)} predictions")

    rows = []
    fast, a = timed(panoptic_release, truth, predictions, scene.world_mean, scene.R)
    slow, b = timed(loops.release, truth, predictions, scene.world_mean, scene.R)
    rows.append(("panoptic-release", a, b, fast.mpjpe, slow))
    fast, a = timed(panoptic_smap, truth, predictions, scale)
    slow, b = timed(loops.smap, truth, predictions, scale)
    rows.append(("panoptic-smap", a, b, fast.mpjpe, slow[0]))
    fast, a = timed(lambda: strict(truth, predictions, (2,), scene.world_mean, 0.3).numbers())
    slow, b = timed(loops.strict, truth, predictions, scene.world_mean, 0.3)
    rows.append(("strict", a, b, fast["mpjpe"], slow["mpjpe"]))

    fast, a = timed(root_average_precision, truth, predictions, (2,))
    slow, b = timed(loops.root_average_precision, truth, predictions)
    rows.append(("AP of roots 25 cm", a, b, fast, slow))

    print(f"{'protocol':18}{'arrays s':>10}{'loop s':>10}{'ratio':>8}{'mm, or AP':>12}")
    for name, a, b, value, reference in rows:
        assert abs(value - reference) < 1e-6, (name, value, reference)
        print(f"{name:18}{a:10.2f}{b:10.2f}{b / a:8.1f}{value:12.3f}")
    total, loop = (sum(row[i] for row in rows) for i in (1, 2))
    print(f"{'all':18}{total:10.2f}{loop:10.2f}{loop / total:8.1f}")
    # Panoptic's test split: six sequences, every frame seen by two cameras, about 10 frames apart.
    sequence, frame = np.arange(args.frames) % 6, np.arange(args.frames) // 12 * 10
    clusters = blocks(sequence, frame, 29.97)
    scores = strict(truth, predictions, (2,), scene.world_mean, 0.3).scores(truth, predictions, args.frames)
    found, seconds = timed(lambda: [interval(score, clusters) for score in scores.values()])
    low, high = found[0].low, found[0].high
    print(f"{len(found)} intervals over {clusters.count} blocks in {seconds:.2f} s (MPJPE {low:.2f} to {high:.2f} mm)")
    point, seconds = timed(best_threshold, truth, predictions, (2,))
    print(f"best of all thresholds {point.threshold:.3f} (F1 {point.f1:.3f}) found in {seconds:.2f} s")
    if total > args.seconds:
        sys.exit(f"the protocols took {total:.1f} s, wanted less than {args.seconds:g} s")


if __name__ == "__main__":
    main()

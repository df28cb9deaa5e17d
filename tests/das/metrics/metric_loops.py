"""The protocols once more, person by person in plain loops: what tests and benchmarks/metrics.py compare with.

Written from the protocols' descriptions alone; nothing here is imported from das but the input tables and the
camera. Nothing here is fast.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from das.camera import project
from das.metrics.tables import Predictions, Truth

K = np.array([[1400.0, 0, 960], [0, 1400, 540], [0, 0, 1]])


@dataclass
class Scene:
    """People of many frames and noisy predictions for most of them, in shuffled row order."""

    truth: Truth
    predictions: Predictions
    R: np.ndarray  # (F, 3, 3)
    world_mean: np.ndarray  # (J, 3)


def make_scene(rng, frames=12, people=3, joints=15, root=2, noise=40.0, miss=0.2, extra=0.5) -> Scene:
    """Random people 2-6 m away; ``extra`` spurious predictions per frame, ``miss`` of the people without one."""
    template = rng.normal(0, 250, (joints, 3))
    count = frames * people
    frame = np.repeat(np.arange(frames), people)
    place = rng.uniform([-2000, -400, 2500], [2000, 400, 6000], (count, 3))
    pose = template + rng.normal(0, 120, (count, joints, 3))
    cam = pose - pose[:, [root]] + place[:, None]
    uv = project(cam, K)
    scored = rng.random((count, joints)) < 0.9
    scored[:, root] = rng.random(count) < 0.95
    bbox = np.concatenate([uv.min(axis=1), uv.max(axis=1)], axis=1)
    order = rng.permutation(count)
    truth = Truth(frame[order], cam[order], scored[order], uv[order], bbox[order])

    keep = rng.random(count) >= miss
    spurious = rng.poisson(extra, frames)
    total = int(spurious.sum())
    ghost = (
        template
        + rng.normal(0, 200, (total, joints, 3))
        + rng.uniform([-2000, -400, 2500], [2000, 400, 6000], (total, 1, 3))
    )
    pred = np.concatenate([cam[keep] + rng.normal(0, noise, (keep.sum(), joints, 3)), ghost])
    pred_frame = np.concatenate([frame[keep], np.repeat(np.arange(frames), spurious)])
    scores = np.concatenate([rng.beta(4, 2, keep.sum()), rng.beta(2, 4, total)])
    order = rng.permutation(len(pred))
    predictions = Predictions(pred_frame[order], pred[order], scores[order], project(pred, K)[order])
    R = np.linalg.qr(rng.normal(size=(frames, 3, 3)))[0]
    return Scene(truth, predictions, R, template - template[root])


def _by_frame(table) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = {}
    for row, frame in enumerate(table.frame.tolist()):
        rows.setdefault(frame, []).append(row)
    return rows


def release(truth, predictions, world_mean, R, root=2) -> float:
    """MPJPE of panoptic-release."""
    candidates = _by_frame(predictions)
    total, people = 0.0, 0
    for frame, rows in _by_frame(truth).items():
        rows = [t for t in rows if truth.scored[t, root]]
        if not rows:
            continue
        poses = [predictions.joints_cam[p] - predictions.joints_cam[p, root] for p in candidates.get(frame, [])]
        if not poses:
            poses = [(R[frame] @ world_mean.T).T]
        errors = []
        for t in rows:
            target = truth.joints_cam[t] - truth.joints_cam[t, root]
            costs = [np.mean(np.linalg.norm(target - pose, axis=1) * truth.scored[t]) for pose in poses]
            best = poses[costs.index(min(costs))]
            errors.extend(np.linalg.norm(target - best, axis=1)[truth.scored[t]])
        total += len(rows) * np.mean(errors)
        people += len(rows)
    return total / people


def smap(truth, predictions, scale, root=2) -> tuple[float, float]:
    """MPJPE and recall of panoptic-smap."""
    candidates = _by_frame(predictions)
    errors, people = [], 0
    for frame, rows in _by_frame(truth).items():
        rows = [t for t in rows if truth.scored[t, root]]
        people += len(rows)
        pairs = []
        for t in rows:
            for p in candidates.get(frame, []):
                gap = scale * np.linalg.norm(truth.joints_uv[t, root] - predictions.joints_uv[p, root])
                if gap < 30:
                    pairs.append((gap, t, p))
        taken_t, taken_p = set(), set()
        for _, t, p in sorted(pairs):
            if t not in taken_t and p not in taken_p:
                taken_t.add(t)
                taken_p.add(p)
                target = truth.joints_cam[t] - truth.joints_cam[t, root]
                pose = predictions.joints_cam[p] - predictions.joints_cam[p, root]
                errors.append(np.linalg.norm(target - pose, axis=1))
    return np.mean(errors), len(errors) / people


def strict(truth, predictions, mean_pose, threshold, root=2) -> dict[str, float]:
    """The strict protocol's numbers for a joint set with a single root joint, every frame holding people."""
    candidates = _by_frame(predictions)
    errors, baseline, missed, offsets = [], [], [], []
    people = matched = predicted = 0
    for frame, all_rows in _by_frame(truth).items():
        rows = [t for t in all_rows if truth.scored[t, root]]
        others = [t for t in all_rows if not truth.scored[t, root]]
        people += len(rows)
        chosen = [p for p in candidates.get(frame, []) if predictions.scores[p] > threshold]
        cost = np.full((len(rows), len(chosen)), 1e9)
        for i, t in enumerate(rows):
            x0, y0, x1, y1 = truth.bbox[t]
            for j, p in enumerate(chosen):
                gap = np.linalg.norm(truth.joints_uv[t, root] - predictions.joints_uv[p, root])
                if gap < 0.15 * np.hypot(x1 - x0, y1 - y0):
                    cost[i, j] = gap
        for j, p in enumerate(chosen):
            u, v = predictions.joints_uv[p, root]
            boxes = [truth.bbox[t] for t in others]
            at_others = any(x0 <= u <= x1 and y0 <= v <= y1 for x0, y0, x1, y1 in boxes)
            predicted += not at_others or bool((cost[:, j] < 1e9).any())
        pairs = {i: j for i, j in zip(*linear_sum_assignment(cost), strict=True) if cost[i, j] < 1e9}
        for i, t in enumerate(rows):
            counted = [k for k in range(len(mean_pose)) if truth.scored[t, k] and k != root]
            target = truth.joints_cam[t] - truth.joints_cam[t, root]
            mean = np.linalg.norm(mean_pose - target, axis=1)[counted]
            if i in pairs:
                joints = predictions.joints_cam[chosen[pairs[i]]]
                matched += 1
                errors.extend(np.linalg.norm(joints - joints[root] - target, axis=1)[counted])
                baseline.extend(mean)
                offsets.append(np.linalg.norm(joints[root] - truth.joints_cam[t, root]))
            else:
                missed.extend(mean)
    return {
        "mpjpe": np.mean(errors),
        "baseline_mpjpe": np.mean(baseline),
        "mpjpe_with_misses": np.mean(errors + missed),
        "root_error": np.mean(offsets),
        "recall": matched / people,
        "precision": matched / predicted,
    }


def root_average_precision(truth, predictions, radius=250.0, root=2) -> float:
    """Average precision of roots, prediction by prediction in order of falling score."""
    people = _by_frame(truth)
    annotated = sum(bool(scored[root]) for scored in truth.scored)
    taken, right, curve = set(), 0, []
    for place, p in enumerate(np.argsort(-predictions.scores, kind="stable").tolist(), start=1):
        best, nearest = None, radius
        for t in people.get(int(predictions.frame[p]), []):
            if t in taken or not truth.scored[t, root]:
                continue
            gap = np.linalg.norm(truth.joints_cam[t, root] - predictions.joints_cam[p, root])
            if gap < nearest:
                best, nearest = t, gap
        if best is not None:
            taken.add(best)
            right += 1
        curve.append((right / place, best is not None))
    total, envelope = 0.0, 0.0
    for precision, hit in reversed(curve):
        envelope = max(envelope, precision)
        total += envelope if hit else 0.0
    return total / annotated


_PARENT = [1, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, 14, 14, 1]
_ORDER = [15, 1, 0, 16, *range(2, 14)]


def _mapped(pose, target, parent_bug):
    out = pose.copy()
    for i, k in enumerate(_ORDER):
        parent = _PARENT[i] if parent_bug else _PARENT[k]
        bone = pose[k] - pose[parent]
        length = np.linalg.norm(target[k] - target[parent])
        out[k] = out[parent] + bone / np.linalg.norm(bone) * length
    return out


def mupots_matlab(truth, predictions) -> tuple[float, float]:
    """PCK_rel and PCK_abs of mupots-matlab over one sequence, all annotated people, percent."""
    candidates = _by_frame(predictions)
    near = [[], []]
    for frame, rows in _by_frame(truth).items():
        free = list(candidates.get(frame, []))
        for t in rows:
            agreeing = []
            for p in free:
                gap = np.abs(truth.joints_uv[t, 1:14] - predictions.joints_uv[p, 1:14])
                agreeing.append(sum(bool(du < 40 and dv < 40) for du, dv in gap))
            if not agreeing or max(agreeing) == 0:
                near[0].extend([False] * 14)
                near[1].extend([False] * 14)
                continue
            p = free.pop(agreeing.index(max(agreeing)))
            target = truth.joints_cam[t]
            pose = _mapped(predictions.joints_cam[p], target, False)
            near[0].extend(np.linalg.norm(pose - pose[14] - target + target[14], axis=1)[:14] < 150)
            near[1].extend(np.linalg.norm(pose - target, axis=1)[:14] < 150)
    return 100 * np.mean(near[0]), 100 * np.mean(near[1])


def mupots_release(truth, predictions, parent_bug) -> tuple[float, float]:
    """PCK_rel and PCK_abs of mupots-release over one sequence, all annotated people, percent."""
    candidates = _by_frame(predictions)
    near = [[], []]
    for frame, rows in _by_frame(truth).items():
        for t in rows:
            target = truth.joints_cam[t] - truth.joints_cam[t, 14]
            best, best_cost, best_root = None, np.inf, None
            for p in candidates.get(frame, []):
                root = predictions.joints_cam[p, 14]
                pose = predictions.joints_cam[p] - root
                pose[:, :2] *= truth.joints_cam[t, 14, 2] / root[2]
                pose = _mapped(pose, target, parent_bug)
                cost = np.linalg.norm(pose - target, axis=1).mean()
                if cost < best_cost:
                    best, best_cost, best_root = pose, cost, root
            if best_cost <= 250:
                near[0].extend(np.linalg.norm(best - target, axis=1)[:14] < 150)
                near[1].extend(np.linalg.norm(best + best_root - truth.joints_cam[t], axis=1)[:14] < 150)
            else:
                near[0].extend([False] * 14)
                near[1].extend([False] * 14)
    return 100 * np.mean(near[0]), 100 * np.mean(near[1])

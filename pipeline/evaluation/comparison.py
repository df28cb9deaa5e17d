"""Two models on the same images: the scores of both, and their difference with its 95 % interval."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from das.metrics.bootstrap import Interval, paired_interval
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.predictions_file import Predicted
from pipeline.evaluation.protocols.table import COMPARED
from pipeline.evaluation.score import ProtocolResults, score
from pipeline.evaluation.train_overlap import TRAIN_FIT
from pipeline.infra.text_tables import Numbers, Table

_COLUMNS = (
    ("this", ".3f"),
    ("other", ".3f"),
    ("this - other", ".3f"),
    ("sequences lower", ".0f"),
    ("equal", ".0f"),
    ("higher", ".0f"),
)


def compare_models(
    annotations: Annotations, this: Predicted, other: Predicted, threshold: float | None = None
) -> Numbers:
    """Paired differences this - other with intervals, and the number of sequences with each sign of the difference.

    Both are scored in the joints that both predict. Metrics are named compare/..., the ends of their intervals
    ..._low and ..._high. Images that are in quarantine for one of the two are left out.

    Args:
        annotations: the images of both.
        this: predictions of one model.
        other: predictions of the other model.
        threshold: score threshold for ``this``; None takes the model's own, as ``other`` always does.

    Raises:
        ValueError: no joints in common, or only one of the two was measured on its own training images.
    """
    if left_out := {*this.quarantine, *other.quarantine}:
        annotations = annotations.without(left_out)
        this, other = this.without(left_out), other.without(left_out)
    first, second = with_common_joints(this, other)
    return differences(score(annotations, first, threshold), score(annotations, second))


def differences(this: ProtocolResults, other: ProtocolResults) -> Numbers:
    """As ``compare_models``, from results over the same joints (see ``with_common_joints``)."""
    marks = [next(iter(results.metrics)).startswith(TRAIN_FIT) for results in (this, other)]
    if marks[0] != marks[1]:
        which = "this model" if marks[0] else "the other model"
        raise ValueError(f"{which} was trained on some of these images and the other was not: wanted both or neither")
    mark = f"{TRAIN_FIT}/" if marks[0] else ""
    rows: dict[str, list[float | Interval]] = {}
    metrics: dict[str, float] = {}
    # Pairing needs the same images in both sums: a protocol may have other groups for one model's joints.
    for name in COMPARED:
        first, second = this.scores.get(mark + name), other.scores.get(mark + name)
        if first is None or second is None or first.numerator.shape != second.numerator.shape:
            continue
        found = paired_interval(first, second, this.setting.cells.clusters)
        if math.isnan(found.value):
            continue
        signs = np.array([*(found.signs or {}).values()])
        rows[name] = [first.value, second.value, found, *(float((signs == sign).sum()) for sign in (-1, 0, 1))]
        metrics |= {f"{mark}compare/{name}": found.value}
        metrics |= {f"{mark}compare/{name}_{end}": getattr(found, end) for end in ("low", "high")}
    title = "paired comparison: this model less the other on the same images, the same blocks drawn for both"
    return Numbers(metrics, (Table.of("comparison", title, _COLUMNS, rows),), {})


def verdict(numbers: Numbers) -> str:
    """The main result of a comparison as a sentence: the difference in error over all people, and if it is significant.

    Without a mean pose, which gives missed people an error, it is the error over matched people.
    """
    found = {name.removeprefix(f"{TRAIN_FIT}/"): value for name, value in numbers.metrics.items()}
    names = {"mpjpe_with_misses": "error with misses", "mpjpe": "error over matched people"}
    name = next((n for n in names if f"compare/strict/{n}" in found), "mpjpe")
    value, low, high = (found.get(f"compare/strict/{name}{end}", math.nan) for end in ("", "_low", "_high"))
    if math.isnan(low):
        return "the difference has no interval: too few blocks of frames, or no person was matched"
    sure = "surely smaller" if high < 0 else "surely larger" if low > 0 else "not surely different"
    return f"{names[name]} {value:+.1f} mm ({low:+.1f} to {high:+.1f}): {sure}"


def with_common_joints(this: Predicted, other: Predicted) -> tuple[Predicted, Predicted]:
    """Both restricted to the joints that both predict, and both with the mean pose of ``this``.

    Otherwise the two would be scored on different joints, and a missed person would have a different error for each.

    Raises:
        ValueError: their root is not the same joint, or they have no other joint in common.
    """
    first, second = this.provenance.skeleton, other.provenance.skeleton
    common = set(first.joints) & set(second.joints)
    common -= {*this.provenance.unsupervised_joints, *other.provenance.unsupervised_joints}
    if first.root != second.root or not common - set(first.root):
        raise ValueError(
            f"joint sets {first.name} (root {', '.join(first.root)}) and {second.name} (root {', '.join(second.root)}) "
            f"have {len(common)} joints in common: wanted the same root and further joints to compare"
        )
    mean = dict(zip(first.joints, this.provenance.mean_pose, strict=True)) if this.provenance.mean_pose else {}

    def restricted(found: Predicted) -> Predicted:
        skeleton = found.provenance.skeleton
        provenance = replace(
            found.provenance,
            unsupervised_joints=tuple(j for j in skeleton.joints if j not in common),
            mean_pose=tuple(mean.get(j, (0.0, 0.0, 0.0)) for j in skeleton.joints) if mean else None,
        )
        return replace(found, provenance=provenance)

    return restricted(this), restricted(other)

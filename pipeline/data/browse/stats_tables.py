"""Statistics of prepared data as tables for the terminal and plots for the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from pipeline.data.browse.measures import JointStatistics, LevelStatistics, SplitStatistics
from pipeline.infra.html.plots import Bars, Distribution, Plot, Ranges
from pipeline.infra.text_tables import Table

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def tables_of(splits: Mapping[str, SplitStatistics]) -> Iterator[Table]:
    """All statistics as tables, by split; a table without numbers is left out."""
    count, share, number = ",.0f", ".1%", ".2f"
    yield Table(
        "overview",
        "images and people; usable people serve training or scoring",
        [("images", count), ("sequences", count), ("people", count), ("usable", count), ("per image", number),
         ("most", count), ("without", count)],
        {
            name: [s.info.images, len(s.info.sequences), s.info.people, s.people_per_image.total,
                   s.people_per_image.mean, s.people_per_image.most, float(s.people_per_image.counts[0])]
            for name, s in splits.items()
        },
    )  # fmt: skip
    if dropped := _by_reason({name: _without_row(s) for name, s in splits.items()}):
        yield Table("drops", "frames without a row, by reason", [(name, count) for name in splits], dropped)
    if unused := _by_reason({name: s.left_out for name, s in splits.items()}):
        yield Table("left_out", "people who are not used, by reason", [(name, count) for name in splits], unused)
    if any(s.depth.n for s in splits.values()):
        yield Table(
            "depth",
            "depth of people's roots, m",
            [("people", count), ("mean", number), *((f"{q:.0%}", number) for q in _QUANTILES)],
            {name: [s.depth.n, s.depth.mean, *map(s.depth.quantile, _QUANTILES)] for name, s in splits.items()},
        )
    for name, s in splits.items():
        if s.levels is not None:
            yield from _level_tables(name, s.levels)
    for skeleton, joints in _joint_sets(splits).items():
        yield Table(
            f"joints_{skeleton}",
            f"joints of {skeleton}, share of people; visible: labelled and inside the image",
            [(f"{name} {what}", share) for name in joints for what in ("labelled", "occluded", "visible")],
            {
                joint: [x[k] / max(1, j.people) for j in joints.values() for x in (j.labelled, j.occluded, j.visible)]
                for k, joint in enumerate(next(iter(joints.values())).skeleton.joints)
            },
        )
        if any(length.n for j in joints.values() for length in j.bones):
            yield Table(
                f"bones_{skeleton}",
                f"bone lengths of {skeleton}, mm",
                [(f"{name} {what}", ".0f") for name in joints for what in ("5%", "50%", "95%")],
                {
                    f"{a} - {b}": [j.bones[i].quantile(q) for j in joints.values() for q in (0.05, 0.5, 0.95)]
                    for i, (a, b) in enumerate(next(iter(joints.values())).skeleton.bones)
                },
            )


def _level_tables(split: str, levels: LevelStatistics) -> Iterator[Table]:
    model = levels.preset.model
    rows: dict[str, list[float]] = {}
    for i, (stride, (low, high)) in enumerate(zip(model.strides, model.level_ranges, strict=True)):
        n = int(levels.on_level[i])
        points = levels.points[i] / n if n else float("nan")
        top = float("nan") if i == len(model.strides) - 1 else high
        rows[f"level {i}"] = [stride, max(low, 0.0), top, n, n / max(1, levels.people), points]
    yield Table(
        f"levels_{split}",
        f"{split}: people by pyramid level, of {levels.images:,} images at test size; {levels.preset.name}",
        [("stride", ".0f"), ("r_max from", ".0f"), ("to", ".0f"), ("people", ",.0f"), ("share", ".1%"),
         ("points each", ".1f")],
        rows,
    )  # fmt: skip
    if levels.without_positives:
        rows = {reason: [n, n / levels.people] for reason, n in sorted(levels.without_positives.items())}
        title = f"{split}: people without a positive feature point, by reason"
        yield Table(f"without_positives_{split}", title, [("people", ",.0f"), ("share", ".1%")], rows)


def _without_row(split: SplitStatistics) -> Counter[str]:
    """Frames without a row: left out by the source's rules, or quarantined by the conversion for a fault."""
    faults = {f"quarantine: {reason}": n for reason, n in split.info.quarantine.items()}
    return Counter({**split.info.drops, **faults})


def _by_reason(counts: Mapping[str, Counter[str]]) -> dict[str, list[float]]:
    reasons = sorted({reason for counter in counts.values() for reason in counter})
    return {reason: [float(counter[reason]) for counter in counts.values()] for reason in reasons}


def _joint_sets(splits: Mapping[str, SplitStatistics]) -> dict[str, dict[str, JointStatistics]]:
    """Statistics by joint set and split."""
    found: dict[str, dict[str, JointStatistics]] = {}
    for name, s in splits.items():
        for skeleton, joints in s.joints.items():
            found.setdefault(skeleton, {})[name] = joints
    return found


def plots_of(splits: Mapping[str, SplitStatistics]) -> Iterator[Plot]:
    """The same statistics as plots; a plot without numbers is left out."""
    yield Distribution(
        "People per image", "usable people", {name: s.people_per_image.bins() for name, s in splits.items()}, whole=True
    )
    depths = {name: s.depth.bins() for name, s in splits.items() if s.depth.n}
    if depths:
        yield Distribution("Depth of people's roots", "m", depths)
    measured = {name: s.levels for name, s in splits.items() if s.levels is not None and s.levels.people}
    if measured:
        model = next(iter(measured.values())).preset.model
        yield Distribution(
            "Size of people in the network's input",
            "r_max, px",
            {name: levels.r_max.bins() for name, levels in measured.items()},
            marks=model.range_ends,
            caption="r_max: distance from the center to the farthest visible joint. Dashed: ends of the levels.",
        )
        yield Bars(
            "People by pyramid level",
            "share of people",
            [f"stride {stride}" for stride in model.strides],
            {name: (levels.on_level / levels.people).tolist() for name, levels in measured.items()},
        )
    for skeleton, joints in _joint_sets(splits).items():
        names = next(iter(joints.values())).skeleton.joints
        yield Bars(
            f"Joints of {skeleton} that are labelled and inside the image",
            "share of people",
            names,
            {name: (j.visible / max(1, j.people)).tolist() for name, j in joints.items()},
        )
        if any(j.occluded.any() for j in joints.values()):
            yield Bars(
                f"Joints of {skeleton} that are labelled as occluded",
                "share of people",
                names,
                {name: (j.occluded / max(1, j.people)).tolist() for name, j in joints.items()},
            )
        for name, j in joints.items():
            if any(length.n for length in j.bones):
                yield Ranges(
                    f"Bone lengths of {skeleton}, {name}",
                    "mm",
                    {
                        f"{a} - {b}": (bone.quantile(0.05), bone.quantile(0.5), bone.quantile(0.95))
                        for (a, b), bone in zip(j.skeleton.bones, j.bones, strict=True)
                        if bone.n
                    },
                    caption="Dots: medians. Lines: from the 5 % to the 95 % quantile.",
                )
    reasons = _by_reason({name: _without_row(s) + s.left_out for name, s in splits.items()})
    if reasons:
        counts = {name: [row[i] for row in reasons.values()] for i, name in enumerate(splits)}
        yield Bars("Frames and people left out, by reason", "frames or people", list(reasons), counts)

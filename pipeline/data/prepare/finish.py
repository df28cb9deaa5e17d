"""The end of a conversion: reads the reports of all tasks and writes quarantine, index, digest and manifest.

Tasks read the reports, many at a time; the driver writes the index from what a few of them give, so its memory does not
grow with the number of frames, and it makes no file-system call for a single shard. The manifest is written last: a
folder that has one is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import repeat
from pathlib import PurePosixPath
from typing import Any

from das.skeleton import skeleton_named
from pipeline.data.digest import write_digest_of_index
from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.manifest import (
    INDEX,
    MANIFEST,
    QUARANTINE,
    QUARANTINE_COLUMNS,
    TRAIN_DIGEST,
    Manifest,
    SplitInfo,
)
from pipeline.data.prepare.output_folder import remove_leftovers
from pipeline.data.prepare.plan import Plan
from pipeline.data.prepare.shard_task import (
    CONVERTER_VERSION,
    ROWS_ENDING,
    SUMMARY_ENDING,
    add_contents,
    report_path,
    zero_counts,
)
from pipeline.data.schema import VERSION as SCHEMA_VERSION
from pipeline.data.sources.base import DroppedFrame
from pipeline.data.splits import SPLITS
from pipeline.infra.claims import Claim
from pipeline.infra.code_version import code_version
from pipeline.infra.columns import read_columns, write_texts
from pipeline.infra.files import MAX_FILE_BYTES, delete, join, read_json, write_json

FindUnannotated = Callable[[], Iterator[tuple[str, DroppedFrame]]]
"""Finds images that should have an annotation and have none, each with the split that its row would be in."""
InTasks = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""``run_tasks.in_tasks``: the results of a function in the order of the items."""

# Reports that one task reads.
_REPORTS_A_TASK = 64


def finish(
    plan: Plan,
    summaries: Sequence[dict[str, Any]],
    find_unannotated: FindUnannotated,
    allow_missing: bool,
    claim: Claim,
    in_tasks: InTasks,
) -> Manifest:
    """Writes quarantine, index, digest and manifest, in this order, and removes what is no longer needed.

    Args:
        plan: what was converted.
        summaries: of the reports, in the order of the plan's tasks.
        find_unannotated: lists the images without annotation; called more than once.
        allow_missing: finish in spite of frames in quarantine.
        claim: on the prepared folder. Leftovers stay while an equal conversion may be using them.
        in_tasks: reads reports, many at a time, as ``run_tasks.in_tasks`` does.

    Raises:
        ValueError: there are frames in quarantine and ``allow_missing`` is off, or no frame gave a row. The manifest
            is not written then.
    """
    reports = summaries

    def faults() -> Iterator[tuple[str, ...]]:
        return _faults(plan, reports, find_unannotated, in_tasks)

    summaries = [*summaries, *_summaries_of_unannotated(find_unannotated())]
    any_rows = any(summary["shard"] for summary in summaries)
    quarantine = _total(summaries, "quarantine")
    if quarantine and any_rows:
        write_texts(join(plan.out, QUARANTINE), QUARANTINE_COLUMNS, faults())
        if not allow_missing:
            raise ValueError(_quarantine_message(plan, quarantine, faults()))
    else:
        delete(join(plan.out, QUARANTINE))
    if not any_rows:
        found = _examples(quarantine, faults())
        if drops := _total(summaries, "drops"):
            found.append(format_counts(drops))
        if not claim.others():
            for summary in reports:
                delete(report_path(plan.out, summary["report"], SUMMARY_ENDING))
        raise ValueError(f"{plan.source}: {plan.root} gives no image: {'; '.join(found) or 'no frames'}")

    skeletons = sorted({name for summary in summaries for name in summary["skeletons"]})
    _write_index(plan, reports, in_tasks)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        converter_version=CONVERTER_VERSION,
        code_version=code_version(),
        source=plan.source,
        terms=plan.terms,
        skeletons=tuple(skeletons),
        split_manifest=plan.splits.id,
        fingerprint=_fingerprint(plan, summaries, skeletons),
        inputs=plan.inputs,
        splits={
            split: _split_info([s for s in summaries if s["split"] == split])
            for split in SPLITS
            if any(s["split"] == split and (s["shard"] or s["quarantine"]) for s in summaries)
        },
        reencode_long_side=plan.reencode_long_side,
    )
    write_json(join(plan.out, MANIFEST), asdict(manifest))
    if not claim.others():
        remove_leftovers(plan.out, manifest)
    return manifest


def _fingerprint(plan: Plan, summaries: Sequence[dict[str, Any]], skeletons: Sequence[str]) -> str:
    """SHA-256 in hex of versions, joint sets and the sum of all rows' contents, in whatever order and packing."""
    joints = [skeleton_named(name).to_json() for name in skeletons]
    versions = [SCHEMA_VERSION, CONVERTER_VERSION, plan.splits.id, plan.reencode_long_side, joints]
    rows = add_contents(*(summary["content_sum"] for summary in summaries if summary["shard"]))
    return hashlib.sha256(json.dumps([*versions, rows], sort_keys=True).encode()).hexdigest()


def _write_index(plan: Plan, reports: Sequence[dict[str, Any]], in_tasks: InTasks) -> None:
    """Writes split, key and image hash of every row, in the order of the shards, and the digest."""
    written = [report for report in reports if report["shard"]]

    def rows() -> Iterator[tuple[str, str, str]]:
        for group in in_tasks(_read_rows, _groups(plan, written, ROWS_ENDING)):
            for split, keys, images in group:
                yield from zip(repeat(split), keys, images)

    index, digest = join(plan.out, INDEX), join(plan.out, TRAIN_DIGEST)
    write_texts(index, ("split", "key", "image_sha256"), rows())
    if any(report["split"] == "train" for report in written):
        (_,) = in_tasks(_write_digest, [(digest, index)])
    else:
        delete(digest)  # of an earlier attempt


def _faults(
    plan: Plan, reports: Sequence[dict[str, Any]], find_unannotated: FindUnannotated, in_tasks: InTasks
) -> Iterator[tuple[str, ...]]:
    """The rows of the quarantine: all frames that the tasks could not use, then the images without annotation."""
    faulty = [report for report in reports if report["quarantine"]]
    for group in in_tasks(_read_faults, _groups(plan, faulty, SUMMARY_ENDING)):
        yield from group
    for split, drop in find_unannotated():
        yield split, drop.key, drop.file, drop.reason, drop.detail


# ---- in tasks, for the reports of many shards each: (split, path) ----


def _groups(plan: Plan, reports: Sequence[dict[str, Any]], ending: str) -> Iterator[list[tuple[str, str]]]:
    places = [(report["split"], report_path(plan.out, report["report"], ending)) for report in reports]
    return (places[at : at + _REPORTS_A_TASK] for at in range(0, len(places), _REPORTS_A_TASK))


def _read_rows(places: Sequence[tuple[str, str]]) -> list[tuple[str, list[str], list[str]]]:
    """Split, keys and image hashes of every report."""
    found = []
    for split, path in places:
        columns = read_columns(path, ["key", "image_sha256"])
        found.append((split, columns["key"], columns["image_sha256"]))
    return found


def _read_faults(places: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """The rows of the quarantine that reports list."""
    found: list[tuple[str, ...]] = []
    for split, path in places:
        for key, file, reason, detail, _ in read_json(path, MAX_FILE_BYTES)["faults"]:
            found.append((split, key, file, reason, detail))
    return found


def _write_digest(place: tuple[str, str]) -> None:
    digest, index = place
    write_digest_of_index(digest, index, "train")


# ---- counts and messages ----


def _summaries_of_unannotated(unannotated: Iterable[tuple[str, DroppedFrame]]) -> list[dict[str, Any]]:
    """Counts the images without annotation as one summary per split, in the form of a task that gave no row."""
    by_split: dict[str, Counter[str]] = {}
    for split, drop in unannotated:
        by_split.setdefault(split, Counter())[drop.reason] += 1
    empty: dict[str, Any] = {
        "shard": None,
        "counts": zero_counts(),
        "drops": {},
        "changes": {},
        "sequences": {},
        "skeletons": [],
    }
    return [{**empty, "split": split, "quarantine": reasons} for split, reasons in by_split.items()]


def _quarantine_message(plan: Plan, quarantine: Mapping[str, int], faults: Iterable[tuple[str, ...]]) -> str:
    """One line: frames in quarantine, an example of each reason, the file that lists them, and what to do."""
    return (
        f"{plan.source}: {sum(quarantine.values())} frames in quarantine: {'; '.join(_examples(quarantine, faults))}. "
        f"All are listed in {join(plan.out, QUARANTINE)}: mend them and run this again, "
        "or add --allow-missing to do without them"
    )


def _examples(quarantine: Mapping[str, int], faults: Iterable[tuple[str, ...]]) -> list[str]:
    """Each reason with its number of frames, the folder that holds most of them, and a frame with what is wrong."""
    examples: dict[str, str] = {}
    folders: Counter[tuple[str, str]] = Counter()
    for _, key, file, reason, detail in faults:
        examples.setdefault(reason, ": ".join(part for part in (file or key, detail) if part))
        folders[reason, str(PurePosixPath(file).parent) if file else ""] += 1
    parts = []
    for reason, count in quarantine.items():
        places = [(folder, n) for (r, folder), n in folders.most_common() if r == reason and folder]
        most = ""
        if places and len(places) < count:  # one folder holds several of them: it may be the cause
            most = f" ({'all' if places[0][1] == count else f'{places[0][1]} of them'} in {places[0][0]})"
        parts.append(f"{count} x {reason}{most}, such as {examples[reason]}")
    return parts


def _split_info(summaries: Sequence[dict[str, Any]]) -> SplitInfo:
    """Adds up the summaries of one split."""
    statistics = JointStatistics()
    for summary in summaries:
        statistics.merge(JointStatistics.from_json(summary.get("statistics", {})))
    return SplitInfo(
        **_total(summaries, "counts"),
        drops=_total(summaries, "drops"),
        changes=_total(summaries, "changes"),
        sequences=_total(summaries, "sequences"),
        shards=tuple(summary["shard"] for summary in summaries if summary["shard"]),
        quarantine=_total(summaries, "quarantine"),
        row_groups=tuple(tuple(summary["row_groups"]) for summary in summaries if summary["shard"]),
        statistics=statistics.to_json(),
        digest=TRAIN_DIGEST if summaries[0]["split"] == "train" else "",
    )


def _total(summaries: Iterable[dict[str, Any]], name: str) -> dict[str, int]:
    """Adds up the counts of that name, in alphabetical order."""
    summed: Counter[str] = Counter()
    for summary in summaries:
        summed.update(summary.get(name, {}))  # absent in reports of an earlier version
    return dict(sorted(summed.items()))


def format_counts(counts: Mapping[str, int]) -> str:
    """Counts by reason in a line: ``2 x image damaged, 1 x image missing``."""
    return ", ".join(f"{n} x {reason}" for reason, n in sorted(counts.items())) or "no frames"

"""Parts of an evaluation: a few row groups of one shard, predicted by one process and written as one Parquet file.

    parts-HASH/SHARD-HASH-FIRST-LAST.parquet

A part's file is complete or absent, so an evaluation that was interrupted goes on after its finished parts. HASH in the
folder's name is of all that predictions depend on: model, data, joints, score threshold, code. Number of workers, batch
size and device are left out: they change the last digits only, and an evaluation that ran out of memory may go on with
smaller batches.

A file has one row per image, also for an image without people. An image that cannot be predicted has no row and stands
in the file's metadata with the reason: it is in quarantine. ``assemble`` checks that every image has one of the two.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from pipeline.data.data_sets import data_set
from pipeline.data.stored_rows import read_ahead
from pipeline.evaluation.annotations import Annotations
from pipeline.evaluation.predictions_file import QUARANTINE, Provenance, about_predictions
from pipeline.infra.columns import ListColumn, read_lists, write_list_groups
from pipeline.infra.files import join
from pipeline.infra.redaction import redacted

# Rows of a part: as many as keep a GPU busy for some seconds, and fewer where there are few images, so that many
# workers have work. They depend on the data alone, so that a rerun with other workers finds the same parts.
_MOST_ROWS, _FEWEST_ROWS, _MANY_PARTS = 512, 64, 256


@dataclass(frozen=True)
class Part:
    """Neighbouring row groups of one shard.

    Attributes:
        name: of the part's file.
        shard: URI of the shard.
        groups: indices of the row groups. sizes: rows of each of them.
    """

    name: str
    shard: str
    groups: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Number of images."""
        return sum(self.sizes)


def parts_folder(work: str, provenance: Provenance) -> str:
    """The folder of the parts of these predictions in an evaluation's folder."""
    content = json.dumps(provenance.to_json(), sort_keys=True)
    return join(work, f"parts-{hashlib.sha256(content.encode()).hexdigest()[:16]}")


def parts_of(annotations: Annotations) -> list[Part]:
    """The parts of a split, in its stored order.

    Raises:
        ValueError: from ``data_set``.
    """
    rows = max(_FEWEST_ROWS, min(_MOST_ROWS, len(annotations.index) // _MANY_PARTS))
    found = []
    for folder, manifest in zip(annotations.folders, annotations.manifests, strict=True):
        data = data_set(folder, manifest, annotations.split)
        for shard, sizes in zip(data.shards, data.row_groups, strict=True):
            # The fingerprint does not say how rows are packed, and older shards are named by number alone.
            content = f"{manifest.fingerprint} {[*sizes]}"
            stem = shard.partition("?")[0].rpartition("/")[2].removesuffix(".parquet")
            stem += f"-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
            for groups in _packed(sizes, rows):
                name = f"{stem}-{groups[0]}-{groups[-1]}.parquet"
                found.append(Part(name, shard, tuple(groups), tuple(sizes[g] for g in groups)))
    return found


def _packed(sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """Row groups together, in order, with at most ``most`` rows unless one alone has more; empty ones are left out."""
    held: list[int] = []
    for group, size in enumerate(sizes):
        if held and sum(sizes[g] for g in held) + size > most:
            yield held
            held = []
        if size:
            held.append(group)
    if held:
        yield held


def write_part(uri: str, keys: Sequence[str], lists: Mapping[str, ListColumn], quarantine: Mapping[str, str]) -> None:
    """Writes the file of a part: predicted images by key, and the reasons why others could not be predicted."""
    write_list_groups(uri, "key", tuple(lists), [(keys, lists)], lambda: {QUARANTINE: dict(quarantine)})


def assemble(
    folder: str, parts: Sequence[Part], keys: Iterable[str], provenance: Provenance, uri: str, most: int
) -> dict[str, str]:
    """Writes the predictions file from all parts, one of them in memory at a time.

    Args:
        folder: of the parts.
        parts: all of them, in stored order.
        keys: of the images, in stored order.
        provenance: of the predictions.
        uri: the predictions file.
        most: images in quarantine at most.

    Returns:
        reason by key, of the images in quarantine.

    Raises:
        ValueError: a part's file is damaged, or an image has neither a row nor a place in quarantine, or both, or one
            of them twice; names file and key. Or too many are in quarantine. There is no predictions file then.
    """
    quarantine: dict[str, str] = {}

    def groups() -> Iterator[tuple[Sequence[str], Mapping[str, ListColumn]]]:
        expected = iter(keys)
        read = read_ahead(lambda part: _read(folder, part, provenance.lists), parts)
        for part, (found, lists, about) in zip(parts, read, strict=True):
            _check_keys(join(folder, part.name), [*islice(expected, part.rows)], found, about)
            quarantine.update(about)
            if len(quarantine) > most:
                key, reason = next(iter(about.items()))
                raise too_many(len(quarantine), most, f"{key}: {reason}")
            if found:
                yield found, lists
        left = next(expected, None)
        assert left is None, left

    write_list_groups(uri, "key", provenance.lists, groups(), lambda: about_predictions(provenance, quarantine))
    return quarantine


def too_many(found: int, most: int, example: str) -> ValueError:
    """The error of too many images in quarantine."""
    return ValueError(
        f"{found} images cannot be predicted, such as {example}; wanted at most max_quarantine = {most}: "
        "finished parts are kept for the next attempt"
    )


def _read(folder: str, part: Part, wanted: Sequence[str]) -> tuple[list[str], dict[str, ListColumn], dict[str, str]]:
    keys, lists, about = read_lists(join(folder, part.name), "key", wanted)
    return keys, lists, about[QUARANTINE]


def _check_keys(uri: str, wanted: Sequence[str], found: Sequence[str], quarantine: Mapping[str, str]) -> None:
    """ValueError unless the keys found and those in quarantine are exactly those wanted, each once."""
    held = [*found, *quarantine]
    if sorted(held) == sorted(wanted):
        return
    twice = [key for key, times in Counter(held).items() if times > 1]
    missing, unknown = sorted({*wanted} - {*held}), sorted({*held} - {*wanted})
    fault = (
        f"{missing[0]} has neither a row nor a place in quarantine ({len(missing)} of {len(wanted)} images)"
        if missing
        else f"{twice[0]} appears twice"
        if twice
        else f"{unknown[0]} is not an image of this part"
    )
    raise ValueError(f"{redacted(uri)}: {fault}: delete the file and evaluate again")

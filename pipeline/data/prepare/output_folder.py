"""The folder that a conversion writes: where it may lie, what may be in it, and what is removed from it.

Every file that the converter writes has a name of a fixed form. Nothing else is ever deleted, and a folder that holds
anything else is refused: it is somebody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.data.manifest import INDEX, MANIFEST, QUARANTINE, Manifest
from pipeline.data.prepare.shard_task import PARTS
from pipeline.data.splits import SPLITS
from pipeline.infra.cluster import absolute_storage
from pipeline.infra.files import STAGED, delete, join, names

CLAIMS = (PARTS, "claims")
"""Folder of claims (pipeline/infra/claims.py), by the steps to it."""

# By folder, the names that the converter gives in it.
_OWN: dict[tuple[str, ...], str] = {
    (): "|".join((*map(re.escape, (MANIFEST, INDEX, QUARANTINE, PARTS)), *SPLITS)),
    **{(split,): r"shard-\d{5,}-[0-9a-f]{12}\.parquet" for split in SPLITS},
    (PARTS,): rf"({'|'.join(SPLITS)})-\d{{5,}}-[0-9a-f]{{16}}\.json|{CLAIMS[-1]}",
    CLAIMS: r"[0-9a-f]{32}\.json",
}
# What ``staged`` calls a file until it is whole.
_UNFINISHED = re.compile(rf"{re.escape(STAGED)}[0-9a-f]{{32}}-")


def check_apart(root: str, out: str) -> None:
    """ValueError when the prepared folder is that of the originals, lies in it, or holds it."""
    if "://" in (place := absolute_storage(out)):
        return
    originals, prepared = Path(root).expanduser().resolve(), Path(place)
    if prepared == originals:
        relation = "is"
    elif prepared.is_relative_to(originals):
        relation = "lies in"
    elif originals.is_relative_to(prepared):
        relation = "holds"
    else:
        return
    raise ValueError(f"out = {out!r} {relation} the folder of the originals ({root}), wanted a folder apart from it")


def check_own(out: str) -> None:
    """ValueError naming what is in the folder, or in one of its own, that no conversion has put there."""
    if foreign := ["/".join((*folder, name)) for folder, name, own in _contents(out) if not own]:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise ValueError(
            f"{out} holds {', '.join(foreign[:3])}{more}, which no conversion writes: wanted a folder of its own"
        )


@contextmanager
def writing(out: str) -> Iterator[None]:
    """An error of the file system in the block, such as that of a full disk, is told in one line that names ``out``."""
    try:
        yield
    except ConnectionError:  # of Ray or of a server, which tell it better
        raise
    except OSError as error:
        raise ValueError(f"{out}: reading or writing failed: {error}") from error


def tidy(out: str, manifest: Manifest) -> None:
    """Removes what attempts before this one, killed or with other options, have left; no file of anybody else's."""
    kept = {shard for info in manifest.splits.values() for shard in info.shards}
    for folder, name, own in _contents(out):
        leftover = _UNFINISHED.match(name) or (folder and "/".join((*folder, name)) not in kept)
        if own and leftover and (*folder, name) != CLAIMS:
            delete(join(out, *folder, name))
    for folder in (CLAIMS, (PARTS,)):
        if not names(join(out, *folder)):
            delete(join(out, *folder))


def _contents(out: str) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """(Steps to the folder, name, whether the converter gives such names) of all in the folders it makes."""
    for folder, own in _OWN.items():
        for name in names(join(out, *folder)):
            yield folder, name, bool(_UNFINISHED.match(name) or re.fullmatch(own, name))

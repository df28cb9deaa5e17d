"""The folder that a conversion writes: where it may be, what it may hold, and what is removed from it.

Every file that the converter writes has a name of a fixed form. Only files with such names are ever deleted, and a
folder that holds any other file is refused, because that file may be a user's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.data.manifest import INDEX, MANIFEST, QUARANTINE, TRAIN_DIGEST, Manifest
from pipeline.data.prepare.shard_task import PARTS, REPORTS
from pipeline.data.splits import SPLITS
from pipeline.infra.files import STAGED, delete, join, names

CLAIMS = (PARTS, "claims")
"""Path of the folder of claims (pipeline/infra/claims.py) in the prepared folder, as parts."""

# For each folder (its path in the prepared folder, as parts): a regular expression of the names that are written there.
_OWN_NAMES: dict[tuple[str, ...], str] = {
    (): "|".join((*map(re.escape, (MANIFEST, INDEX, TRAIN_DIGEST, QUARANTINE, PARTS)), *SPLITS)),
    **{(split,): r"shard-\d{5,}-[0-9a-f]{12}\.parquet" for split in SPLITS},
    (
        PARTS,
    ): rf"({'|'.join(SPLITS)})-\d{{5,}}-[0-9a-f]{{16}}\.json|{REPORTS[-1]}|{CLAIMS[-1]}",  # .json: versions before 4
    REPORTS: rf"({'|'.join(SPLITS)})-\d{{5,}}-[0-9a-f]{{16}}\.(json|parquet)",
    CLAIMS: r"[0-9a-f]{32}\.json",
}
# Name that ``staged`` gives a file until it is complete.
_UNFINISHED = re.compile(rf"{re.escape(STAGED)}[0-9a-f]{{32}}-")


def check_only_own_files(out: str) -> None:
    """Checks that the prepared folder holds no files but those of conversions.

    Raises:
        ValueError: naming files, in it or in one of its own folders, that no conversion writes.
    """
    if unknown := ["/".join((*folder, name)) for folder, name, own in _contents(out) if not own]:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ValueError(
            f"{out} holds {', '.join(unknown[:3])}{more}, which no conversion writes: "
            "wanted a folder that is empty or holds a conversion"
        )


@contextmanager
def name_folder_in_errors(out: str) -> Iterator[None]:
    """Turns errors of the file system, such as a full disk, into one line that names the prepared folder.

    Raises:
        ValueError: for an ``OSError`` in the block.
    """
    try:
        yield
    except ConnectionError:  # an OSError too, but of Ray or of a server; its own message is better
        raise
    except OSError as error:
        raise ValueError(f"{out}: reading or writing failed: {error}") from error


def remove_leftovers(out: str, manifest: Manifest) -> None:
    """Removes what earlier attempts, killed or with other options, have left, and no file of another origin.

    Args:
        out: the prepared folder.
        manifest: of the finished conversion; the shards that it names stay.
    """
    kept = {shard for info in manifest.splits.values() for shard in info.shards}
    contents = [*_contents(out)]
    if all(own for folder, _, own in contents if folder == REPORTS):  # at once: object storage deletes 1000 a request
        delete(join(out, *REPORTS))
        contents = [entry for entry in contents if entry[0] != REPORTS]
    for folder, name, own in contents:
        leftover = _UNFINISHED.match(name) or (folder and "/".join((*folder, name)) not in kept)
        if own and leftover and (*folder, name) not in (CLAIMS, REPORTS):
            delete(join(out, *folder, name))
    for folder in (CLAIMS, REPORTS, (PARTS,)):
        if not names(join(out, *folder)):
            delete(join(out, *folder))


def _contents(out: str) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """Everything in the folders that the converter makes: (folder, name, whether the converter gives such names)."""
    for folder, own in _OWN_NAMES.items():
        for name in names(join(out, *folder)):
            yield folder, name, bool(_UNFINISHED.match(name) or re.fullmatch(own, name))

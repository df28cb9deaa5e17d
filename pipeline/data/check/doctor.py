"""`das doctor data ROOT`: what is there of a data set, what is missing or broken, and what to type next.

It recognises the data set by its names. Folders are listed and annotation files read; of the images it reads
headers and decodes a few, more on demand (pipeline/data/check/images.py). A folder beside the right one is told
from an empty one, and the right one is named.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from das.fields import at_least
from pipeline.data.check import coco, custom, mpi_inf_3dhp, muco, mupots, panoptic, synthetic
from pipeline.data.check.base import Inventorist, Inventory, Trouble, View
from pipeline.data.check.images import check_images
from pipeline.data.check.listing import Tree
from pipeline.data.sources.base import terms_of
from pipeline.data.splits import SPLITS, Split, SplitManifest, read_splits
from pipeline.infra.text_tables import Table

Name = Literal["panoptic", "muco", "mupots", "coco", "mpi_inf_3dhp", "custom", "synthetic"]

KINDS: dict[Name, Inventorist] = {
    "panoptic": panoptic,
    "muco": muco,
    "mupots": mupots,
    "coco": coco,
    "mpi_inf_3dhp": mpi_inf_3dhp,
    "custom": custom,
    "synthetic": synthetic,
}

COMPLETE, PARTIAL, NOTHING = 0, 1, 2

# Bytes of a row beside its image: annotations of a handful of people.
_ROW_BYTES = 2000
# A table of more lines than this shows sequences and not their cameras.
_MOST_LINES = 60
# How far from the given folder the right one is looked for: levels up, levels down, folders in all.
_LEVELS_UP, _LEVELS_DOWN, _MOST_FOLDERS = 4, 3, 400


@dataclass(frozen=True)
class DoctorConfig:
    """Which folder is looked at, and how closely.

    Exit status: 0, all that the split manifest takes is there, whole as far as it was looked at, and fits on the
    disk; 1, some of it can be converted; 2, there is nothing to convert, or it is the wrong folder.
    """

    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
    """Folder of original data."""
    source: Name | None = None
    """Kind of data; None recognises it."""
    splits: tuple[Split, ...] = SPLITS
    """Splits that are wanted; the others are not missed."""
    split_manifest: str | None = None
    """What is wanted: a committed split manifest's name (panoptic-release, ...) or a JSON file, as for `das prepare`;
    None takes the source's own."""
    sequences: tuple[str, ...] = ()
    """Only these sequences of the split manifest; empty means all."""
    cameras: tuple[str, ...] = ()
    """Other cameras than the split manifest's; only for sources in Panoptic's layout."""
    headers: int = 20_000
    """Read at most so many image headers, evenly spread; 0 reads every one."""
    decode: int = 8
    """Decode so many images of each sequence and camera, evenly spread."""
    decode_all: bool = False
    """Decode every image and read every annotation file: hours for large data."""
    names: int = 3
    """Name at most so many missing and damaged files of each sequence and camera."""
    out: str = "prepared"
    """Folder in which the prepared data shall lie: whether they fit, and part of the next command."""

    def __post_init__(self) -> None:
        if not self.splits:
            raise ValueError("splits is empty, wanted some of train, val, test")
        at_least(self, headers=0, decode=0, names=0)


@dataclass(frozen=True)
class Finding:
    """What was found of one source.

    Attributes:
        name: of the source. config: what was asked.
        inventory: what is there, images checked.
        headers, decoded: how many images were looked at.
        needed, free: bytes of the conversion, and on its disk (None where that cannot be asked).
        elsewhere: a better folder of the same source, if this one holds no image of it.
    """

    name: Name
    config: DoctorConfig
    inventory: Inventory
    headers: int
    decoded: int
    needed: int
    free: int | None
    elsewhere: Path | None

    @property
    def status(self) -> int:
        """Exit status, see ``DoctorConfig``."""
        if not self.inventory.ready:
            return NOTHING
        fits = self.free is None or self.free > self.needed
        return COMPLETE if self.inventory.complete and fits else PARTIAL

    def text(self) -> str:
        """The whole report for a terminal."""
        kind, found = KINDS[self.name], self.inventory
        lines = [f"{self.name}: {kind.TITLE} in {_root(self.config)}"]
        if found.views:
            lines += ["", _table(found.views).text()]
        lines += _section("missing", [*_grouped(found.absent), *_missing(found.views, self.config.names)])
        damaged = [line for view in found.views for line in _damaged(view, self.config.names)]
        lines += _section("cannot be used", [*(f"{t.path}: {t.what}" for t in found.troubles), *damaged])
        lines += _section("not asked for", found.strangers)
        lines += _section("note", found.notes)
        looked = f"read {found.read}; {self.headers} image headers of {_pictures(found)}, decoded {self.decoded}"
        terms = f"terms: {terms_of(kind.SOURCE, _root(self.config))}"
        return "\n".join((*lines, "", looked, *self._verdict(), terms, f"next: {self._next()}"))

    def _verdict(self) -> Iterator[str]:
        found = self.inventory
        if found.ready:
            free = "" if self.free is None else f", {_size(self.free)} are free there"
            yield f"conversion needs about {_size(self.needed)} in {self.config.out}{free}"
        if self.elsewhere is not None:
            yield f"{self.elsewhere} looks more like the root of {KINDS[self.name].TITLE}"
        if self.free is not None and self.free <= self.needed:
            yield f"not enough room: {_size(self.needed - self.free)} too little in {self.config.out}"
        state = {COMPLETE: "complete", PARTIAL: "partial", NOTHING: "nothing to convert"}[self.status]
        yield f"{state}: {found.ready:,} of {found.wanted:,} wanted images are ready"

    def _next(self) -> str:
        page = KINDS[self.name].PAGE
        if self.elsewhere is not None:
            return f"das doctor data {shlex.quote(str(self.elsewhere))}"
        if self.status == NOTHING:
            return f"das doctor data {shlex.quote(self.config.root)}   # again, with what is missing: {page} says where"
        command = ["das", "prepare", "--source", self.name, "--root", str(_root(self.config))]
        command += ["--out", f"{self.config.out.rstrip('/')}/{self.name}"]
        if self.config.split_manifest is not None:
            command += ["--split-manifest", self.config.split_manifest]
        if self.config.splits != SPLITS:
            command += ["--splits", *self.config.splits]
        views = self.inventory.views
        taken = list(dict.fromkeys(view.sequence for view in views if view.ready))
        # A file that cannot be used refuses the whole conversion, unless its sequence is left out.
        unready = self.inventory.troubles or any(view.wanted and not view.ready for view in views)
        if self.config.sequences or unready:
            command += ["--sequences", *taken]
        if self.config.cameras:
            command += ["--cameras", *self.config.cameras]
        if any(view.ready < view.wanted or view.strays for view in views if view.sequence in taken):
            command.append("--allow-missing")
        more = "" if self.status == COMPLETE else f"   # takes what is ready; {page} says where the rest is"
        return shlex.join(command) + more


def doctor(config: DoctorConfig) -> int:
    """Looks, prints what it found, and returns the exit status.

    Raises:
        ValueError: the folder cannot be listed, or ``sequences`` or ``cameras`` are none of the source's.
    """
    root = _root(config)
    if not root.is_dir():
        print(f"{root}: no such folder")
        print(_unknown(config, root))
        return NOTHING
    names = [config.source] if config.source else recognised(root)
    if not names:
        print(f"{root}: {_contents(root)}, no data set that is known here")
        print(_unknown(config, root))
        return NOTHING
    findings = [examine(name, config) for name in names]
    print("\n\n".join(finding.text() for finding in findings))
    found = {finding.status for finding in findings}
    return found.pop() if len(found) == 1 else PARTIAL


def recognised(root: Path) -> list[Name]:
    """Sources whose root this folder looks like, complete or not."""
    tree = Tree(root)
    return [name for name, kind in KINDS.items() if kind.recognises(tree)]


def examine(name: Name, config: DoctorConfig) -> Finding:
    """The inventory of one source, its images checked; ValueError as ``doctor``."""
    root, kind = _root(config), KINDS[name]
    with tqdm(unit=" files", desc="list", delay=1) as progress:
        splits = kind.SOURCE.SPLITS if config.split_manifest is None else read_splits(config.split_manifest)
        found = kind.inventory(Tree(root, progress), _narrowed(name, splits, config), config.decode_all)
    known = tuple(f"{part.sequence}:" for part in splits.parts)
    found.strangers = [line for line in found.strangers if not line.startswith(known)]
    headers, decoded = check_images(root, found, config.headers or None, None if config.decode_all else config.decode)
    needed = sum(view.bytes + view.ready * _ROW_BYTES for view in found.views if not view.blocked)
    better = None
    if not found.ready:
        better = next((place for place, names in nearby(root) if name in names), None)
    return Finding(name, config, found, headers, decoded, needed, _free(config.out), better)


def _narrowed(name: str, splits: SplitManifest, config: DoctorConfig) -> SplitManifest:
    """The split manifest with the parts and cameras that are asked for."""
    chosen = splits.narrowed(config.sequences, config.splits)
    if config.cameras and not splits.cameras:
        raise ValueError(f"cameras = {config.cameras}, but {name} has one camera without a name")
    return replace(chosen, cameras=config.cameras or splits.cameras)


def nearby(root: Path) -> list[tuple[Path, list[Name]]]:
    """Folders above and below that look like the root of a data set, nearest first, and of which."""
    above = [folder for folder in list(root.parents)[:_LEVELS_UP] if folder.is_dir()]
    found = [(folder, names) for folder in above if (names := recognised(folder))]
    level, looked = [root], 0
    for _ in range(_LEVELS_DOWN):
        level = [folder / name for folder in level for name in Tree(folder).folders() if not name.startswith(".")]
        for folder in level[: _MOST_FOLDERS - looked]:
            looked += 1
            if names := recognised(folder):
                found.append((folder, names))
        inside = [folder for folder, _ in found]
        level = [folder for folder in level[:_MOST_FOLDERS] if folder not in inside]
    return found


def _unknown(config: DoctorConfig, root: Path) -> str:
    """What to do with a folder that is no data set."""
    near = nearby(root) if root.is_dir() else nearby(next(p for p in root.parents if p.is_dir()))
    if near:
        lines = [f"  {folder} looks like {' and '.join(KINDS[n].TITLE for n in names)}" for folder, names in near]
        commands = [f"das doctor data {shlex.quote(str(folder))}" for folder, _ in near]
        return "\n".join((*lines, f"next: {commands[0]}", *(f"  or: {command}" for command in commands[1:])))
    width = max(map(len, KINDS))
    return "\n".join(
        (
            "missing: everything. The data sets, what their roots hold, and where they are described:",
            *(f"  {name:<{width}}  {kind.LAYOUT} ({kind.PAGE})" for name, kind in KINDS.items()),
            f"next: das doctor data {shlex.quote(config.root)}   # once one of these is there",
            "  or: das render --out data/studio   # people without a licence, to begin with",
        )
    )


def _root(config: DoctorConfig) -> Path:
    return Path(config.root).expanduser().resolve()


def _contents(root: Path) -> str:
    tree = Tree(root)
    files, folders = tree.names(), tree.folders()
    if not files and not folders:
        return "an empty folder"
    some = ", ".join([*folders, *files][:4]) + (", ..." if len(files) + len(folders) > 4 else "")
    return f"{len(folders)} folders and {len(files)} files ({some})"


def _free(out: str) -> int | None:
    """Free bytes where a local folder would be written; None for object storage."""
    if "://" in out:
        return None
    place = Path(out).expanduser().resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _table(views: Sequence[View]) -> Table:
    columns = (
        ("annotated", ",d"),
        ("wanted", ",d"),
        ("ready", ",d"),
        ("missing", ",d"),
        ("damaged", ",d"),
        ("no annotation", ",d"),
        ("MB", ",.1f"),
    )
    grouped: dict[str, list[View]] = {}
    for view in views:
        camera = "" if len(views) > _MOST_LINES else f" {view.camera}"
        grouped.setdefault(f"{view.sequence}{camera} {view.split}", []).append(view)
    rows = {name: _counts(group) for name, group in grouped.items()}
    if len(rows) > 1:
        rows["all"] = _counts(views)
    what = "sequence and split" if len(views) > _MOST_LINES else "sequence, camera and split"
    return Table("inventory", f"images by {what}", columns, rows)


def _counts(views: Sequence[View]) -> list[float]:
    return [
        sum(view.annotated for view in views),
        sum(view.wanted for view in views),
        sum(view.ready for view in views),
        sum(len(view.missing) for view in views),
        sum(len(view.damaged) for view in views),
        sum(view.unannotated for view in views),
        sum(view.bytes for view in views) / 1e6,
    ]


def _missing(views: Sequence[View], names: int) -> Iterator[str]:
    for view in views:
        if view.missing:
            n = len(view.missing)
            every = f"all {n} images" if n == view.wanted else f"{n} of {view.wanted} images"
            yield f"{every} of {view.sequence} {view.camera} {view.split}{_some(view.missing, names)}"
        if view.strays:
            lost = f"{len(view.strays)} annotations of {view.sequence} {view.camera} {view.split}"
            yield f"{lost}, whose images are there{_some(view.strays, names)}"


def _damaged(view: View, names: int) -> Iterator[str]:
    if view.blocked:
        yield f"all of {view.sequence} {view.camera}: {view.blocked}"
    yield from (f"{trouble.path}: {trouble.what}" for trouble in view.damaged[:names])
    if (more := len(view.damaged) - names) > 0 and names:
        yield f"and {more} more of {view.sequence} {view.camera} {view.split} (--names {len(view.damaged)} names them)"


def _some(paths: Sequence[str], names: int) -> str:
    some = ", ".join(paths[:names]) + (", ..." if len(paths) > names else "")
    return f": {some}" if names else ""


def _grouped(troubles: Sequence[Trouble]) -> Iterator[str]:
    """One line for all that lack the same thing."""
    by_reason: dict[str, list[str]] = {}
    for trouble in troubles:
        by_reason.setdefault(trouble.what, []).append(trouble.path)
    yield from (f"{', '.join(paths)}: {what}" for what, paths in by_reason.items())


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _pictures(found: Inventory) -> int:
    return sum(len(view.pictures) for view in found.views)


def _size(count: float) -> str:
    """Bytes in the unit that leaves 1 to 3 digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

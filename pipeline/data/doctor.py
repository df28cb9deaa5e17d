"""`das doctor data ROOT`: which files of a data set exist, which are missing or damaged, and the command to run next.

The data set is recognised by the names of its files. Folders are listed and annotation files read; of the images,
headers are read and a few are decoded, more on demand (pipeline/data/check/images.py), and a few frames are read as the
conversion reads them (rows.py). If the folder has no data, the folders below it are searched for a root, and those
above it are tried; none outside of it is listed.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from das.fields import at_least, check_values
from pipeline.data.catalog import CATALOG, read_splits
from pipeline.data.check.base import CameraInventory, Inventory, Problem
from pipeline.data.check.images import check_images
from pipeline.data.check.listing import Tree
from pipeline.data.check.panoptic import sequence_cameras
from pipeline.data.check.rows import check_rows
from pipeline.data.check.split_proposal import check_command, proposal
from pipeline.data.sources.terms import terms_of
from pipeline.data.splits import SPLITS, Split, SplitManifest
from pipeline.infra.configs import one_of
from pipeline.infra.text_tables import Table

# Exit statuses.
COMPLETE, PARTIAL, NOTHING = 0, 1, 2

# Bytes of a prepared row without its image: annotations of a few people.
_ROW_BYTES = 2000
# A longer table has one row per sequence instead of one per sequence and camera.
_MAX_ROWS = 60
# Where a root is searched for if the given folder is none: levels up, levels down, folders in all.
_LEVELS_UP, _LEVELS_DOWN, _MAX_FOLDERS = 4, 3, 400
# Files by which a folder above is recognised.
_FILES_ABOVE = ("skeleton.json",)


@dataclass(frozen=True)
class DoctorConfig:
    """Which folder is checked, and how closely.

    Exit status: 0, all that the split manifest takes exists, no damage was found, and the prepared data fit on the
    disk; 1, some of it can be converted; 2, there is nothing to convert, or it is the wrong folder.
    """

    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
    """Folder of original data."""
    source: Annotated[str, one_of(CATALOG)] | None = None
    """Kind of data; None recognises it."""
    splits: tuple[Split, ...] = SPLITS
    """Splits that are wanted; files of the others are not reported as missing."""
    split_manifest: str | None = None
    """Which frames are wanted: a committed split manifest's name (panoptic-release, ...) or a JSON file, as for
    `das prepare`; None takes the source's own."""
    sequences: tuple[str, ...] = ()
    """Only these sequences of the split manifest; empty means all."""
    cameras: tuple[str, ...] = ()
    """Cameras instead of the split manifest's; only for sources in Panoptic's layout."""
    headers: int = 20_000
    """Read at most this many image headers, evenly spaced; 0 reads every one."""
    decode: int = 8
    """Decode this many images of each sequence and camera, evenly spaced, and read as many rows."""
    decode_all: bool = False
    """Decode every image and video, and read every annotation and row: hours for large data."""
    names: int = 3
    """Name at most this many missing and damaged files of each sequence and camera."""
    out: str = "prepared"
    """Folder for the prepared data: its disk's free space is compared, and the next command writes there."""

    def __post_init__(self) -> None:
        if not self.splits:
            raise ValueError("splits is empty, wanted some of train, val, test")
        what = "a folder: copy what is to be checked; `das prepare` reads object storage and names what is wrong there"
        check_values(self, ("root", "://" not in self.root, what))
        good = self.source is None or self.source in CATALOG
        check_values(self, ("source", good, f"one of {', '.join(CATALOG)}"))
        at_least(self, headers=0, decode=0, names=0)


@dataclass(frozen=True)
class Finding:
    """The result for one source.

    Attributes:
        name: of the source. config: the configuration of the check.
        inventory: its files, images checked.
        headers, decoded, rows: how many image headers were read, images decoded, and frames read as for a conversion.
        needed, free: bytes that the conversion writes, and that are free on its disk (None for object storage).
        elsewhere: a folder that looks like a root of the same source, if this one has no usable image.
    """

    name: str
    config: DoctorConfig
    inventory: Inventory
    headers: int
    decoded: int
    rows: int
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
        entry, found = CATALOG[self.name], self.inventory
        lines = [f"{self.name}: {entry.inventory.TITLE} in {_root(self.config)}"]
        if found.cameras:
            lines += ["", _table(found.cameras).text()]
        lines += _section("missing", [*_grouped(found.absent), *_missing(found.cameras, self.config.names)])
        damaged = [line for camera in found.cameras for line in _damaged(camera, self.config.names)]
        lines += _section("cannot be used", [*(f"{p.path}: {p.what}" for p in found.problems), *damaged])
        lines += _section("in doubt", [camera.doubt for camera in found.cameras if camera.doubt])
        lines += _section("unknown sequences", found.unknown)
        if unknown := self._unknown_sequences():
            tree = Tree(_root(self.config))
            cameras = sorted({camera for name in unknown for camera in sequence_cameras(tree, name)})
            lines += _section("to convert unknown sequences", proposal(self.config.root, unknown, cameras))
        lines += _section("note", found.notes)
        images = sum(len(camera.images) for camera in found.cameras)
        checked = (
            f"read {found.read}; {self.headers} image headers of {images}, decoded {self.decoded}, {self.rows} rows"
        )
        terms = f"terms: {terms_of(entry.source, _root(self.config))}"
        return "\n".join((*lines, "", checked, *self._summary(), terms, f"next: {self._next()}"))

    def _summary(self) -> Iterator[str]:
        found = self.inventory
        if found.ready:
            free = "" if self.free is None else f", {_size(self.free)} are free there"
            yield f"conversion needs about {_size(self.needed)} in {self.config.out}{free}"
        if self.elsewhere is not None:
            yield f"{self.elsewhere} looks more like the root of {CATALOG[self.name].inventory.TITLE}"
        if self.free is not None and self.free <= self.needed:
            yield f"not enough room: {_size(self.needed - self.free)} too little in {self.config.out}"
        state = {COMPLETE: "complete", PARTIAL: "partial", NOTHING: "nothing to convert"}[self.status]
        yield f"{state}: {found.ready:,} of {found.wanted:,} wanted images are ready"

    def _unknown_sequences(self) -> list[str]:
        return [line.partition(":")[0] for line in self.inventory.unknown]

    def _next(self) -> str:
        page = CATALOG[self.name].inventory.PAGE
        if self.elsewhere is not None:
            return f"das doctor data {shlex.quote(str(self.elsewhere))}"
        if self.status == NOTHING and (unknown := self._unknown_sequences()):
            return check_command(self.config.root, unknown)
        cameras = self.inventory.cameras
        doubted = {camera.sequence for camera in cameras if camera.doubt}
        taken = list(dict.fromkeys(camera.sequence for camera in cameras if camera.ready))
        taken = [sequence for sequence in taken if sequence not in doubted]
        if not taken:
            return f"das doctor data {shlex.quote(self.config.root)}   # again, with what is missing: {page} says where"
        command = ["das", "prepare", "--source", self.name, "--root", str(_root(self.config))]
        command += ["--out", f"{self.config.out.rstrip('/')}/{self.name}"]
        if self.config.split_manifest is not None:
            command += ["--split-manifest", self.config.split_manifest]
        if self.config.splits != SPLITS:
            command += ["--splits", *self.config.splits]
        # The conversion refuses to start because of such a file, unless its sequence is left out.
        unready = self.inventory.problems or any(camera.wanted and not camera.ready for camera in cameras) or doubted
        if self.config.sequences or unready:
            command += ["--sequences", *taken]
        if self.config.cameras:
            command += ["--cameras", *self.config.cameras]
        chosen = [camera for camera in cameras if camera.sequence in taken]
        if any(camera.ready < camera.wanted or camera.lost_annotations for camera in chosen):
            command.append("--allow-missing")
        more = "" if self.status == COMPLETE else f"   # takes what is ready; {page} says where the rest is"
        return shlex.join(command) + more


def doctor(config: DoctorConfig) -> int:
    """Checks a folder of original data, prints the report, and returns the exit status.

    Raises:
        ValueError: the folder cannot be listed, or ``sequences`` or ``cameras`` are not the source's.
    """
    root = _root(config)
    if not root.is_dir():
        print(f"{root}: no such folder")
        print(_unknown(config, root))
        return NOTHING
    names = [config.source] if config.source else recognised(root)
    if not names:
        print(f"{root}: {_contents(root)}, not a known data set")
        print(_unknown(config, root))
        return NOTHING
    findings = [examine(name, config) for name in names]
    print("\n\n".join(finding.text() for finding in findings))
    found = {finding.status for finding in findings}
    return found.pop() if len(found) == 1 else PARTIAL


def recognised(root: Path) -> list[str]:
    """Names of the sources whose root this folder looks like, complete or not."""
    return _sources_of(Tree(root))


def _sources_of(tree: Tree) -> list[str]:
    return [name for name, entry in CATALOG.items() if entry.inventory.recognises(tree)]


def examine(name: str, config: DoctorConfig) -> Finding:
    """The inventory of one source, its images checked; raises as ``doctor``."""
    root, entry = _root(config), CATALOG[name]
    with tqdm(unit=" files", desc="list", delay=1) as progress:
        splits = entry.source.SPLITS if config.split_manifest is None else read_splits(config.split_manifest)
        wanted = _narrowed(name, splits, config)
        tree = Tree(root, progress)
        found = entry.inventory.inventory(tree, wanted, config.decode_all)
        found.notes += [f"{link}: a link out of the folder, or round in it, is not followed" for link in tree.links]
    # Sequences of the whole split manifest that ``config`` leaves out are not unknown.
    known = tuple(f"{part.sequence}:" for part in splits.parts)
    found.unknown = [line for line in found.unknown if not line.startswith(known)]
    headers, decoded = check_images(root, found, config.headers or None, None if config.decode_all else config.decode)
    rows = check_rows(Tree(root), entry.source, wanted, found, None if config.decode_all else config.decode)
    needed = sum(camera.bytes + camera.ready * _ROW_BYTES for camera in found.cameras if not camera.blocked)
    better = None
    if not found.ready:
        near = (place for place, names in nearby(root) if name in names)
        better = next((place for place in near if root.is_relative_to(place) or _has_more(name, place, config)), None)
    return Finding(name, config, found, headers, decoded, rows, needed, _free(config.out), better)


def _has_more(name: str, place: Path, config: DoctorConfig) -> bool:
    """Whether a folder has frames that are ready; sending to one without any would lead back here."""
    splits = CATALOG[name].source.SPLITS if config.split_manifest is None else read_splits(config.split_manifest)
    return CATALOG[name].inventory.inventory(Tree(place), _narrowed(name, splits, config)).ready > 0


def _narrowed(name: str, splits: SplitManifest, config: DoctorConfig) -> SplitManifest:
    """The split manifest with the configured splits, sequences and cameras only."""
    chosen = splits.narrowed(config.sequences, config.splits)
    if config.cameras and not splits.cameras:
        raise ValueError(f"cameras = {config.cameras}, but {name} has one camera without a name")
    return replace(chosen, cameras=config.cameras or splits.cameras)


def nearby(root: Path) -> list[tuple[Path, list[str]]]:
    """Folders above and below that look like the root of a data set, nearest first, and the names of its source.

    Folders above are not listed: what is in ``root`` must be enough to recognise them.
    """
    above = [Tree(folder, inside=root, names=_FILES_ABOVE) for folder in list(root.parents)[:_LEVELS_UP]]
    found = [(tree.root, names) for tree in above if (names := _sources_of(tree))]
    level, looked = [root], 0
    for _ in range(_LEVELS_DOWN):
        level = [folder / name for folder in level for name in Tree(folder).folders() if not name.startswith(".")]
        for folder in level[: _MAX_FOLDERS - looked]:
            looked += 1
            if names := recognised(folder):
                found.append((folder, names))
        inside = [folder for folder, _ in found]
        level = [folder for folder in level[:_MAX_FOLDERS] if folder not in inside]
    return found


def _unknown(config: DoctorConfig, root: Path) -> str:
    """The rest of the report for a folder that is not a data set: roots near it, or a list of all data sets."""
    near = nearby(root) if root.is_dir() else []
    if near:
        titles = [" and ".join(CATALOG[name].inventory.TITLE for name in names) for _, names in near]
        lines = [f"  {folder} looks like {title}" for (folder, _), title in zip(near, titles, strict=True)]
        commands = [f"das doctor data {shlex.quote(str(folder))}" for folder, _ in near]
        return "\n".join((*lines, f"next: {commands[0]}", *(f"  or: {command}" for command in commands[1:])))
    width = max(map(len, CATALOG))
    inventories = {name: entry.inventory for name, entry in CATALOG.items()}
    return "\n".join(
        (
            "missing: everything. The data sets, what their roots hold, and where they are described:",
            *(f"  {name:<{width}}  {found.LAYOUT} ({found.PAGE})" for name, found in inventories.items()),
            f"next: das doctor data {shlex.quote(config.root)}   # once one of these is there",
            "  or: das render --out data/studio   # people without a licence, to begin with",
        )
    )


def _root(config: DoctorConfig) -> Path:
    return Path(config.root).expanduser().resolve()


def _contents(root: Path) -> str:
    """How many folders and files a folder has, with a few names."""
    tree = Tree(root)
    files, folders = tree.names(), tree.folders()
    if not files and not folders:
        return "an empty folder"
    some = ", ".join([*folders, *files][:4]) + (", ..." if len(files) + len(folders) > 4 else "")
    return f"{len(folders)} folders and {len(files)} files ({some})"


def _free(out: str) -> int | None:
    """Free bytes on the disk of a local folder, which need not exist yet; None for object storage."""
    if "://" in out:
        return None
    place = Path(out).expanduser().resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _table(cameras: Sequence[CameraInventory]) -> Table:
    """Counts per sequence, camera and split, and their sum."""
    columns = (
        ("annotated", ",d"),
        ("wanted", ",d"),
        ("ready", ",d"),
        ("missing", ",d"),
        ("damaged", ",d"),
        ("no annotation", ",d"),
        ("MB", ",.1f"),
    )
    grouped: dict[str, list[CameraInventory]] = {}
    for camera in cameras:
        name = "" if len(cameras) > _MAX_ROWS else f" {camera.camera}"
        grouped.setdefault(f"{camera.sequence}{name} {camera.split}", []).append(camera)
    rows = {name: _counts(group) for name, group in grouped.items()}
    if len(rows) > 1:
        rows["all"] = _counts(cameras)
    what = "sequence and split" if len(cameras) > _MAX_ROWS else "sequence, camera and split"
    return Table("inventory", f"images by {what}", columns, rows)


def _counts(cameras: Sequence[CameraInventory]) -> list[float]:
    return [
        sum(camera.annotated for camera in cameras),
        sum(camera.wanted for camera in cameras),
        sum(camera.ready for camera in cameras),
        sum(len(camera.missing) for camera in cameras),
        sum(len(camera.damaged) + len(camera.refused) for camera in cameras),
        sum(camera.unannotated for camera in cameras),
        sum(camera.bytes for camera in cameras) / 1e6,
    ]


def _missing(cameras: Sequence[CameraInventory], names: int) -> Iterator[str]:
    for camera in cameras:
        where = f"{camera.sequence} {camera.camera} {camera.split}"
        if camera.missing:
            n = len(camera.missing)
            count = f"all {n} images" if n == camera.wanted else f"{n} of {camera.wanted} images"
            yield f"{count} of {where}{_some(camera.missing, names)}"
        if lost := camera.lost_annotations:
            yield f"{len(lost)} annotations of {where}, whose images are there{_some(lost, names)}"


def _damaged(camera: CameraInventory, names: int) -> Iterator[str]:
    if camera.blocked:
        yield f"all of {camera.sequence} {camera.camera}: {camera.blocked}"
    problems = [*camera.damaged, *camera.refused]
    yield from (f"{problem.path}: {problem.what}" for problem in problems[:names])
    if (more := len(problems) - names) > 0 and names:
        where = f"{camera.sequence} {camera.camera} {camera.split}"
        yield f"and {more} more of {where} (--names {len(problems)} names them)"


def _some(paths: Sequence[str], names: int) -> str:
    some = ", ".join(paths[:names]) + (", ..." if len(paths) > names else "")
    return f": {some}" if names else ""


def _grouped(problems: Sequence[Problem]) -> Iterator[str]:
    """One line for all paths with the same problem."""
    by_reason: dict[str, list[str]] = {}
    for problem in problems:
        by_reason.setdefault(problem.what, []).append(problem.path)
    yield from (f"{', '.join(paths)}: {what}" for what, paths in by_reason.items())


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _size(count: float) -> str:
    """Bytes in the unit that leaves 1 to 3 digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

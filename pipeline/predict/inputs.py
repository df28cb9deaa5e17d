"""Which files `das predict` takes: photos and videos, folders of them, patterns, and names on standard input."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.predict.own_files import is_own
from pipeline.predict.videos import is_video

STANDARD_INPUT = "-"
"""Word for names on standard input, one a line."""
_PHOTO_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .png .webp .tif .tiff .bmp .gif .jp2 .avif .heic .heif .pbm .pgm .ppm .pnm".split()
)
"""Endings that are taken out of a folder; HEIC is refused when it is opened, by name, and so not overlooked."""
_OWN_ENDINGS = ("_overlay", "_top", "_inside", "residuals")
_NAMED = 4  # of what is left out


@dataclass(frozen=True)
class FoundFiles:
    """What the words of a command line stand for.

    Attributes:
        files: photos and videos, each once, in the order of the words; those of a folder or a pattern sorted.
        left_out: a line for each folder or pattern of which not all was taken.
    """

    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def find_files(words: Sequence[str], names: Iterable[str] = ()) -> FoundFiles:
    """The photos and videos that words stand for.

    Args:
        words: files (taken whatever they are called), folders (photos and videos directly in them), patterns such as
            "day*/*.jpg", or ``STANDARD_INPUT``.
        names: lines of standard input, files or folders; read if a word asks for them.

    Raises:
        ValueError: a word that is no file and fits none, a folder without photos and videos, or an address of a stream.
    """
    files: list[str] = []
    left_out: list[str] = []
    for word in words:
        if word == STANDARD_INPUT:
            lines = [line.rstrip("\r\n") for line in names]
            found = [_expand(line, left_out, pattern=False) for line in lines if line]
            files += [file for group in found for file in group]
        else:
            files += _expand(word, left_out)
    return FoundFiles(tuple(dict.fromkeys(files)), tuple(left_out))


def _expand(word: str, left_out: list[str], pattern: bool = True) -> list[str]:
    path = Path(word)
    if path.is_dir():
        return _media(word, sorted(path.iterdir()), left_out)
    if path.exists():
        return [word]
    if pattern and glob.has_magic(word):
        if not (fitting := sorted(glob.glob(word, recursive=True))):
            raise ValueError(f"{word}: no file fits this pattern")
        return _media(word, list(map(Path, fitting)), left_out)
    if "://" in word:
        raise ValueError(f"{word}: a stream is no file, wanted --source {word}")
    raise ValueError(f"{word}: no such file")


def _media(word: str, entries: Sequence[Path], left_out: list[str]) -> list[str]:
    """The photos and videos among the entries by their endings; what is left out is added as a line."""
    taken: list[Path] = []
    own, others = 0, []
    for entry in entries:
        if entry.is_dir() or entry.name.startswith(".") or not _may_be_media(entry):
            others.append(entry.name + ("/" if entry.is_dir() else ""))
        elif entry.stem.endswith(_OWN_ENDINGS) and is_own(entry):
            own += 1
        else:
            taken.append(entry)
    if not taken:
        raise ValueError(f"{word}: no photo or video there, wanted a name such as photo.jpg or walk.mp4")
    parts = []
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        parts.append(", ".join(others[:_NAMED]) + more)
    if own:
        parts.append(f"{own} results of das predict")
    if parts:
        left_out.append(f"{word}: {len(taken)} files taken; left out: {'; '.join(parts)}")
    return list(map(str, taken))


def _may_be_media(path: Path) -> bool:
    return is_video(path) or path.suffix.lower() in _PHOTO_ENDINGS

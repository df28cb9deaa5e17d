"""The frames of one chunk, read so that a fault of one frame does not end the reading of the others.

A frame that cannot be used goes to quarantine with its reason, and reading goes on at the next frame. Only when two
frames in a row are refused with the same message is the fault not that of a single frame (a camera that the
calibration lacks, for example): the error is raised and ends the task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from pipeline.data.prepare.shrink_images import shrink
from pipeline.data.record import Record, key_of
from pipeline.data.sources.base import IMAGE_DAMAGED, Chunk, DroppedFrame
from pipeline.data.validate_record import RowError, validate
from pipeline.infra.regular_files import unread

ANNOTATION_UNREADABLE = "annotation unreadable"

# What a source's ``records`` raises for an entry of another form than the owners', or for a file that cannot be read,
# where the source has no message for it. Errors of writing are not caught: writing happens outside of that generator.
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, OSError)

RecordReader = Callable[[Chunk], Iterator[Record | DroppedFrame]]
"""``records`` of a source."""


def read_frames(chunk: Chunk, read_records: RecordReader) -> Iterator[Record | DroppedFrame]:
    """Reads a chunk: one record or drop for every frame. An annotation that cannot be read is a drop too.

    An error ends a source's generator, so reading starts again at the frame after the one that failed.

    Raises:
        ValueError: two frames in a row are refused with the same message.
    """
    frames, at = chunk.frames, 0
    last_message: str | None = None
    while at < len(frames):
        try:
            for frame in read_records(replace(chunk, frames=frames[at:])):
                assert frame.key == _key(chunk, frames[at]), (frame.key, chunk.name, frames[at])
                yield frame
                at, last_message = at + 1, None
            assert at == len(frames), (chunk.name, at)
        except _MALFORMED as error:
            message = _message(error)
            if message == last_message:
                names_place = isinstance(error, ValueError | OSError)
                raise ValueError(message if names_place else f"{chunk.name}: {message}") from error
            last_message = message
            file, fault = _split_message(message, chunk.root)
            yield DroppedFrame(_key(chunk, frames[at]), ANNOTATION_UNREADABLE, file, fault)
            at += 1


def _message(error: Exception) -> str:
    """An error of reading as text; the type is named where the error is not one of a source's own."""
    if isinstance(error, OSError):
        return unread(error)
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _split_message(message: str, root: str) -> tuple[str, str]:
    """Splits ``ROOT/FILE: FAULT`` into the file relative to ``root`` and the fault; the file is "" where none is named.

    A message without a file keeps its text, with paths relative to ``root``.
    """
    names_file = message.startswith(f"{root}/")
    message = message.replace(f"{root}/", "")
    file, _, fault = message.partition(": ")
    return (file, fault) if names_file and fault else ("", message)


def validated_frames(
    frames: Iterable[Record | DroppedFrame], reencode_long_side: int | None
) -> Iterator[Record | DroppedFrame]:
    """Shrinks the images of records, if asked for, and validates the records; those that fail become drops.

    Args:
        frames: records and drops.
        reencode_long_side: images larger than this many pixels are made smaller; None keeps all.
    """
    for frame in frames:
        if isinstance(frame, Record):
            try:
                if reencode_long_side is not None:
                    frame = shrink(frame, reencode_long_side)
            except ValueError as error:
                yield DroppedFrame(frame.key, IMAGE_DAMAGED, detail=str(error).removeprefix(f"{frame.key}: "))
                continue
            try:
                validate(frame, with_image=False)  # the source has read the image's size and hash from its bytes
            except RowError as error:
                yield DroppedFrame(frame.key, f"{error.column} refused", detail=error.fault)
                continue
        yield frame


def _key(chunk: Chunk, frame: int) -> str:
    return key_of(chunk.source, chunk.sequence, chunk.camera, frame)

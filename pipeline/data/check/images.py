"""Checks of image files: the headers of all or many of them, and the pixels of a few or all.

A header check reads the beginning and the end of a file. It finds empty and truncated files, files of other formats,
and images of another size than their annotation says. Only decoding finds damage in between.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pipeline.data.check.base import ImageFile, Inventory, Problem, evenly_spaced
from pipeline.data.encoded_image import image_size, orientation
from pipeline.infra.image_headers import MAX_IMAGE_BYTES
from pipeline.infra.regular_files import read_file, regular_file

# Threads that read files: on a network disk most of the time is latency.
_READERS = 8
# Bytes at the beginning of a file, where its header is, and at its end, where the end marker is.
_HEAD, _TAIL = 1 << 16, 1 << 12


def check_images(root: Path, inventory: Inventory, headers: int | None, decoded: int | None) -> tuple[int, int]:
    """Adds damaged images to ``damaged`` of each camera; shows a progress bar.

    Args:
        root: folder of the data set.
        inventory: its inventory, which is changed.
        headers: how many headers are read in all, evenly spaced; None reads all.
        decoded: how many images of each camera are decoded, evenly spaced; None decodes all.

    Returns:
        how many headers were read, and how many images were decoded.
    """
    total = sum(len(camera.images) for camera in inventory.cameras)
    share = 1.0 if headers is None else min(1.0, headers / max(1, total))
    todo: list[tuple[int, ImageFile, bool]] = []
    for at, camera in enumerate(inventory.cameras):
        n = len(camera.images)
        full = set(evenly_spaced(n, n if decoded is None else decoded))
        chosen = full | set(evenly_spaced(n, math.ceil(n * share)))
        # Empty files are known from the listing: all of them are reported.
        chosen |= {i for i, image in enumerate(camera.images) if image.bytes == 0}
        todo += ((at, camera.images[i], i in full) for i in sorted(chosen))
    turned: list[str] = []
    bar = tqdm(total=len(todo), unit=" images", desc="check", delay=1)
    with bar, ThreadPoolExecutor(_READERS) as pool:
        reasons = pool.map(lambda job: _fault(root, job[1], job[2], turned), todo)
        for (at, image, _), reason in zip(todo, reasons, strict=True):
            bar.update()
            if reason:
                inventory.cameras[at].damaged.append(Problem(image.path, reason))
    inventory.notes += _notes_on_turned([image for _, image, _ in todo if image.path in set(turned)])
    return len(todo), sum(full for _, _, full in todo)


def _notes_on_turned(images: list[ImageFile]) -> list[str]:
    """One note on the images with an orientation tag that is applied, and one on those whose tag is not."""
    notes = []
    for applied in (True, False):
        if some := sorted(image.path for image in images if image.displayed == applied):
            what = (
                "turned by it, because annotations refer to the photo as it is displayed"
                if applied
                else "not turned, because annotations refer to the stored pixels"
            )
            more = f" and {len(some) - 1} more" if len(some) > 1 else ""
            notes.append(f"{some[0]}{more} with an EXIF orientation tag: {what}")
    return notes


def _fault(root: Path, image: ImageFile, decode: bool, turned: list[str]) -> str:
    """What is wrong with an image file, or ""; the path of one with an orientation tag is added to ``turned``."""
    try:
        size, tag = (_decoded_size if decode else _header_size)(root / image.path, root)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError as error:
        return str(error)
    if tag != 1:
        turned.append(image.path)
    sizes = [size, size[::-1]] if image.displayed and tag >= 5 else [size]
    if image.size is not None and image.size not in sizes:
        return f"{size[1]}x{size[0]} pixels, its annotation says {image.size[1]}x{image.size[0]}"
    return ""


def _header_size(path: Path, root: Path) -> tuple[tuple[int, int], int]:
    """(height, width) and orientation of an image file from its beginning and end.

    Raises:
        OSError: as ``regular_file``.
        ValueError: it is not a complete image.
    """
    with regular_file(path, MAX_IMAGE_BYTES, root).open("rb") as file:
        head = file.read(_HEAD)
        rest = path.stat().st_size - len(head)
        if rest <= 0:
            return image_size(head), orientation(head)
        file.seek(-min(rest, _TAIL), 2)
        ends = head + file.read()
    try:
        return image_size(ends), orientation(head)
    except ValueError:
        # Large previews and colour profiles may precede the header.
        return image_size(read_file(path, MAX_IMAGE_BYTES)), orientation(head)


def _decoded_size(path: Path, root: Path) -> tuple[tuple[int, int], int]:
    """(height, width) of the decoded pixels, as stored, and orientation; ValueError if the file cannot be decoded."""
    data = read_file(path, MAX_IMAGE_BYTES, root)
    image_size(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ValueError(f"cannot be decoded ({error})") from error
    if image is None:
        raise ValueError("cannot be decoded")
    return (int(image.shape[0]), int(image.shape[1])), orientation(data)

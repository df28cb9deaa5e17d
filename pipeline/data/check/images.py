"""Are the image files whole? Headers of all or many of them, and the pixels of a few or all.

A header check reads the beginning and the end of a file: it sees empty, cut and foreign files, and images of
another size than their annotation says. Only decoding sees damage in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pipeline.data.check.base import Inventory, Picture, Trouble
from pipeline.data.encoded_image import image_size

# Files are read side by side: on a network disk one waits for the other end most of the time.
_READERS = 8
# Beginning and end of a large file that hold its header, and the mark of its end.
_HEAD, _TAIL = 1 << 16, 1 << 12


def check_images(root: Path, inventory: Inventory, headers: int | None, decoded: int | None) -> tuple[int, int]:
    """Adds damaged images to the views' ``damaged``; shows its progress.

    Args:
        root: folder that the pictures' paths start from.
        inventory: what was found; its views are completed.
        headers: how many headers are read in all, evenly spread; None reads all.
        decoded: how many images of each view are decoded, evenly spread; None decodes all.

    Returns:
        how many headers were read, and how many images were decoded.
    """
    total = sum(len(view.pictures) for view in inventory.views)
    share = 1.0 if headers is None else min(1.0, headers / max(1, total))
    todo: list[tuple[int, Picture, bool]] = []
    for at, view in enumerate(inventory.views):
        n = len(view.pictures)
        full = set(_even(n, n if decoded is None else decoded))
        look = full | set(_even(n, math.ceil(n * share)))
        # Empty files show in the listing already.
        look |= {i for i, picture in enumerate(view.pictures) if picture.bytes == 0}
        todo += ((at, view.pictures[i], i in full) for i in sorted(look))
    bar = tqdm(total=len(todo), unit=" images", desc="check", delay=1)
    with bar, ThreadPoolExecutor(_READERS) as pool:
        reasons = pool.map(lambda job: _fault(root, job[1], job[2]), todo)
        for (at, picture, _), reason in zip(todo, reasons, strict=True):
            bar.update()
            if reason:
                inventory.views[at].damaged.append(Trouble(picture.path, reason))
    return len(todo), sum(full for _, _, full in todo)


def _even(n: int, count: int) -> Iterator[int]:
    """At most ``count`` of 0 to n - 1, evenly spread, both ends among them."""
    return (int(i) for i in np.linspace(0, n - 1, min(n, count)).round())


def _fault(root: Path, picture: Picture, decode: bool) -> str:
    """What is wrong with an image file; "" for nothing."""
    try:
        size = _decoded_size(root / picture.path) if decode else _header_size(root / picture.path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError as error:
        return str(error)
    if picture.size is not None and size != picture.size:
        return f"{size[1]}x{size[0]} pixels, its annotation says {picture.size[1]}x{picture.size[0]}"
    return ""


def _header_size(path: Path) -> tuple[int, int]:
    """(height, width) of a whole image file from its two ends; ValueError says why it is not one."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        rest = path.stat().st_size - len(head)
        if rest <= 0:
            return image_size(head)
        file.seek(-min(rest, _TAIL), 2)
        ends = head + file.read()
    try:
        return image_size(ends)
    except ValueError:
        # Large previews and colour profiles come before the header.
        return image_size(path.read_bytes())


def _decoded_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    image_size(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ValueError(f"cannot be decoded ({error})") from error
    if image is None:
        raise ValueError("cannot be decoded")
    return int(image.shape[0]), int(image.shape[1])

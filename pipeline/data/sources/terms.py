"""The terms under which data may be used: the owners', and those in a file ``terms.txt`` of the folder."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.data.sources.base import Source
from pipeline.infra.redaction import redacted
from pipeline.infra.regular_files import read_file, unread
from pipeline.studio.config import RENDERED_TERMS

TERMS_FILE = "terms.txt"
"""File of the data's own terms, relative to the root."""
MAX_TERMS_BYTES = 1 << 16
"""Largest terms.txt that is read, bytes: a sentence or two."""


def terms_of(source: Source, root: str | Path) -> str:
    """The source's terms, followed by the content of ``terms.txt`` in its folder, if there is one.

    The studio's own text in that file replaces the source's terms: people rendered in the layout of a recorded data
    set do not belong to that data set's owners.

    Raises:
        ValueError: the file is empty, no text or unreadable.
    """
    path = Path(root) / TERMS_FILE
    if not os.path.lexists(path):
        return source.TERMS
    try:
        words = read_file(path, MAX_TERMS_BYTES, root).decode().split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: found bytes that are not UTF-8, wanted a sentence or two") from error
    except OSError as error:
        raise ValueError(f"{unread(error)}, wanted the terms of these data in a sentence or two") from error
    if not words:
        raise ValueError(f"{path}: found nothing, wanted the terms of these data in a sentence or two")
    text = redacted(" ".join(words))
    return text if text == RENDERED_TERMS else f"{source.TERMS}: {text}"

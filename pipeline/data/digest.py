"""Digests: which images a data set holds, small enough for every checkpoint that was trained on it.

A digest holds two hashes of 56 bits of every image, of its key and of its bytes, sorted. Of an image that is not in the
data set, ``found_in`` says wrongly that it is, with a chance of four times the number of images in the digest divided
by 2**56: 6e-10 with 10 million images, so 1 in 170,000 for an evaluation of 10,000 images. The other way round it never
errs. Sorted numbers are stored as differences, in about 9 bytes an image where there are 10 million, 10 where there are
100,000; a Bloom filter of the same size would err a thousand times as often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.infra.columns import open_parquet
from pipeline.infra.files import staged

_HEX_DIGITS = 14  # 56 bits
# Numbers that are in memory together when a digest is searched.
_ROWS_PER_GROUP = 1 << 20
_COLUMN = "hash"


def hashes(keys: Iterable[str], images: Iterable[str]) -> np.ndarray:
    """The numbers of n images as (n, 2) int64: of the key, and of the image.

    Args:
        keys: of the images.
        images: SHA-256 of their bytes, hex.
    """
    of_keys = (int(hashlib.sha256(key.encode()).hexdigest()[:_HEX_DIGITS], 16) for key in keys)
    of_images = (int(image[:_HEX_DIGITS], 16) for image in images)
    both = (number for pair in zip(of_keys, of_images, strict=True) for number in pair)
    return np.fromiter(both, np.int64).reshape(-1, 2)


def write_digest(uri: str | Path, parts: Iterable[np.ndarray]) -> None:
    """Writes a digest, whole or not at all; holds 32 bytes an image in memory.

    Args:
        uri: the file.
        parts: results of ``hashes``, of any number of images each.
    """
    numbers = np.concatenate([np.empty(0, np.int64), *(part.ravel() for part in parts)])
    numbers.sort()
    schema = pa.schema([(_COLUMN, pa.int64())])
    options = {"use_dictionary": False, "compression": "NONE", "column_encoding": {_COLUMN: "DELTA_BINARY_PACKED"}}
    with staged(uri) as (filesystem, path), filesystem.open_output_stream(path) as stream:
        with pq.ParquetWriter(stream, schema, **options) as writer:
            for start in range(0, len(numbers), _ROWS_PER_GROUP):
                writer.write_table(pa.table([numbers[start : start + _ROWS_PER_GROUP]], schema=schema))


def write_digest_of_index(uri: str | Path, index: str, split: str) -> None:
    """Writes the digest of one split from the index of a prepared folder, whose texts are read in parts.

    Raises:
        ValueError: no such index.
    """
    write_digest(uri, (hashes(keys, images) for keys, images in _of_split(index, split, "key", "image_sha256")))


def keys_of_split(index: str, split: str) -> list[str]:
    """Keys of one split from the index of a prepared folder; other splits are read in parts.

    Raises:
        ValueError: no such index.
    """
    return [key for (keys,) in _of_split(index, split, "key") for key in keys]


def _of_split(index: str, split: str, *columns: str) -> Iterable[tuple[list[str], ...]]:
    """Columns of the rows of one split, row group by row group."""
    with open_parquet(index) as file:
        for batch in file.iter_batches(batch_size=8192, columns=["split", *columns]):
            rows = batch.filter(pc.equal(batch.column("split"), split))
            yield tuple(rows.column(name).to_pylist() for name in columns)


def found_in(uri: str | Path, wanted: np.ndarray) -> np.ndarray:
    """Which of n images, given by their ``hashes`` (n, 2), are in a digest by key or bytes: (n,) bool.

    Raises:
        ValueError: no such digest.
    """
    found = np.zeros(wanted.shape, bool)
    with open_parquet(uri) as file:
        for group in range(file.num_row_groups):
            numbers = file.read_row_group(group, columns=[_COLUMN]).column(0).to_numpy()
            at = np.searchsorted(numbers, wanted).clip(max=len(numbers) - 1)
            found |= numbers[at] == wanted
    return np.asarray(found.any(axis=1))

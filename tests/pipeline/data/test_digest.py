"""Digests find every image that they hold, by key or by bytes, and no other; they are small."""

import hashlib

import numpy as np
import pytest

from pipeline.data.digest import found_in, hashes, write_digest, write_digest_of_index
from pipeline.infra.columns import write_texts


def images(first: int, n: int):
    """Keys and image hashes of n images."""
    keys = [f"panoptic/160422_haggling1/00_16/{i:08d}" for i in range(first, first + n)]
    return keys, [hashlib.sha256(f"image {key}".encode()).hexdigest() for key in keys]


def test_images_are_found_by_key_or_by_bytes_and_no_others(tmp_path):
    keys, bytes_ = images(0, 3000)
    write_digest(
        tmp_path / "d", [hashes(keys[:2000], bytes_[:2000]), hashes([], []), hashes(keys[2000:], bytes_[2000:])]
    )
    others = images(3000, 3000)
    assert found_in(tmp_path / "d", hashes(keys, bytes_)).all()
    assert (
        found_in(tmp_path / "d", hashes(keys, others[1])).all()
        and found_in(tmp_path / "d", hashes(others[0], bytes_)).all()
    )
    assert not found_in(tmp_path / "d", hashes(*others)).any()
    mixed = [keys[5], others[0][0]], [others[1][5], others[1][0]]
    assert found_in(tmp_path / "d", hashes(*mixed)).tolist() == [True, False]


def test_an_empty_digest_holds_nothing(tmp_path):
    write_digest(tmp_path / "d", [])
    assert not found_in(tmp_path / "d", hashes(*images(0, 5))).any()
    assert found_in(tmp_path / "d", hashes([], [])).tolist() == []


def test_a_digest_takes_at_most_11_bytes_an_image_and_is_searched_over_row_groups(tmp_path):
    rng = np.random.default_rng(0)
    held = rng.integers(0, 1 << 56, (600_000, 2))
    write_digest(tmp_path / "d", [held])
    assert (tmp_path / "d").stat().st_size < 11 * len(held)
    assert found_in(tmp_path / "d", held).all()
    assert not found_in(tmp_path / "d", rng.integers(0, 1 << 56, (100_000, 2))).any()


def test_the_digest_of_an_index_holds_one_split(tmp_path):
    keys, bytes_ = images(0, 20_000)
    splits = ["train" if i % 3 else "val" for i in range(len(keys))]
    write_texts(tmp_path / "index", ("split", "key", "image_sha256"), zip(splits, keys, bytes_, strict=True))
    write_digest_of_index(tmp_path / "d", str(tmp_path / "index"), "train")
    assert found_in(tmp_path / "d", hashes(keys, bytes_)).tolist() == [split == "train" for split in splits]
    with pytest.raises(ValueError, match="nowhere: no such file"):
        write_digest_of_index(tmp_path / "d", str(tmp_path / "nowhere"), "train")

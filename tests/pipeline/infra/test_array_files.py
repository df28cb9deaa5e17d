"""Arrays in .npz and .mat files: equal to NumPy's and SciPy's reading, and bounded where a file states too much."""

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from pipeline.infra.array_files import read_mat, read_npz, unpacked_mat

HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)
CELLS, NUMBERS = 1, 6


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(name, shape, data, kind=NUMBERS):
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, head + element(1, name) + data)


def packed(data):
    data = zlib.compress(data, 9)
    return struct.pack("<II", 15, len(data)) + data


def header(shape, kind="<f8"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_mat_file_is_read_as_scipy_reads_it(tmp_path, compressed):
    cells = np.empty((3, 2), object)
    for i in range(6):
        cells.flat[i] = {"annot2": np.arange(34.0).reshape(2, 17) + i, "isValidFrame": np.uint8(i), "text": "abc"}
    values = {"cells": cells, "x": np.random.default_rng(0).random((5, 7)), "names": np.array(["ab", "cde"], object),
              "small": np.array([1, 2], np.int8), "empty": np.zeros((0, 3)), "flag": np.array([True])}  # fmt: skip
    scipy.io.savemat(tmp_path / "x.mat", values, do_compression=compressed)
    ours, theirs = read_mat(tmp_path / "x.mat", "a file"), scipy.io.loadmat(tmp_path / "x.mat")
    assert sorted(ours) == sorted(values) and all(repr(ours[name]) == repr(theirs[name]) for name in values)
    assert list(read_mat(tmp_path / "x.mat", "a file", ["x"])) == ["x"]
    scipy.io.savemat(tmp_path / "old.mat", {"x": values["x"]}, format="4")
    assert (read_mat(tmp_path / "old.mat", "a file")["x"] == values["x"]).all()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (matrix(b"x", (1, 1 << 29), struct.pack("<II", 9, 0xFFFFFFF8)), "of which"),
        (matrix(b"x", (1, 2**31 - 1), b"", CELLS), "elements stated"),
        (packed(matrix(b"x", (1, 2**31 - 1), b"", CELLS)), "elements stated"),
        (packed(matrix(b"x", (1, 1), matrix(b"", (1, 2**31 - 1), b"", CELLS), CELLS)), "elements stated"),
        (packed(struct.pack("<II", 14, 100) + bytes(1 << 20)), "has more"),
        (packed(struct.pack("<II", 14, 1 << 20) + bytes(100)), "has fewer"),
        (packed(struct.pack("<II", 14, 0xFFFFFFF8) + bytes(100)), "at most"),
        (b"\x0f\0\0\0\xff\xff\xff\xff" + bytes(8), "of which 8 are there"),
    ],
)
def test_mat_files_that_state_more_than_they_hold_are_refused(tmp_path, content, found):
    (tmp_path / "x.mat").write_bytes(HEAD + content)
    with pytest.raises(ValueError, match=rf"x\.mat: wanted numbers \(ValueError: .*{found}"):
        read_mat(tmp_path / "x.mat", "numbers", most=1 << 30)


def test_cells_in_cells_end(tmp_path):
    deep = matrix(b"", (0, 0), b"", CELLS)
    for _ in range(2000):
        deep = matrix(b"", (1, 1), deep, CELLS)
    (tmp_path / "deep.mat").write_bytes(HEAD + deep)
    with pytest.raises(ValueError, match="deep"):
        read_mat(tmp_path / "deep.mat", "numbers")


def test_variables_together_are_bounded():
    part = packed(matrix(b"x", (1, 1 << 17), element(9, bytes(1 << 20))))
    assert len(unpacked_mat(HEAD + part, 2 << 20)) > 1 << 20
    with pytest.raises(ValueError, match="at most|more than"):
        unpacked_mat(HEAD + part * 3, 2 << 20)


def test_npz_files_are_bounded_and_hold_no_pickles(tmp_path):
    np.savez(tmp_path / "good.npz", a=np.arange(3), b=np.eye(2))
    assert read_npz(tmp_path / "good.npz", "arrays")["b"][1, 1] == 1
    assert list(read_npz(tmp_path / "good.npz", "arrays", ["a"])) == ["a"]
    with pytest.raises(ValueError, match=r"good\.npz: wanted arrays .*c is not a file"):
        read_npz(tmp_path / "good.npz", "arrays", ["c"])
    np.savez(tmp_path / "pickle.npz", a=np.array([{}], object))
    with zipfile.ZipFile(tmp_path / "large.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header((1 << 22,)) + bytes(8 << 22))
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as archive:
        archive.writestr("a.npy", header((10**13,)) + bytes(100))
    for name, found in (("pickle", "allow_pickle=False"), ("large", "at most 1048576"), ("claims", "")):
        with pytest.raises(ValueError, match=rf"{name}\.npz: wanted arrays \(.*{found}"):
            read_npz(tmp_path / f"{name}.npz", "arrays", most=1 << 20)


def test_two_gigabytes_in_two_megabytes_take_no_memory(tmp_path):
    pack = zlib.compressobj(9)
    size = 2000 << 20
    head = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<2i", 1, size // 8)) + element(1, b"x")
    head = struct.pack("<II", 14, 100) + head + struct.pack("<II", 9, size)  # it says 100 bytes
    data = pack.compress(head) + b"".join(pack.compress(bytes(1 << 20)) for _ in range(64)) + pack.flush()
    (tmp_path / "x.mat").write_bytes(HEAD + struct.pack("<II", 15, len(data)) + data)
    code = """
import resource, sys
from pathlib import Path
import numpy, scipy.io
from pipeline.infra.array_files import read_mat
room = sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize:")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (room + (32 << 20),) * 2)
try:
    read_mat(Path(sys.argv[1]), "numbers")
except ValueError as error:
    assert "has more" in str(error), error
else:
    raise AssertionError("it was read")
"""
    project = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.mat")], cwd=project, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()

"""Files of weights from elsewhere: what is read, and what is refused, in one line and before it can do anything."""

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from pipeline.weights.foreign_file import MAX_WEIGHTS_BYTES, read_weights

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "bn.num_batches_tracked": torch.tensor(7)}


class Harmful:
    """An object whose unpickling would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "meta": {"epoch": 3, "CLASSES": ("person",)}, "optimizer": {"state": {}}},
        {"model": STATE, "epoch": 3},
        {"state_dict": {f"module.{name}": value for name, value in STATE.items()}},
    ],
    ids=["bare", "mmcv", "timm", "parallel"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_found_in_every_usual_wrapper(tmp_path, content, zipped):
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "w.pth")
    assert found.keys() == STATE.keys() and all(torch.equal(found[name], value) for name, value in STATE.items())


def test_safetensors_are_read(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors")
    assert found.keys() == STATE.keys() and all(torch.equal(found[name], value) for name, value in STATE.items())


def write_large(path):
    path.write_bytes(b"PK")
    os.truncate(path, MAX_WEIGHTS_BYTES + 1)


FILES = {
    "missing": (lambda path: None, "No such file or directory"),
    "folder": (lambda path: path.mkdir(), "Is a directory"),
    "pipe": (lambda path: os.mkfifo(path), "a pipe or device"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a pipe or device"),
    "link to nothing": (lambda path: path.symlink_to("nothing"), "No such file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty, wanted a file of weights"),
    "too large": (write_large, "bytes, wanted at most"),
    "text": (lambda path: path.write_text("<html>"), "torch can read: Unsupported operand 60"),
    "another zip": (lambda path: zipfile.ZipFile(path, "w").close(), "no file of weights that torch can read"),
    "list": (lambda path: torch.save([1], path), "holds a list, wanted tensors by name"),
    "no tensors": (lambda path: torch.save({"epoch": 3}, path), "holds epoch, wanted tensors by name"),
    "nothing": (lambda path: torch.save({"state_dict": {}}, path), "holds no tensors"),
    "not only tensors": (lambda path: torch.save({**STATE, "lr": 0.1}, path), "lr is no plain tensor"),
    "sparse": (lambda path: torch.save({"a": torch.eye(2).to_sparse()}, path), "a is no plain tensor"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Harmful("harm"), 2)), "calling posix.mkdir"),
    "object": (lambda path: torch.save({"state_dict": STATE, "x": Harmful("harm")}, path), "calling posix.mkdir"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_file_of_weights_is_refused_in_one_line_that_names_it(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    write, reason = FILES[kind]
    write(path)
    with pytest.raises(ValueError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert str(path) in message and reason in message and "\n" not in message, message
    assert not (tmp_path / "harm").exists()


def test_a_file_that_unpacks_to_more_than_it_may_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.weights.foreign_file.MAX_WEIGHTS_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data/0", bytes((1 << 20) + 1))
    assert (tmp_path / "w.pth").stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"w.pth: its parts are \d+ bytes, wanted at most"):
        read_weights(tmp_path / "w.pth")


def test_safetensors_without_a_header_are_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="w.safetensors is no safetensors file"):
        read_weights(tmp_path / "w.safetensors")

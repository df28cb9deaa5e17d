"""Only regular files of a bounded size are opened for JSON."""

import os
from pathlib import Path

import pytest

from pipeline.data.sources.json_files import load_json


def test_a_pipe_or_device_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(ValueError, match=rf"^{path}: a pipe or device, wanted a regular file$"):
            load_json(path)


def test_a_file_over_the_limit_is_refused_unread(tmp_path):
    path = tmp_path / "large.json"
    path.touch()
    os.truncate(path, (1 << 32) + 1)  # sparse
    with pytest.raises(ValueError, match=rf"^{path}: {(1 << 32) + 1} bytes, wanted at most {1 << 32}$"):
        load_json(path)

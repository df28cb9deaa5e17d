"""Backbones from files of torchvision, timm and MMPose: every tensor, or a refusal that lists what differs."""

import hashlib
import http.server
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from das.backbone import BACKBONES
from das.config import DASConfig, release_panoptic
from pipeline.weights.backbones import read_backbone
from tests.pipeline.weights.weight_files import mmpose_file, weights_of

RESNET = DASConfig(backbone="resnet18", backbone_width=8)
MSPN = replace(release_panoptic(), backbone_width=8)


def classifier():
    return {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}


def loads(path, config, wanted):
    """What is printed of a file whose tensors all end up in the backbone."""
    backbone = BACKBONES[config.backbone](config.backbone_width, config.mspn_stages)
    read = read_backbone(str(path), config)
    read.load_into(backbone)
    found = backbone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    return read.text


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
def test_a_resnet_of_torchvision_or_timm_loads_and_its_classifier_is_left(tmp_path, suffix):
    state, path = weights_of(RESNET), tmp_path / f"resnet18.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)({**state, **classifier()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert loads(path, RESNET, state) == (
        f"backbone resnet18 (width 8) starts from {path} (sha256 {digest}): "
        f"{len(state)} tensors, NAME there is backbone.NAME here; 2 are left: fc.*"
    )


def test_a_file_without_counts_of_batches_loads(tmp_path):
    state = {name: value for name, value in weights_of(RESNET).items() if not name.endswith("num_batches_tracked")}
    torch.save({**state, **classifier()}, tmp_path / "old.pth")
    loads(tmp_path / "old.pth", RESNET, state)


def test_an_mspn_of_mmpose_loads_and_its_heatmap_head_is_left(tmp_path):
    state = weights_of(MSPN)
    text = loads(mmpose_file(tmp_path / "2xmspn50.pth", state), MSPN, state)
    assert "backbone.NAME there is backbone.NAME here; 1 are left: keypoint_head.*" in text
    assert text.startswith("backbone mspn (width 8, 2 stages) starts from ")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            replace(MSPN, mspn_stages=3),
            "does not fit backbone mspn (width 8, 3 stages): 768 tensors fit, 340 missing (",
        ),
        (
            replace(MSPN, backbone_width=16),
            "(width 16, 2 stages): 128 tensors fit, 640 of another shape (top.top.0.conv",
        ),
        (
            RESNET,
            "resnet18 (width 8): 0 tensors fit, 100 missing (conv1.weight, bn1.weight, bn1.bias, ...); 768 unused",
        ),
    ],
    ids=["stages", "width", "resnet"],
)
def test_a_backbone_that_fits_in_parts_is_refused_with_what_fits_and_what_does_not(tmp_path, config, said):
    path = mmpose_file(tmp_path / "2xmspn50.pth", weights_of(MSPN))
    with pytest.raises(ValueError) as caught:
        read_backbone(str(path), config)
    assert said in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


def test_a_whole_model_of_the_release_is_sent_to_its_import(tmp_path):
    torch.save({"state_dict": {"bbox_head.conv_cls.bias": torch.zeros(1)}}, tmp_path / "release.pth")
    with pytest.raises(ValueError, match="release.pth is a whole model of the official release: import it with"):
        read_backbone(str(tmp_path / "release.pth"), MSPN)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    torch.save(weights_of(RESNET) | {"bn1.bias": torch.full((8,), torch.nan)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="bn1.bias holds NaN or infinity"):
        read_backbone(str(tmp_path / "w.pth"), RESNET)


def test_a_url_is_downloaded_once_and_its_hash_is_compared_with_its_name(tmp_path, monkeypatch):
    state = weights_of(RESNET)
    torch.save(state, tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()[:8]
    good, bad = (f"resnet18-{name}.pth" for name in (digest, "00000000"))
    for name in (good, bad):
        (tmp_path / name).write_bytes((tmp_path / "w.pth").read_bytes())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        loads(f"{url}/{good}", RESNET, state)
        with pytest.raises(ValueError, match="invalid hash value"):
            read_backbone(f"{url}/{bad}", RESNET)
        server.shutdown()
    loads(f"{url}/{good}", RESNET, state)

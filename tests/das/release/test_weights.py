"""The release's state dict: every tensor has its place, and weights survive the way there and back."""

import json
from dataclasses import replace

import pytest
import torch

from das.config import release_panoptic
from das.criterion import Criterion
from das.model import DAS
from das.release.weights import flows_of, load_official, official_key, read_official, to_official
from tests.das.model_cases import RELEASES, everything, randomize, release_flows


@pytest.mark.golden
@pytest.mark.parametrize("name", RELEASES)
def test_every_tensor_of_the_release_has_its_place(golden, name):
    wanted = json.loads((golden / "model" / f"keys_exp_{name}.json").read_text())
    with torch.device("meta"):
        model, flows = DAS(RELEASES[name]()), release_flows()
    state = to_official(model, flows)
    assert {k: [*v.shape] for k, v in state.items()} == {k: v["shape"] for k, v in wanted["tensors"].items()}
    assert {k: str(v.dtype) for k, v in state.items()} == {
        k: f"torch.{v['dtype']}" for k, v in wanted["tensors"].items()
    }
    parameters = [p.numel() for m in (model, *flows.values()) for p in m.parameters()]
    assert sum(parameters) == wanted["num_parameters"]


@pytest.mark.parametrize("config", RELEASES.values())
def test_the_criterion_has_a_place_for_every_flow_of_the_release(config):
    criterion = Criterion(config())
    flows = flows_of(criterion)
    assert flows.keys() == release_flows().keys()
    assert {id(f) for f in flows.values()} == {id(f) for f in criterion.flows.values()}
    for (_, dim), flow in flows.items():
        assert flow.mask.shape[1] == dim


def tiny_release():
    return replace(release_panoptic(), backbone_width=8, mspn_stages=1, fpn_channels=32)


def test_official_weights_survive_the_round_trip(tmp_path):
    model, flows = randomize(DAS(tiny_release())), release_flows()
    torch.save({"state_dict": to_official(model, flows), "meta": {"epoch": 22}}, tmp_path / "release.pth")
    other, other_flows = DAS(tiny_release()), release_flows()
    load_official(read_official(tmp_path / "release.pth"), other, other_flows)
    for a, b in ((model, other), *((flows[k], other_flows[k]) for k in flows)):
        assert a.state_dict().keys() == b.state_dict().keys()
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    back = to_official(other, other_flows)
    assert all(torch.equal(v, back[k]) for k, v in to_official(model, flows).items())
    x = torch.randn(2, 3, 64, 64)
    for a, b in zip(everything(model.eval()(x)), everything(other.eval()(x)), strict=True):
        assert torch.equal(a, b)


def test_unfit_official_weights_are_refused_and_nothing_is_loaded(tmp_path):
    model, flows = DAS(tiny_release()), release_flows()
    good = {k: v + 1 for k, v in to_official(model, flows).items()}
    first = model.state_dict()["backbone.top.top.0.conv.weight"].clone()
    lacking = {k: v for k, v in good.items() if k != "neck.fpn_convs.0.conv.weight"}
    with pytest.raises(ValueError, match="missing neck.fpn_convs.0.conv.weight"):
        load_official(lacking, model, flows)
    with pytest.raises(ValueError, match="unknown bbox_head.extra"):
        load_official({**good, "bbox_head.extra": torch.zeros(1)}, model, flows)
    with pytest.raises(ValueError, match="bbox_head.conv_cls.bias: shape"):
        load_official({**good, "bbox_head.conv_cls.bias": torch.zeros(2)}, model, flows)
    assert torch.equal(model.state_dict()["backbone.top.top.0.conv.weight"], first)
    with pytest.raises(ValueError, match="no file"):
        read_official(tmp_path / "none.pth")
    torch.save({"weights": {}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no 'state_dict'"):
        read_official(tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no tensor like"):
        official_key("optimizer.step")

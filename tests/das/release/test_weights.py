"""The release's state dict: every tensor has its place, and weights survive the way there and back."""

import json
from dataclasses import replace

import pytest
import torch

from das.config import release_panoptic
from das.criterion import Criterion
from das.model import DAS
from das.release.weights import RELEASES, experiment_of, flows_of, load_official, official_key, to_official
from tests.das.model_cases import everything, randomize, release_flows


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


def test_official_weights_survive_the_round_trip():
    model, flows = randomize(DAS(tiny_release())), release_flows()
    other, other_flows = DAS(tiny_release()), release_flows()
    load_official(to_official(model, flows), other, other_flows)
    for a, b in ((model, other), *((flows[k], other_flows[k]) for k in flows)):
        assert a.state_dict().keys() == b.state_dict().keys()
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    back = to_official(other, other_flows)
    assert all(torch.equal(v, back[k]) for k, v in to_official(model, flows).items())
    x = torch.randn(2, 3, 64, 64)
    for a, b in zip(everything(model.eval()(x)), everything(other.eval()(x)), strict=True):
        assert torch.equal(a, b)


def test_unfit_official_weights_are_refused_and_nothing_is_loaded():
    model, flows = DAS(tiny_release()), release_flows()
    good = {k: v + 1 for k, v in to_official(model, flows).items()}
    first = model.state_dict()["backbone.top.top.0.conv.weight"].clone()
    lacking = {k: v for k, v in good.items() if not k.startswith("neck.fpn_convs.0.conv")}
    with pytest.raises(ValueError, match=r"of 15 joints: 1 missing \(neck.fpn_convs.0.conv.weight\)$"):
        load_official(lacking, model, flows)
    more = {f"bbox_head.extra{i}": torch.zeros(1) for i in range(4)}
    with pytest.raises(ValueError, match=r"4 unused \(bbox_head.extra0, bbox_head.extra1, bbox_head.extra2, \.\.\.\)$"):
        load_official({**good, **more}, model, flows)
    with pytest.raises(ValueError, match=r"1 of another shape \(bbox_head.conv_cls.bias \(2,\) for \(1,\)\)"):
        load_official({**good, "bbox_head.conv_cls.bias": torch.zeros(2)}, model, flows)
    with pytest.raises(ValueError, match=r"^bbox_head.conv_cls.bias holds NaN or infinity$"):
        load_official({**good, "bbox_head.conv_cls.bias": torch.full((1,), torch.nan)}, model, flows)
    assert torch.equal(model.state_dict()["backbone.top.top.0.conv.weight"], first)
    with pytest.raises(ValueError, match="no tensor like"):
        official_key("optimizer.step")


def test_counts_of_batches_may_be_missing():
    model, flows = DAS(tiny_release()), release_flows()
    state = {k: v + 1 for k, v in to_official(model, flows).items() if not k.endswith("num_batches_tracked")}
    load_official(state, model, flows)
    assert torch.equal(model.backbone.top.top[0].conv.weight, state["backbone.top.top.0.conv.weight"])


def test_an_experiment_is_recognised_by_its_number_of_joints():
    key = "bbox_head.conv_poses.0.weight"
    assert [experiment_of({key: torch.zeros(3 * joints, 256, 1, 1)}) for joints in (15, 21)] == ["panoptic", "mupots"]
    with pytest.raises(ValueError, match=r"another network's: another bbox_head.conv_poses.0.weight of \(51, 9\)"):
        experiment_of({key: torch.zeros(51, 9)})
    with pytest.raises(ValueError, match=r"no bbox_head.* among 2 tensors of layer1, fc; wanted a whole model"):
        experiment_of({"layer1.0.conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)})

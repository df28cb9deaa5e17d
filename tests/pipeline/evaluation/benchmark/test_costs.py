"""Stages end at the predictor's people, and parameters and operations equal a count by hand."""

import pytest
import torch
from torch import nn

from das.checkpoint import load_model
from das.decode import find_candidates, place_candidates, suppress
from pipeline.data.record import decode_image
from pipeline.evaluation.benchmark import costs
from pipeline.evaluation.benchmark.costs import STAGES, model_cost, stage_costs
from pipeline.evaluation.inference import images_and_cameras
from tests.pipeline.evaluation.evaluation_cases import scene


def test_the_stages_end_at_the_people_of_the_predictor(predictor, monkeypatch):
    """The separate stages keep the same number of people as the predictor."""
    found = []

    def recorded(joints_uv, scores, config):
        found.append(suppress(joints_uv, scores, config))
        return found[-1]

    records = scene(frames=2)
    monkeypatch.setattr(costs, "suppress", recorded)
    stages = stage_costs(predictor, *images_and_cameras(records), warm_up=0)
    assert tuple(stages) == STAGES and all(ms > 0 for ms in stages.values())
    whole = predictor.predict_batch([decode_image(r) for r in records], [r.K for r in records])
    assert [len(kept) for kept in found] == [len(p.people) for p in whole] and len(found[0]) > 0
    assert not predictor.model.backbone._forward_hooks, "the hooks are removed"


def test_placed_and_suppressed_candidates_are_the_decoded_people(predictor):
    (image,), (K,), (lens,) = images_and_cameras(scene(frames=1))
    inputs = predictor.prepare([decode_image(scene(frames=1)[0])], [K], [lens])
    output, config = predictor.network(inputs), predictor.info.model
    found = find_candidates(output, config, predictor.threshold, inputs.sizes)
    (people,) = place_candidates(found, config, inputs.K, inputs.distortion, inputs.image_transform)
    (expected,) = predictor.people(output, inputs)
    kept = people.select(suppress(people.joints_uv, people.scores, config))
    assert len(people) >= len(kept) == len(expected) > 0 and (people.scores.diff() <= 0).all()
    torch.testing.assert_close(kept.joints_cam, expected.joints_cam)


def test_a_slow_part_slows_its_stage(predictor):
    class Slow(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            torch.ones(1).item()
            end = costs.time.perf_counter() + 0.05
            while costs.time.perf_counter() < end:
                pass
            return self.inner(x)

    predictor.model.fpn = Slow(predictor.model.fpn)
    stages = stage_costs(predictor, *images_and_cameras(scene(frames=1)), warm_up=0)
    assert stages["neck"] >= 50 and stages["normalize"] >= 0


def test_parameters_and_operations_equal_a_count_by_hooks(place):
    """Against a count by hooks on every convolution of the backbone: 2 x outputs x inputs to each."""
    model, _ = load_model(place / "model")
    expected = 0

    def count(layer, _, out):
        nonlocal expected
        expected += 2 * out.numel() * layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]

    hooks = [m.register_forward_hook(count) for m in model.backbone.modules() if isinstance(m, nn.Conv2d)]
    found = model_cost(model.eval(), 64, 96)
    for hook in hooks:
        hook.remove()
    assert found.flops["backbone"] == expected > 0 and all(n > 0 for n in found.flops.values())
    assert sum(found.parameters.values()) == sum(p.numel() for p in model.parameters())
    twice = model_cost(model, 128, 96)
    for part in ("backbone", "head"):
        assert twice.flops[part] == pytest.approx(2 * found.flops[part], rel=0.1)

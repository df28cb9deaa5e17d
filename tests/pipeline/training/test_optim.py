"""Parameter groups and schedule against the release's, automatic precision, and the average of the weights."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from das.config import release_panoptic, small
from das.train_step import TrainStep
from pipeline.training.optim import (
    WeightAverage,
    autocast_type,
    learning_rate_factor,
    make_optimizer,
    parameter_groups,
    step_if,
)
from pipeline.training.optim_config import OptimConfig, release
from pipeline.training.optim_config import ours as ours_optim
from pipeline.training.optim_config import small as small_optim


def narrow(config):
    return TrainStep(dataclasses.replace(config, backbone_width=8, fpn_channels=32))


@pytest.fixture(scope="module")
def step():
    """The release's model and loss, narrow."""
    return narrow(dataclasses.replace(release_panoptic(), mspn_stages=1))


def names_in(groups, step):
    name_of = {id(p): name for name, p in step.named_parameters()}
    return [{name_of[id(p)] for p in group["params"]} for group in groups]


def test_every_parameter_is_in_exactly_one_group(step):
    for config in (release(), small_optim()):
        weights, biases = names_in(parameter_groups(step, config), step)
        assert not weights & biases
        assert weights | biases == {name for name, p in step.named_parameters() if p.requires_grad}


def test_biases_have_twice_the_rate_and_no_decay_except_those_of_norms_and_deformable_offsets(step):
    config = release()
    fast, slow = set(), set()
    norms = {n for n, m in step.named_modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)}
    for name, parameter in step.named_parameters():
        module, _, leaf = name.rpartition(".")
        if parameter.requires_grad:
            special = module in norms or "conv_offset" in module
            (fast if leaf == "bias" and not special else slow).add(name)
    assert any("conv_offset" in name for name in slow if name.endswith("bias")), "the model must have such a bias"
    groups = parameter_groups(step, config)
    assert names_in(groups, step) == [slow, fast] and len(fast) > 10
    assert (groups[0]["lr"], groups[0]["weight_decay"]) == (0.002, 1e-4)
    assert (groups[1]["lr"], groups[1]["weight_decay"]) == (0.004, 0.0)
    optimizer = make_optimizer(step, config)
    assert isinstance(optimizer, torch.optim.SGD) and all(g["momentum"] == 0.9 for g in optimizer.param_groups)


def test_adamw_decays_matrices_and_filters_only():
    step = narrow(small())
    decayed, free = parameter_groups(step, small_optim())
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim <= 1 for p in free["params"])
    assert decayed["weight_decay"] == small_optim().weight_decay > free["weight_decay"] == 0.0
    assert decayed["lr"] == free["lr"] == small_optim().lr
    assert isinstance(make_optimizer(step, small_optim()), torch.optim.AdamW)


def test_the_releases_schedule():
    config = release()
    assert (config.epochs, config.clip_norm, config.amp, config.ema_decay) == (22, 35.0, "fp16", None)
    warm = [learning_rate_factor(config, step, 0, 0.0) for step in (0, 125, 249, 250, 10**6)]
    assert warm == pytest.approx([1 / 3, 2 / 3, 1 - 2 / 750, 1, 1])
    drops = [learning_rate_factor(config, 10**6, epoch, epoch / 22) for epoch in (0, 15, 16, 19, 20, 21)]
    assert drops == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_ours_differs_from_the_release_in_precision_averaged_weights_and_the_start_at_the_mean():
    changed = {
        f.name for f in dataclasses.fields(OptimConfig) if getattr(release(), f.name) != getattr(ours_optim(), f.name)
    }
    assert changed == {"amp", "ema_decay", "start_at_mean"}


@pytest.mark.parametrize("capabilities", [{}, {"avx512_bf16": False}, {"avx512_bf16": True}, {"bf16": True}])
def test_automatic_precision_is_bf16_only_where_the_processor_computes_in_it(capabilities, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    found = autocast_type("auto", torch.device("cpu"))
    assert found == (torch.bfloat16 if any(capabilities.values()) else None)
    # A type that is named is used on any processor.
    assert autocast_type("bf16", torch.device("cpu")) == torch.bfloat16
    assert autocast_type("none", torch.device("cpu")) is None


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_cosine_falls_from_one_to_zero(a, b):
    config = dataclasses.replace(small_optim(), warmup_steps=0)
    early, late = (learning_rate_factor(config, 10**6, 0, p) for p in sorted((a, b)))
    assert 0 <= late <= early <= 1
    known = [learning_rate_factor(config, 1, 0, progress) for progress in (0.0, 0.5, 1.0, 7.0)]
    assert known == pytest.approx([1.0, 0.5, 0.0, 0.0])


# ---- average ----


YES, NO = torch.tensor(True), torch.tensor(False)


class Little(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.norm = nn.BatchNorm1d(2)


def test_the_average_is_the_exponential_one_of_weights_and_running_statistics():
    model, decay = Little(), 0.7
    average = WeightAverage(model, decay)
    expected = None
    for n in range(30):
        value = torch.tensor([float(n), -2.0 * n])
        model.weight.data.copy_(value)
        model.norm.running_mean.copy_(value / 2)
        model.norm.num_batches_tracked.fill_(n)
        average.update_if(YES, model)
        # The first update copies; after it the decay rises from 2 / 11 to its limit.
        limit = min(decay, (1 + n) / (10 + n))
        expected = value if expected is None else limit * expected + (1 - limit) * value
        torch.testing.assert_close(average.module.weight.data, expected)
        torch.testing.assert_close(average.module.norm.running_mean, expected / 2)
    assert average.module.norm.num_batches_tracked == 29 and not average.module.weight.grad_fn


@pytest.mark.parametrize(("updates", "decay"), [(1, 2 / 11), (10, 11 / 20), (90, 91 / 100), (10**6, 0.999)])
def test_the_decay_warms_up_with_the_number_of_updates(updates, decay):
    average = WeightAverage(Little(), 0.999)
    average.module.weight.data.fill_(1.0)
    average.n_averaged.fill_(updates)
    average.update_if(YES, Little())  # weights of 0: what is left of 1 is the decay
    torch.testing.assert_close(average.module.weight.data, torch.full((2,), decay))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("bad_steps", [{0}, {2}, {0, 1, 3}])
def test_a_bad_step_leaves_weights_momentum_and_average_as_they_were_bit_for_bit(optimizer, bad_steps):
    def trained(steps):
        model = Little()
        tools = make_optimizer(model, OptimConfig(optimizer, lr=0.1)), WeightAverage(model, 0.9)
        for i in steps:
            model.norm.num_batches_tracked.fill_(i)
            for n, parameter in enumerate(model.parameters()):
                parameter.grad = torch.full_like(parameter, torch.nan if i in bad_steps else 0.3 * i + n - 1)
            finite = NO if i in bad_steps else YES
            step_if(finite, tools[0])
            tools[1].update_if(finite, model)
        return [model.state_dict(), tools[0].state_dict()["state"], tools[1].state_dict()]

    found, wanted = trained(range(5)), trained([i for i in range(5) if i not in bad_steps])
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lr": 0.0}, "lr = 0.0, wanted above 0"),
        ({"weight_decay": -1.0}, "weight_decay = -1.0, wanted at least 0"),
        ({"warmup_start": 0.0}, "warmup_start = 0.0, wanted above 0, at most 1"),
        ({"epochs": 0}, "epochs = 0, wanted at least 1"),
        ({"max_minutes": 0.0}, "max_minutes = 0.0, wanted above 0, or None"),
        ({"clip_norm": 0.0}, "clip_norm = 0.0, wanted above 0"),
        ({"ema_decay": 1.0}, "ema_decay = 1.0, wanted between 0 and 1, or None"),
    ],
)
def test_bad_values_are_refused_by_name(change, reason):
    with pytest.raises(ValueError, match=reason):
        OptimConfig(**change)

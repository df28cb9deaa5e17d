"""Checkpoints come back as written, are readable by people, and every fault is named in one line."""

import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from das.checkpoint import (
    fresh_tensors,
    load_criterion,
    load_model,
    load_tensors,
    load_training_state,
    save_criterion,
    save_model,
    save_training_state,
)
from das.config import DASConfig, small
from das.model import DAS
from das.model_info import MAX_CONFIG_BYTES, MAX_HEADER_BYTES, ModelInfo
from das.recipe import InputSize, RecipeConfig
from das.skeleton import MPI15, MUCO21, PANOPTIC15


def tiny(**changes) -> DASConfig:
    return replace(small(), backbone_width=8, fpn_channels=32, **changes)


def info_of(config: DASConfig, **changes) -> ModelInfo:
    values = {
        "model": config,
        "test_size": InputSize(256, 144),
        "weights": "ema",
        "score_threshold": 0.3,
        "unsupervised_joints": ("head",),
        "recipe": {"default": RecipeConfig().to_json()},
        "data": {"sources": ["synthetic"], "fingerprints": ["abc"], "terms": ["free"], "split": "train"},
        "code_version": "0.1.0",
        "mean_pose": tuple((float(i), -0.5, 100.25) for i in range(config.n_joints)),
    }
    return ModelInfo(**{**values, **changes})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    torch.manual_seed(0)
    model = DAS(tiny())
    info = info_of(model.config)
    save_model(folder, model, info)
    return folder, model, info


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the checkpoint that a test may spoil."""
    for file in saved[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def edit(folder, change):
    path = folder / "config.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def refused(call, *parts):
    """The call ends in a ValueError of one line that names all parts."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


def test_model_and_info_come_back_as_written(saved):
    folder, model, info = saved
    loaded, loaded_info = load_model(folder)
    assert loaded_info == info and not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = model.eval()(image).levels[0], loaded(image).levels[0]
    assert torch.equal(expected.joints, found.joints) and torch.equal(expected.confidence, found.confidence)


def test_channels_last_weights_are_saved_like_others(tmp_path):
    model = DAS(tiny()).to(memory_format=torch.channels_last)
    save_model(tmp_path, model, info_of(model.config))
    loaded = load_model(tmp_path)[0].state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def test_the_folder_is_readable_and_holds_no_pickle(saved):
    folder, model, _ = saved
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    text = (folder / "config.json").read_text()
    value = json.loads(text)
    assert value["format"] == 1 and value["test_size"] == {"long_side": 256, "short_side": 144}
    assert value["model"]["skeleton"]["joints"] == list(model.config.skeleton.joints)
    assert len(text.splitlines()) > 20


def test_wrong_folders_and_missing_files_are_named(copy):
    refused(lambda: load_model(copy / "elsewhere"), "elsewhere", "no folder")
    (copy / "model.safetensors").rename(copy / "away")
    refused(lambda: load_model(copy), "model.safetensors", "missing")
    (copy / "config.json").unlink()
    refused(lambda: load_model(copy), "config.json", "missing")


ORIGIN = {"file": "a.pth", "sha256": "0" * 64, "experiment": "panoptic", "trained_on": ["panoptic/train"]}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda v: v.update(format=2), ("format 2", "1 wanted")),
        (lambda v: v.pop("format"), ("format None", "1 wanted")),
        (lambda v: v.pop("weights"), ("missing fields ['weights']",)),
        (lambda v: v.update(extra=1), ("unknown fields ['extra']",)),
        (lambda v: v.update(weights="best"), ("weights = 'best'", "ema or raw")),
        (lambda v: v.update(score_threshold=1.5), ("score_threshold = 1.5",)),
        (lambda v: v.update(unsupervised_joints=["tail"]), ("tail", "wanted some of")),
        (lambda v: v["data"].pop("terms"), ("data", "terms")),
        (lambda v: v["mean_pose"].pop(), ("mean_pose", "15 x 3")),
        (lambda v: v.update(mean_pose=None), ("mean_pose = None", "15 x 3")),
        (
            lambda v: v.update(origin={"file": "a.pth"}),
            ("origin", "missing fields ['experiment', 'sha256', 'trained_on']"),
        ),
        (lambda v: v.update(origin={**ORIGIN, "sha256": 7}), ("sha256 = 7",)),
        (lambda v: v["test_size"].pop("long_side"), ("long_side",)),
        (lambda v: v["test_size"].update(short_side=999), ("short_side = 999",)),
        (lambda v: v["model"].pop("strides"), ("missing fields ['strides']",)),
        (lambda v: v["model"].update(backbone="vgg"), ("backbone = 'vgg'",)),
    ],
)
def test_every_fault_of_config_json_is_named(copy, change, parts):
    edit(copy, change)
    refused(lambda: load_model(copy), "config.json", *parts)


def test_config_that_is_no_json_object_is_named(copy):
    for text in ("{", "[1]", ""):
        (copy / "config.json").write_text(text)
        refused(lambda: load_model(copy), "config.json")


def test_weights_of_another_architecture_name_the_first_differing_tensor(copy, tmp_path_factory):
    other = DAS(tiny(skeleton=MUCO21))
    folder = tmp_path_factory.mktemp("other")
    save_model(folder, other, info_of(other.config, unsupervised_joints=()))
    (copy / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    found, wanted = other.state_dict(), DAS(tiny()).state_dict()
    first = next(n for n in wanted if wanted[n].shape != found[n].shape)
    refused(
        lambda: load_model(copy),
        "another architecture",
        f"{first}: found {tuple(found[first].shape)}, wanted {tuple(wanted[first].shape)}",
    )


def test_missing_and_unknown_tensors_are_named(copy):
    path = copy / "model.safetensors"
    tensors = load_file(path)
    name, value = next(iter(tensors.items()))
    del tensors[name]
    save_file({**tensors, "unknown": torch.zeros(2)}, path)
    refused(lambda: load_model(copy), f"{name}: found nothing, wanted {tuple(value.shape)}", "unknown")


def test_a_truncated_weights_file_is_named(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    refused(lambda: load_model(copy), "model.safetensors", "no safetensors file")


def test_criterion_round_trip_and_mismatch(tmp_path):
    written, read = nn.Linear(3, 2), nn.Linear(3, 2)
    save_criterion(tmp_path, written)
    load_criterion(tmp_path, read)
    assert torch.equal(written.weight, read.weight) and torch.equal(written.bias, read.bias)
    refused(lambda: load_criterion(tmp_path, nn.Linear(4, 2)), "weight: found (2, 3), wanted (2, 4)")


def test_training_state_round_trip_with_optimiser_and_random_state(tmp_path):
    layer = nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    rng = np.random.default_rng(3)
    state = {
        "optimizer": optimiser.state_dict(),
        "epoch": 3,
        "best": None,
        "torch_rng": torch.get_rng_state(),
        "numpy_rng": rng.bit_generator.state,
        "history": [(1, 0.5, True), (2, 0.25, False)],
    }
    save_training_state(tmp_path, state)
    loaded = load_training_state(tmp_path)
    assert {k: loaded[k] for k in ("epoch", "best", "numpy_rng", "history")} == {
        k: state[k] for k in ("epoch", "best", "numpy_rng", "history")
    }
    assert torch.equal(loaded["torch_rng"], state["torch_rng"])
    again = torch.optim.AdamW(layer.parameters(), lr=0.5)
    again.load_state_dict(loaded["optimizer"])
    assert again.state_dict()["param_groups"] == optimiser.state_dict()["param_groups"]
    for i, moments in optimiser.state_dict()["state"].items():
        assert torch.equal(again.state_dict()["state"][i]["exp_avg"], moments["exp_avg"])


def test_training_state_refuses_what_could_not_be_read_again(tmp_path):
    with pytest.raises(TypeError, match=r"state\['config'\]\[1\] is a DASConfig"):
        save_training_state(tmp_path, {"config": [1, tiny()]})
    assert not list(tmp_path.iterdir())


class Harmful:
    """Code in a pickle: unpickling it would call print."""

    def __reduce__(self):
        return print, ("unpickled",)


def test_an_empty_training_state_as_a_full_disk_leaves_it_is_refused(tmp_path):
    (tmp_path / "training_state.pt").write_bytes(b"")
    refused(lambda: load_training_state(tmp_path), "training_state.pt is no training state: EOFError")


def test_training_state_never_runs_pickled_code(tmp_path, capsys):
    torch.save({"state": Harmful()}, tmp_path / "training_state.pt")
    refused(lambda: load_training_state(tmp_path), "training_state.pt")
    assert "unpickled" not in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_file_and_nothing_else(saved, copy, monkeypatch):
    _, model, info = saved
    before = {p.name: p.read_bytes() for p in copy.iterdir()}

    def half(tensors, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("das.checkpoint.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        save_model(copy, model, info)
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == before


# A checkpoint as the start of a model with other joints.


@pytest.mark.parametrize("update", ["none", "single", "multi", "release"])
def test_other_joints_keep_all_but_the_layers_whose_channels_are_joints(update, tmp_path):
    layers = {} if update != "none" else {"update_layers": 0}
    ours, theirs = (tiny(update=update, skeleton=s, **layers) for s in (MUCO21, PANOPTIC15))
    source = DAS(theirs)
    save_model(tmp_path, source, info_of(theirs))
    fresh = fresh_tensors(tmp_path, ours)
    model = DAS(ours)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_tensors(tmp_path / "model.safetensors", model, fresh)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in fresh else source.state_dict()[name]), name
    assert {"head.joints.out.weight", "head.joints.out.bias"} <= set(fresh)
    assert all(name.startswith(("head.joints.out", "head.sigma.out", "update.")) for name in fresh)
    assert any(name.startswith("update.") for name in fresh) == (update in ("multi", "release"))


def test_as_many_joints_of_other_names_start_fresh_and_equal_ones_do_not(saved, tmp_path):
    folder, _, _ = saved
    head_top = replace(MPI15, name="mine")
    assert len(head_top) == len(PANOPTIC15)
    assert "head.joints.out.weight" in fresh_tensors(folder, tiny(skeleton=head_top))
    assert fresh_tensors(folder, tiny(skeleton=replace(PANOPTIC15, name="mine"))) == ()


def test_a_start_of_another_architecture_is_refused_whatever_its_joints(saved):
    folder, _, _ = saved
    wider = replace(tiny(skeleton=MUCO21), backbone_width=16)
    fresh = fresh_tensors(folder, wider)
    refused(lambda: load_tensors(folder / "model.safetensors", DAS(wider), fresh), "another architecture", "backbone.")


MEMORY = 1 << 30  # a refusal takes less, bytes


def refused_at_once(folder, *parts):
    """``load_model`` refuses the folder in one line, in 2 s and 1 GB of address space more than the process has."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits, began = resource.getrlimit(resource.RLIMIT_AS), time.monotonic()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, limits[1]))
    try:
        refused(lambda: load_model(folder), *parts)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "change",
    [
        {"backbone_width": 1_000_000},
        {"backbone_width": 8 * 10**300},
        {"backbone_width": 512},
        {"fpn_channels": 32 * 10**6},
        {"update_samples": 10**9},
        {"backbone": "mspn", "mspn_stages": 4, "backbone_width": 80_000},
        {"strides": [8 << i for i in range(2000)], "range_ends": [float(i + 1) for i in range(1999)]},
        {"strides": [8] * 100_000, "range_ends": [float(i + 1) for i in range(99_999)]},
    ],
)
def test_a_network_that_the_weights_do_not_prove_is_refused_before_it_is_built(copy, change):
    edit(copy, lambda v: v["model"].update(change))
    refused_at_once(copy)


def test_thousands_of_joints_are_refused_before_they_are_built(copy):
    joints = [f"j{i}" for i in range(10_000)]
    skeleton = {"name": "many", "joints": joints, "bones": [], "root": ["j0"]}
    edit(copy, lambda v: (v["model"].update(skeleton=skeleton), v.update(mean_pose=[[0.0] * 3] * 10_000)))
    edit(copy, lambda v: v.update(unsupervised_joints=[]))
    refused_at_once(copy, "model.safetensors is of another architecture", "skeleton of 10000")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[" * 200_000, "too deep"),
        ('{"format": 1, "recipe": ' + "[" * 100_000, "too deep"),
        (" " * (MAX_CONFIG_BYTES + 1), f"wanted at most {MAX_CONFIG_BYTES}"),
        ('{"format": ' + "1" * 5000 + "}", "config.json"),
        ('{"format": "' + "x" * 1_000_000 + '"}', "checkpoint format"),
    ],
)
def test_a_huge_or_deeply_nested_config_is_refused(copy, text, part):
    (copy / "config.json").write_text(text)
    refused_at_once(copy, part)
    with pytest.raises(ValueError) as caught:
        load_model(copy)
    assert len(str(caught.value)) < 1000


def test_numbers_beyond_a_float_are_refused(copy):
    edit(copy, lambda v: v["mean_pose"][0].__setitem__(0, 10**400))
    refused_at_once(copy, "config.json")


def header_of(path, header, content=b"", length=None):
    text = json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + content)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}, None),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}}, None),
        ({}, 1 << 40),
        ({}, MAX_HEADER_BYTES + 1),
        ({}, 1 << 20),
    ],
)
def test_weights_whose_header_claims_more_than_the_file_holds_are_refused(copy, header, length):
    header_of(copy / "model.safetensors", header, b"\0" * 4, length)
    refused_at_once(copy, "model.safetensors is no safetensors file")


def test_tensors_without_elements_prove_no_width(copy):
    header_of(copy / "model.safetensors", {"a": {"dtype": "F32", "shape": [0, 10**6], "data_offsets": [0, 0]}})
    edit(copy, lambda v: v["model"].update(backbone_width=1_000_000))
    refused_at_once(copy, "backbone_width of 1000000, found 0")


def test_a_width_that_one_tensor_has_and_others_have_not_is_refused_before_the_network_is_built(copy):
    header = {"a": {"dtype": "U8", "shape": [1_000_000], "data_offsets": [0, 1_000_000]}}
    header_of(copy / "model.safetensors", header, b"\0" * 1_000_000)
    edit(copy, lambda v: v["model"].update(backbone_width=1_000_000))
    refused_at_once(copy, "another architecture")

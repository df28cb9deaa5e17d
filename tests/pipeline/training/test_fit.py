"""The training loop and what surrounds it: N workers equal one, a restart changes nothing, mistakes are told early."""

import dataclasses
import json
import math
import shutil
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from torch import nn

from das.checkpoint import ModelInfo, load_info, load_model, load_training_state, save_model
from das.config import paper_resnet50
from das.model import DAS
from das.recipe import RecipeConfig
from das.train_step import TrainStep
from pipeline.data.schema import to_table
from pipeline.data.shards import list_shards, read_records
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.train_overlap import INDEX_FILE, is_train_fit, overlap
from pipeline.infra.columns import read_columns, write_columns
from pipeline.training.config import IngestConfig, ModelChoice, TrainConfig
from pipeline.training.fit import SELECT_BY, identity, mupots_presets, panoptic_presets, refuse_another, training_job
from pipeline.training.loop import train_loop
from pipeline.training.optim import OptimConfig
from tests.pipeline.training.ray_train_stand_in import StandIn

TINY = TrainConfig(
    model=ModelChoice("small", backbone_width=8),
    ingest=IngestConfig(recipe="small", width=96, height=54, batch_size=8),
    optim=OptimConfig("adamw", lr=2e-3, warmup_steps=2, schedule="cosine", epochs=3, clip_norm=10.0, ema_decay=0.9),
    seed=3,
)


def config(prepared, **changes) -> TrainConfig:
    return dataclasses.replace(TINY, data=(str(prepared),), **changes)


def run(stand_in, config, val=True):
    """Trains within this process; returns the reports."""
    job = training_job(config)
    with pytest.MonkeyPatch.context() as patch:
        stand_in.install(patch)
        train_loop({"job": job if val else dataclasses.replace(job, val_keys=[])})
    return stand_in.reports


def optim(**changes) -> OptimConfig:
    return dataclasses.replace(TINY.optim, **changes)


def flat(tree, prefix=""):
    """A tree of dicts and lists as one level of names."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if items is None:
        return {prefix: tree}
    return {k: v for name, value in items for k, v in flat(value, f"{prefix}/{name}").items()}


@pytest.fixture(scope="module")
def straight(prepared, tmp_path_factory):
    """A training of three epochs without interruption."""
    return run(StandIn(prepared, tmp_path_factory.mktemp("straight")), config(prepared))


# ---- what a training leaves behind ----


def test_a_threshold_that_val_chooses_cuts_the_score_it_was_chosen_by(prepared):
    assert paper_resnet50().threshold_on == "confidence"
    job = training_job(config(prepared, model=ModelChoice("paper_resnet50")))
    assert job.val_keys and job.info.model.threshold_on == "score"


def flattened(prepared, folder) -> str:
    """The prepared folder with annotations of its val split in 2D only."""
    shutil.copytree(prepared, folder)
    for shard in list_shards(folder, "val"):
        records = [dataclasses.replace(r, joints_cam=None) for r in read_records(shard)]
        pq.write_table(to_table(records), shard)
    return str(folder)


def test_a_val_split_that_cannot_be_scored_is_told_before_anything_starts(prepared, tmp_path, capsys):
    flat_val = flattened(prepared, tmp_path / "flat")
    with pytest.raises(ValueError, match=r"val = .*/flat: its val split has images annotated in 2D only, wanted"):
        training_job(config(prepared, val=flat_val))
    job = training_job(dataclasses.replace(config(prepared), data=(flat_val,)))
    assert job.val_keys == [] and "training goes without validation" in capsys.readouterr().err


def test_val_images_are_spread_evenly_over_the_split_whatever_the_order_of_its_rows(prepared):
    every = training_job(config(prepared)).val_keys
    assert every == sorted(every) and len(every) == len(set(every)) > 3
    assert training_job(config(prepared, val_images=3)).val_keys == every[:: -(-len(every) // 3)]


def test_every_epoch_reports_numbers_and_a_checkpoint_that_stands_alone(straight, prepared):
    assert [metrics["epoch"] for metrics, _ in straight] == [1, 2, 3]
    assert [metrics["step"] for metrics, _ in straight] == [4, 8, 12]
    assert [metrics["finished"] for metrics, _ in straight] == [0, 0, 1]
    for metrics, folder in straight:
        assert all(isinstance(value, int | float) for value in metrics.values()), "Ray refuses tensors"
        assert metrics["val/people"] > 0 and math.isfinite(metrics[SELECT_BY])
        model, info = load_model(folder)
        assert info.weights == "ema" and info.score_threshold == metrics["val/score_threshold"]
        manifest = json.loads((prepared / "manifest.json").read_text())
        assert info.data["fingerprints"] == [manifest["fingerprint"]] and info.data["split"] == "train"
        assert info.data["terms"] == [manifest["terms"]]
        state = load_training_state(folder)
        averages = {k.removeprefix("module."): v for k, v in state["average"].items() if k.startswith("module.")}
        assert all(torch.equal(value, averages[name]) for name, value in model.state_dict().items())
        assert any(not torch.equal(value, state["model"][name]) for name, value in model.state_dict().items())


def test_the_index_lists_the_training_rows_and_no_others(straight, prepared):
    kept = read_columns(straight[-1][1] / "training_index.parquet")
    every = read_columns(prepared / "index.parquet")
    wanted = {(k, h) for s, k, h in zip(*every.values(), strict=True) if s == "train"}
    assert set(zip(kept["key"], kept["image_sha256"], strict=True)) == wanted and len(wanted) == 32


def test_without_averaging_the_raw_weights_are_kept_and_named_so(prepared, tmp_path):
    only = config(prepared, optim=optim(ema_decay=None, epochs=1))
    ((_, folder),) = run(StandIn(prepared, tmp_path), only, val=False)
    model, info = load_model(folder)
    state = load_training_state(folder)
    assert info.weights == "raw" and state["average"] is None
    assert all(torch.equal(value, state["model"][name]) for name, value in model.state_dict().items())


def test_bf16_and_accumulation_train_too(prepared, tmp_path):
    other = config(
        prepared,
        optim=optim(amp="bf16", epochs=1),
        ingest=dataclasses.replace(TINY.ingest, batch_size=5, accumulate=3),
    )
    ((metrics, folder),) = run(StandIn(prepared, tmp_path), other, val=False)
    assert metrics["step"] == 2  # 32 rows are 6 batches of 5, two groups of 3
    assert all(value.isfinite().all() for value in load_model(folder)[0].state_dict().values())


# ---- what a fine-tuned model keeps of the one it starts from ----


def parent_of(prepared, folder) -> tuple[TrainConfig, ModelInfo]:
    """A fine-tuning from a checkpoint that was trained on other data, under other terms."""
    short = config(prepared, optim=optim(epochs=1))
    info = training_job(short).info
    data = {"sources": ["films"], "fingerprints": ["f"], "terms": ["research only"], "split": "train"}
    save_model(folder, DAS(info.model), dataclasses.replace(info, data=data))
    return dataclasses.replace(short, pretrained=str(folder)), info


def test_a_fine_tuned_model_keeps_the_terms_and_is_not_judged_on_the_training_data_of_its_parent(prepared, tmp_path):
    start, info = parent_of(prepared, tmp_path / "parent")
    seen, unseen = (read_annotations([str(prepared)], split) for split in ("test", "val"))
    theirs = {"key": [seen.records[0].key, "films/a/0/00000000"], "image_sha256": ["0", seen.records[1].image_sha256]}
    write_columns(tmp_path / "parent" / INDEX_FILE, theirs)
    ((_, child),) = run(StandIn(prepared, tmp_path), start, val=False)
    kept = load_info(child).data
    assert kept["terms"] == ["research only", *info.data["terms"]]
    assert (kept["sources"], kept["fingerprints"]) == (["films", "synthetic"], ["f", *info.data["fingerprints"]])
    assert overlap(child, unseen) is None
    assert "trained on 2 of 4 images" in overlap(child, seen), "one by its key, one by its picture"
    with pytest.raises(ValueError, match="trained on 32 of 32 images"):
        is_train_fit(child, read_annotations([str(prepared)], "train"), allow=False)
    # A third generation keeps what the second one kept.
    again = training_job(dataclasses.replace(start, pretrained=str(child)))
    assert again.info.data == kept and set(again.index["key"]) == set(read_columns(child / INDEX_FILE)["key"])


def test_a_start_that_does_not_say_what_it_was_trained_on_leaves_that_unknown(prepared, tmp_path, capsys):
    start, _ = parent_of(prepared, tmp_path / "parent")
    ((_, child),) = run(StandIn(prepared, tmp_path), start, val=False)
    assert "parent holds no training_index.parquet: what it was trained on is not known" in capsys.readouterr().out
    assert not (child / INDEX_FILE).exists()
    assert "it is not known" in overlap(child, read_annotations([str(prepared)], "val"))


# ---- restarts ----


def test_a_restart_continues_exactly_where_the_last_checkpoint_was(straight, prepared, tmp_path):
    first = StandIn(prepared, tmp_path)
    first.crash_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(first, config(prepared))
    second = run(StandIn(prepared, tmp_path), config(prepared))
    assert [metrics["epoch"] for metrics, _ in second] == [3]

    (metrics, folder), (again, restarted) = straight[-1], second[-1]
    timeless = {name for name in metrics if name != "seconds"}
    assert {k: metrics[k] for k in timeless} == {k: again[k] for k in timeless}
    wanted, found = (flat(load_training_state(path)) for path in (folder, restarted))
    assert wanted.keys() == found.keys()
    assert any("exp_avg" in name for name in wanted) and any("/average/" in name for name in wanted)
    for name, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, found[name]), name
        elif name != "/progress/seconds":
            assert value == found[name], name


def test_a_finished_training_does_nothing_more(straight, prepared, tmp_path):
    shutil.copytree(straight[-1][1], tmp_path / "checkpoint-003")
    assert run(StandIn(prepared, tmp_path), config(prepared)) == []


def test_a_budget_that_is_used_up_ends_the_training_for_good(prepared, tmp_path):
    short = config(prepared, optim=optim(epochs=100, max_minutes=1e-6))
    reports = run(StandIn(prepared, tmp_path), short, val=False)
    assert [(metrics["epoch"], metrics["step"], metrics["finished"]) for metrics, _ in reports] == [(1, 1, 1)]
    assert run(StandIn(prepared, tmp_path), short, val=False) == []


def test_a_checkpoint_of_another_training_state_is_refused(straight, prepared, tmp_path):
    shutil.copytree(straight[-1][1], tmp_path / "checkpoint-003")
    other = config(prepared, model=ModelChoice("small", backbone_width=16))
    with pytest.raises((ValueError, RuntimeError), match="size mismatch|another architecture"):
        run(StandIn(prepared, tmp_path), other)


# ---- one worker and two ----


def freeze_norms(patch):
    """Batch norm computes over what its own worker sees; frozen, two workers can be compared with one."""

    def train(step, mode=True):
        nn.Module.train(step, mode)
        for module in step.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return step

    patch.setattr(TrainStep, "train", train)


def same_start(prepared, folder) -> TrainConfig:
    """Weights from a file: the mean pose that a new model starts from is that of each worker's own rows."""
    start = folder / "start"
    if not start.exists():
        base = config(prepared)
        torch.manual_seed(0)
        save_model(start, DAS(base.model.build()), training_job(base).info)
    # Plain SGD, hardly clipped: AdamW would not notice a gradient of twice its size.
    return config(prepared, pretrained=str(start), optim=optim(optimizer="sgd", lr=1e-3, epochs=2, clip_norm=1e6))


def worker(rank, prepared, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=300)
    )
    shared = same_start(Path(prepared), Path(folder))
    for name, batch_size, accumulate in (("two", 4, 1), ("two-by-two", 2, 2)):
        ingest = dataclasses.replace(TINY.ingest, batch_size=batch_size, accumulate=accumulate)
        with pytest.MonkeyPatch.context() as patch:
            freeze_norms(patch)
            run_in = StandIn(prepared, Path(folder) / name, rank, 2)
            reports = run(run_in, dataclasses.replace(shared, ingest=ingest, workers=2))
        torch.save([metrics for metrics, _ in reports], Path(folder) / f"{name}-{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_train_the_model_of_one_that_sees_the_same_global_batches(prepared, tmp_path):
    shared = same_start(prepared, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        freeze_norms(patch)
        one = run(StandIn(prepared, tmp_path / "one"), shared)
    torch.multiprocessing.spawn(worker, (str(prepared), str(tmp_path)), nprocs=2)

    wanted = flat(load_training_state(one[-1][1]))
    start, _ = load_model(tmp_path / "start")
    moved = [not torch.equal(v, wanted[f"/model/{k}"]) for k, v in start.state_dict().items() if v.is_floating_point()]
    assert sum(moved) > 50, "the case should train"
    for name in ("two", "two-by-two"):
        ranks = [torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=False) for rank in range(2)]
        for mine, theirs, alone in zip(*ranks, (metrics for metrics, _ in one), strict=True):
            assert mine["step"] == alone["step"] and mine["val/people"] == alone["val/people"]
            validation = {k: v for k, v in mine.items() if k.startswith("val/")}
            assert validation == {k: v for k, v in theirs.items() if k.startswith("val/")}
        found = flat(load_training_state(tmp_path / name / "checkpoint-002"))
        for key in wanted:
            if key.startswith(("/model/", "/average/")):
                torch.testing.assert_close(found[key], wanted[key], atol=2e-4, rtol=1e-3, msg=f"{name} {key} differs")


# ---- mistakes ----


def test_a_loss_that_is_not_finite_names_the_samples(prepared, tmp_path):
    wild = config(prepared, optim=optim(lr=1e30, warmup_steps=0))
    with pytest.raises(FloatingPointError, match=r"not finite: loss .* on samples .*synthetic/studio_") as error:
        run(StandIn(prepared, tmp_path), wild, val=False)
    assert str(error.value).count("synthetic/") == wild.ingest.batch_size


def test_a_gradient_that_is_not_finite_stops_the_training_before_it_spoils_the_weights(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(FloatingPointError, match="not finite: gradient norm inf, on samples synthetic/studio_"):
        run(StandIn(prepared, tmp_path), config(prepared), val=False)


def other_model(prepared, folder) -> Path:
    """A checkpoint folder of a wider model."""
    wide = config(prepared, model=ModelChoice("small", backbone_width=16))
    save_model(folder, DAS(wide.model.build()), training_job(wide).info)
    return folder


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": ()}, "data is empty, wanted at least one prepared folder"),
        ({"data": ("/no/such/folder",)}, "/no/such/folder does not exist; wanted a folder made by `das prepare`"),
        ({"val": "/no/such/folder"}, "/no/such/folder does not exist"),
        ({"ingest": IngestConfig(recipe="small", batch_size=33)}, "data has 32 training images, wanted at least .* 33"),
        ({"workers": 5}, "data has 32 training images, wanted at least one step of 40"),
        ({"val_images": 0}, "val_images = 0, wanted at least 1"),
        ({"pretrained": "/no/such/weights"}, "pretrained = '/no/such/weights' does not exist"),
        ({"model": ModelChoice("release_panoptic"), "pretrained": __file__}, "ImageNet files are for ResNets"),
    ],
)
def test_mistakes_are_told_before_anything_starts(prepared, change, reason):
    with pytest.raises(ValueError, match=reason):
        training_job(dataclasses.replace(config(prepared), **change))


def test_initial_weights_of_another_architecture_are_refused(prepared, tmp_path):
    wide = other_model(prepared, tmp_path / "wide")
    with pytest.raises(ValueError, match=r"wide/model.safetensors is of another architecture, \d+ tensors differ"):
        training_job(config(prepared, pretrained=str(wide)))


def test_shards_that_do_not_hold_what_the_manifest_says_are_refused(prepared, tmp_path):
    broken = tmp_path / "prepared"
    shutil.copytree(prepared, broken)
    first = sorted((broken / "train").glob("*.parquet"))[0]
    pq.write_table(pq.read_table(first).slice(1), first)
    with pytest.raises(ValueError, match="its shards hold 31 training rows, wanted 32 as its manifest says"):
        training_job(config(broken))
    first.unlink()
    with pytest.raises(ValueError, match=f"{first.name}: no such file"):
        training_job(config(broken))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"repeat": (1, 2)}, "repeat has 2 entries, wanted 1"),
        ({"repeat": (0,)}, r"repeat = \(0,\), wanted whole numbers from 1"),
        ({"workers": 0}, "workers = 0, wanted at least 1"),
        ({"name": "a/b"}, "name = 'a/b', wanted a name without '/'"),
        ({"model": ModelChoice("small", joints="coco99")}, "coco99"),
        ({"model": ModelChoice("small", update_layers=7)}, "update_layers = 7, wanted 0 to 3"),
    ],
)
def test_configurations_refuse_nonsense_by_name(change, reason):
    with pytest.raises(ValueError, match=reason):
        dataclasses.replace(TINY, data=("a",), **{"repeat": (), **change})


def test_another_training_under_the_same_name_is_refused_and_the_difference_named(prepared, tmp_path):
    mine = training_job(config(prepared))
    path = tmp_path / "training.json"
    path.write_text(json.dumps(identity(mine)))
    refuse_another(str(path), identity(mine))
    elsewhere = dataclasses.replace(config(prepared), val_images=3, workers=2, name="moved", threads=4)
    refuse_another(str(path), identity(training_job(elsewhere)))  # where and how fast it runs is no difference
    changed = config(prepared, optim=optim(lr=0.5))
    with pytest.raises(ValueError, match=r"optim.lr = 0.002, asked for 0.5: resume with .* or choose another --name"):
        refuse_another(str(path), identity(training_job(changed)))


# ---- presets ----


@pytest.mark.parametrize("presets", [panoptic_presets, mupots_presets])
def test_presets_are_whole_trainings(presets):
    for name, (text, preset) in presets().items():
        model, recipe = preset.model.build(), preset.ingest.build()
        assert text.endswith(".") and recipe.test_size.short_side >= 1, name
        assert (name == "small") == (not preset.gpu)
        if name == "release":
            assert preset.optim.epochs == 22 and preset.optim.drop_epochs == (16, 20) and preset.optim.lr == 0.002
            assert preset.workers * preset.ingest.batch_size == 16 and preset.optim.ema_decay is None
            assert not recipe.coco19_nose_is_head and recipe.min_people == 2
            assert model.pose_likelihood == "rle_release"


def test_the_papers_preset_is_the_papers_model():
    _, preset = panoptic_presets()["paper"]
    assert preset.model.build() == paper_resnet50()


def test_load_info_of_a_checkpoint_says_which_recipe_made_it(straight):
    info = load_info(straight[0][1])
    assert info.recipe == json.loads(json.dumps(TINY.ingest.build().to_json()))


def test_made_up_joints_are_a_choice_that_the_checkpoint_remembers():
    made = dataclasses.replace(TINY.ingest, synthesise=("neck",)).build()
    assert made.synthesised_joints == ("neck",) and TINY.ingest.build().synthesised_joints == ()
    assert RecipeConfig.from_json(json.loads(json.dumps(made.to_json()))) == made

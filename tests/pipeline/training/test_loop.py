"""The training loop: what it reports, N workers equal one, a restart changes nothing, infinities stop it."""

import dataclasses
import json
import math
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn

from benchmarks.gpu import drawn
from benchmarks.operations import count
from das.assign import with_targets
from das.checkpoint import load_model, load_training_state, save_model
from das.config import VARIANTS
from das.model import DAS
from das.model_info import load_info
from das.train_step import TrainStep
from pipeline.data.digest import found_in, hashes
from pipeline.evaluation.train_overlap import training_files
from pipeline.infra.columns import read_columns
from pipeline.training import loop
from pipeline.training.config import ModelChoice, TrainConfig
from pipeline.training.job import training_job
from pipeline.training.optim_config import OptimConfig
from pipeline.training.progress import TrainingProgress
from pipeline.training.state import TrainingState
from pipeline.training.step import Stepper, Worker, set_up
from pipeline.training.step_log import StepLog
from pipeline.training.validation import NOT_SCORED, SELECT_BY, Validator
from tests.das.scenes import MIXED, scene
from tests.pipeline.training.ray_train_stand_in import StandIn
from tests.pipeline.training.training_cases import TINY, tiny, tiny_optim, train


def flat(tree, prefix=""):
    """A tree of dicts and lists as one level of names."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if items is None:
        return {prefix: tree}
    return {k: v for name, value in items for k, v in flat(value, f"{prefix}/{name}").items()}


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
    """A training of three epochs without interruption."""
    return train(StandIn(tmp_path_factory.mktemp("uninterrupted")), tiny(prepared))


def test_every_epoch_reports_numbers_and_a_complete_checkpoint(uninterrupted, prepared):
    assert [metrics["epoch"] for metrics, _ in uninterrupted] == [1, 2, 3]
    assert [metrics["step"] for metrics, _ in uninterrupted] == [4, 8, 12]
    assert [metrics["finished"] for metrics, _ in uninterrupted] == [0, 0, 1]
    for metrics, folder in uninterrupted:
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


def test_a_checkpoint_holds_the_recipe_of_its_training(uninterrupted):
    info = load_info(uninterrupted[0][1])
    assert info.recipe == json.loads(json.dumps(TINY.ingest.build().to_json()))


def test_every_checkpoint_knows_the_training_rows_and_no_others(uninterrupted, prepared):
    every = read_columns(prepared / "index.parquet")
    for _, folder in uninterrupted:
        (name,) = training_files(folder)
        found = found_in(folder / name, hashes(every["key"], every["image_sha256"]))
        assert found.tolist() == [split == "train" for split in every["split"]] and found.sum() == 32


def test_without_averaging_the_raw_weights_are_kept_and_the_checkpoint_records_it(prepared, tmp_path):
    only = tiny(prepared, optim=tiny_optim(ema_decay=None, epochs=1))
    ((_, folder),) = train(StandIn(tmp_path), only, val=False)
    model, info = load_model(folder)
    state = load_training_state(folder)
    assert info.weights == "raw" and state["average"] is None
    assert all(torch.equal(value, state["model"][name]) for name, value in model.state_dict().items())


def test_bf16_and_accumulation_train(prepared, tmp_path):
    other = tiny(
        prepared,
        optim=tiny_optim(amp="bf16", epochs=1),
        ingest=dataclasses.replace(TINY.ingest, batch_size=5, accumulate=3),
    )
    ((metrics, folder),) = train(StandIn(tmp_path), other, val=False)
    assert metrics["step"] == 2  # 32 rows are 6 batches of 5, two groups of 3
    assert all(value.isfinite().all() for value in load_model(folder)[0].state_dict().values())


def test_the_tracker_gets_rates_and_shares_of_whole_global_batches(prepared, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    worker_log = SimpleNamespace(log_metrics=lambda metrics, step: logged.append(metrics), flush=lambda: None)
    monkeypatch.setattr(loop.Tracker, "join", lambda run: worker_log)
    ingest = dataclasses.replace(TINY.ingest, batch_size=5, accumulate=3)
    job = training_job(tiny(prepared, optim=tiny_optim(epochs=1), ingest=ingest))
    StandIn(tmp_path).install(monkeypatch)
    loop.train_loop({"job": dataclasses.replace(job, val_rows=[], run=object())})
    steps = [metrics for metrics in logged if "train/images_per_second" in metrics]
    for metrics in steps:
        assert metrics["train/images_per_second"] * metrics["train/seconds_per_step"] == pytest.approx(15)
    # 32 rows are two steps of 15: after the first half, and after the second all of the training is done.
    assert [metrics["train/done"] for metrics in steps] == [0.5, 1]


# ---- restarts ----


def test_a_restart_continues_exactly_where_the_last_checkpoint_was(uninterrupted, prepared, tmp_path):
    first = StandIn(tmp_path)
    first.crash_after = 2
    with pytest.raises(KeyboardInterrupt):
        train(first, tiny(prepared))
    second = train(StandIn(tmp_path), tiny(prepared))
    assert [metrics["epoch"] for metrics, _ in second] == [3]

    (metrics, folder), (again, restarted) = uninterrupted[-1], second[-1]
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


def equal_states(wanted, found):
    wanted, found = (flat(load_training_state(path)) for path in (wanted, found))
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, found[name]), name
        elif name != "/progress/seconds":
            assert value == found[name], name


def test_a_restart_within_an_epoch_continues_with_the_next_step_bit_for_bit(uninterrupted, prepared, tmp_path):
    first = StandIn(tmp_path)
    first.crash_after = 3  # after steps 3, 4 (the end of epoch 1) and 7
    config = tiny(prepared, checkpoint_steps=3)
    with pytest.raises(KeyboardInterrupt):
        train(first, config)
    assert [(metrics["step"], metrics["epoch_step"]) for metrics, _ in first.reports] == [(3, 3), (4, 0), (7, 3)]
    assert first.reports[0][0][SELECT_BY] == first.reports[2][0][SELECT_BY] == NOT_SCORED
    second = train(StandIn(tmp_path), config)
    assert [metrics["step"] for metrics, _ in second] == [8, 11, 12]
    equal_states(uninterrupted[-1][1], second[-1][1])


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(uninterrupted, prepared, tmp_path, capsys):
    for _, folder in uninterrupted[:2]:
        shutil.copytree(folder, tmp_path / folder.name)
    damaged = tmp_path / "checkpoint-0008" / "training_state.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    again = train(StandIn(tmp_path), tiny(prepared))
    assert [metrics["step"] for metrics, _ in again] == [8, 12]
    assert "checkpoint-0008 is damaged" in capsys.readouterr().out
    equal_states(uninterrupted[-1][1], again[-1][1])


def test_without_a_checkpoint_that_can_be_read_the_training_does_not_start_over(uninterrupted, prepared, tmp_path):
    shutil.copytree(uninterrupted[0][1], tmp_path / "checkpoint-0004")
    (tmp_path / "checkpoint-0004" / "training_state.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="training_state.pt"):
        train(StandIn(tmp_path), tiny(prepared))


def test_a_finished_training_does_nothing_more(uninterrupted, prepared, tmp_path):
    shutil.copytree(uninterrupted[-1][1], tmp_path / "checkpoint-0012")
    assert train(StandIn(tmp_path), tiny(prepared)) == []


def test_a_budget_that_is_used_up_ends_the_training_for_good(prepared, tmp_path):
    short = tiny(prepared, optim=tiny_optim(epochs=100, max_minutes=1e-6))
    reports = train(StandIn(tmp_path), short, val=False)
    assert [(metrics["epoch"], metrics["step"], metrics["finished"]) for metrics, _ in reports] == [(1, 1, 1)]
    assert train(StandIn(tmp_path), short, val=False) == []


def test_a_checkpoint_of_another_training_state_is_refused(uninterrupted, prepared, tmp_path):
    shutil.copytree(uninterrupted[-1][1], tmp_path / "checkpoint-0012")
    other = tiny(prepared, model=ModelChoice("small", backbone_width=16))
    with pytest.raises((ValueError, RuntimeError), match="size mismatch|another architecture"):
        train(StandIn(tmp_path), other)


# ---- one worker and two ----


def freeze_norms(patch):
    """Puts batch norm in eval mode: it averages over one worker's images, so two workers would differ from one."""

    def train(step, mode=True):
        nn.Module.train(step, mode)
        for module in step.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return step

    patch.setattr(TrainStep, "train", train)


def same_start(prepared, folder) -> TrainConfig:
    """A training from saved weights: a new model would start at the mean pose of each worker's own rows."""
    start = folder / "start"
    if not start.exists():
        base = tiny(prepared)
        torch.manual_seed(0)
        save_model(start, DAS(base.model.build()), training_job(base).info)
    # SGD without clipping: AdamW's step does not change when the gradient is twice as large.
    return tiny(prepared, pretrained=str(start), optim=tiny_optim(optimizer="sgd", lr=1e-3, epochs=2, clip_norm=1e6))


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
            run_in = StandIn(Path(folder) / name, rank, 2)
            reports = train(run_in, dataclasses.replace(shared, ingest=ingest, workers=2))
        torch.save([metrics for metrics, _ in reports], Path(folder) / f"{name}-{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_train_the_model_of_one_that_sees_the_same_global_batches(prepared, tmp_path):
    shared = same_start(prepared, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        freeze_norms(patch)
        one = train(StandIn(tmp_path / "one"), shared)
    torch.multiprocessing.spawn(worker, (str(prepared), str(tmp_path)), nprocs=2)

    wanted = flat(load_training_state(one[-1][1]))
    start, _ = load_model(tmp_path / "start")
    moved = [not torch.equal(v, wanted[f"/model/{k}"]) for k, v in start.state_dict().items() if v.is_floating_point()]
    assert sum(moved) > 50, "the weights must have changed"
    for name in ("two", "two-by-two"):
        ranks = [torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=False) for rank in range(2)]
        for first, second, single in zip(*ranks, (metrics for metrics, _ in one), strict=True):
            assert first["step"] == single["step"] and first["val/people"] == single["val/people"]
            validation = {k: v for k, v in first.items() if k.startswith("val/")}
            assert validation == {k: v for k, v in second.items() if k.startswith("val/")}
        found = flat(load_training_state(tmp_path / name / "checkpoint-0008"))
        for key in wanted:
            if key.startswith(("/model/", "/average/")):
                torch.testing.assert_close(found[key], wanted[key], atol=2e-4, rtol=1e-3, msg=f"{name} {key} differs")


def free_norms_worker(rank, prepared, folder):
    """One of two workers whose batch norm trains; keeps every model that it validates and every report."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=300)
    )
    shared = same_start(Path(prepared), Path(folder))
    for name, ema_decay in (("average", 0.9), ("raw", None)):
        validated = []

        class Recorded(Validator):
            def __call__(self, model, kept=validated):
                kept.append({key: value.clone() for key, value in model.state_dict().items()})
                return super().__call__(model)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "Validator", Recorded)
            optim = dataclasses.replace(shared.optim, ema_decay=ema_decay, epochs=1)
            run_in = StandIn(Path(folder) / name, rank, 2)
            train(run_in, dataclasses.replace(shared, optim=optim, workers=2))
        torch.save(validated, Path(folder) / f"{name}-{rank}.pt")
    dist.destroy_process_group()


def test_all_workers_validate_the_model_that_is_saved_running_statistics_included(prepared, tmp_path):
    same_start(prepared, tmp_path)
    torch.multiprocessing.spawn(free_norms_worker, (str(prepared), str(tmp_path)), nprocs=2)
    start, _ = load_model(tmp_path / "start")
    for name in ("average", "raw"):
        saved = load_model(tmp_path / name / "checkpoint-0002")[0].state_dict()
        statistics = [key for key in saved if key.endswith(("running_mean", "running_var"))]
        assert len(statistics) > 10 and not any(torch.equal(saved[k], start.state_dict()[k]) for k in statistics)
        for rank in range(2):
            (validated,) = torch.load(tmp_path / f"{name}-{rank}.pt")
            assert validated.keys() == saved.keys()
            assert all(torch.equal(validated[key], saved[key]) for key in saved), f"{name}: rank {rank}"


# ---- what the host asks of a GPU ----


@pytest.mark.parametrize(("variant", "most"), [("release_panoptic", 4000), ("small", 1700)])
def test_a_step_makes_the_host_wait_for_no_gpu_and_stays_below_a_number_of_operations(variant, most):
    """From the loader's batch to the logged numbers; a narrow model issues the operations of a wide one."""
    config = dataclasses.replace(VARIANTS[variant](), backbone_width=8, fpn_channels=32)
    step, optim = TrainStep(config), OptimConfig()
    worker = Worker(0, 1, torch.device("cpu"))
    state = TrainingState.new(step, optim, TrainingProgress(optim, 10), worker.device)
    take_step, log = Stepper(state, worker, optim.clip_norm), StepLog(1, 3)
    loaded = with_targets(scene(MIXED), config)

    def one_step():
        taken = take_step([loaded])
        log.end_step(state.progress.step, taken.norm, taken.losses, taken.parts)

    one_step()
    found = count(one_step)
    assert not found.waits
    assert 1000 < found.issued.total() <= most
    # That waiting is seen at all: without targets from the loader, and where the log is read.
    assert count(lambda: step.counts(scene(MIXED))).waits["nonzero.default"] == len(config.strides)
    assert count(lambda: float(losses_of(step, loaded))).waits


def losses_of(step, batch):
    return step(batch, step.counts(batch))["loss"]


# ---- losses and gradients that are not finite ----


def nan_where(patch, bad_steps):
    """Makes the loss NaN at these steps of a training, counted from 0."""
    forward, at = TrainStep.forward, iter(range(1000))

    def spoilt(step, batch, totals):
        losses = forward(step, batch, totals)
        if next(at) in bad_steps:
            losses["loss"] = losses["loss"] * float("nan")
        return losses

    patch.setattr(TrainStep, "forward", spoilt)


def test_a_bad_step_is_skipped_and_names_its_samples(prepared, tmp_path, monkeypatch, capsys):
    nan_where(monkeypatch, {1, 5})
    logged, tags = [], []
    tracker = SimpleNamespace(
        log_metrics=lambda m, step: logged.append((step, m)), set_tags=tags.append, flush=lambda: None
    )
    monkeypatch.setattr(loop.Tracker, "join", lambda run: tracker)
    StandIn(tmp_path).install(monkeypatch)
    job = training_job(tiny(prepared, optim=tiny_optim(epochs=2)))
    loop.train_loop({"job": dataclasses.replace(job, val_rows=[], run=object())})
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert [line.split(",")[0] for line in lines] == ["step 2 skipped", "step 6 skipped"]
    assert all(line.count("synthetic/studio_") == 8 for line in lines) and [*tags[0]] == ["das.skipped_step"]
    counted = [(step, m["train/skipped_steps"]) for step, m in logged if "train/skipped_steps" in m]
    assert counted == [(2, 1), (6, 2)]
    weights = load_model(tmp_path / "checkpoint-0008")[0].state_dict()
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())


def test_too_many_bad_steps_in_a_row_stop_the_training_in_one_line(prepared, tmp_path, monkeypatch):
    nan_where(monkeypatch, {0, 2, 3, 4})
    job = tiny(prepared, optim=tiny_optim(max_bad_steps=3))
    with pytest.raises(FloatingPointError, match=r"3 steps in a row skipped .*not finite: .*studio_") as error:
        train(StandIn(tmp_path), job, val=False)
    assert "\n" not in str(error.value) and str(error.value).count("synthetic/") == job.ingest.batch_size


def test_a_worker_keeps_the_memory_of_a_step_for_the_next_one():
    config, optim = VARIANTS["small"](), OptimConfig()
    set_up(TINY)
    step = TrainStep(config)
    state = TrainingState.new(step, optim, TrainingProgress(optim, 10), torch.device("cpu"))
    take_step, batch = Stepper(state, Worker(0, 1, torch.device("cpu")), 35.0), drawn(config, 16, 144, 256)

    def pages_taken(steps):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(steps):
            take_step([batch])
        return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps

    with ThreadPoolExecutor(1) as thread:  # a worker trains in a thread that is not its first
        thread.submit(pages_taken, 2).result()
        assert thread.submit(pages_taken, 4).result() < 2_000, "glibc's own way are 4,000 to 15,000"

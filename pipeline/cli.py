"""The `das` command; every job script calls the subcommand of its name.

A user's mistake (ValueError), a file that cannot be read or written, a full disk, a server that does not answer or a
sweep without progress (all OSError) ends in one line on standard error and exit status 2, a closed pipe in status 2
alone, an interruption in one line and 130. Any other exception is a bug and keeps its traceback. Options are parsed
before Ray, MLflow and torch are imported, so that help and mistakes in flags are quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.infra.flags import Config, choose_command, choose_preset, did_you_mean, parse
from pipeline.infra.job_defaults import given, how_to_give
from pipeline.infra.redaction import redacted

if TYPE_CHECKING:
    from pipeline.training.config import TrainConfig


def render(argv: Sequence[str]) -> None:
    """Render licence-free people in the original layout of Panoptic, MuCo, MuPoTS or COCO."""
    from pipeline.studio.render_config import RenderConfig

    config = parse("das render", RenderConfig, argv)

    from pipeline.studio.render_job import render_with_ray

    render_with_ray(config)


def doctor(argv: Sequence[str]) -> None:
    """Say what is there of original data (`doctor data ROOT`), or whether a job could run now (`doctor cluster`)."""
    from pipeline.data.cluster_doctor import ClusterDoctorConfig
    from pipeline.data.doctor import DoctorConfig
    from pipeline.training.presets import panoptic_presets

    default, preset = ClusterDoctorConfig(), given("preset")
    _, job = panoptic_presets().get(preset.values[0] if preset else "small", (None, None))
    if job is not None:
        default = replace(
            default,
            data=job.data,
            workers=job.fewest_workers,
            gpu=job.gpu,
            cpus_per_worker=job.cpus_per_worker,
            decode_on=job.ingest.decode_on,
        )
    commands = {"data": DoctorConfig, "cluster": ClusterDoctorConfig}
    config = choose_command("das doctor", commands, argv, cluster=default)

    if isinstance(config, DoctorConfig):
        from pipeline.data.doctor import doctor

        sys.exit(doctor(config))
    from pipeline.data.cluster_doctor import doctor_cluster

    sys.exit(doctor_cluster(config))


def prepare(argv: Sequence[str]) -> None:
    """Convert original data to checked Parquet shards with a manifest."""
    from pipeline.data.prepare.config import ConvertConfig

    config = parse("das prepare", ConvertConfig, argv)

    from pipeline.infra.cluster import absolute_storage
    from pipeline.infra.cluster_checks import Places, check_start
    from pipeline.infra.resources import Needs

    check_start(config.cluster, Needs(1, {"CPU": 1.0}), Places(absolute_storage(config.out), name="out"))

    from pipeline.data.prepare.convert import convert

    print(convert(config).summary())


def data(argv: Sequence[str]) -> None:
    """Show prepared data: `data stats` for tables and plots, `data show` for pictures."""
    from pipeline.data.browse.config import ShowConfig, StatsConfig

    config = choose_command("das data", {"stats": StatsConfig, "show": ShowConfig}, argv)

    if isinstance(config, ShowConfig):
        from pipeline.data.browse.show import show

        show(config)
    else:
        from pipeline.data.browse.stats import stats

        print(stats(config).summary())


def train_panoptic(argv: Sequence[str]) -> None:
    """Train for Panoptic (15 joints), with COCO beside it if given: release, ours, paper or small."""
    from pipeline.training.presets import panoptic_presets

    _train(_chosen("das train-panoptic", panoptic_presets(), argv), argv)


def train_mupots(argv: Sequence[str]) -> None:
    """Train on MuCo for MuPoTS (21 joints), with COCO beside it if given: release, ours or small."""
    from pipeline.training.presets import mupots_presets

    _train(_chosen("das train-mupots", mupots_presets(), argv), argv)


def sweep(argv: Sequence[str]) -> None:
    """Sweep loss weights (Eq. 10) and update layers with Ray Tune; a trial is a training."""
    from pipeline.training.trials import sweep_presets

    config = _chosen("das sweep", sweep_presets(), argv)
    _require_data(config.train.data, argv, "--train.data")
    _check_training(config.train)

    from pipeline.training.sweep import sweep

    print(sweep(config).summary())


def evaluate(argv: Sequence[str]) -> None:
    """Score a model or predictions under every protocol; tables, overlays and an HTML report, all into MLflow."""
    from pipeline.evaluation.config import EvaluateConfig

    config = parse("das evaluate", EvaluateConfig, argv)
    if not config.data and (prepared := given("prepared")) is not None:
        config = replace(config, data=prepared.values)
    _require_data(config.data, argv)

    if config.predictions is None:
        from pipeline.data.cluster_doctor import check_job, needs_of

        needs = needs_of(max(1, config.workers), max(1.0, config.cpus_per_worker), config.gpu)
        check_job(config.cluster, needs, config.data, config.experiment)

    from pipeline.evaluation.command import run_evaluation

    result = run_evaluation(config)
    print(result.summary())
    if result.quarantine:
        sys.exit(1)


def benchmark(argv: Sequence[str]) -> None:
    """Measure latency, throughput, memory, cost of each stage, parameters and FLOPs of a model."""
    from pipeline.evaluation.benchmark.config import BenchmarkConfig

    config = parse("das benchmark", BenchmarkConfig, argv)

    from pipeline.evaluation.benchmark.benchmark import benchmark

    print(benchmark(config).summary())


def promote(argv: Sequence[str]) -> None:
    """Register a checkpoint; a paired statistical gate decides whether it becomes champion."""
    from pipeline.registry.config import PromoteConfig

    config = parse("das promote", PromoteConfig, argv)

    from pipeline.registry.promote import promote

    result = promote(config)
    print(result.summary())
    if not result.champion:
        sys.exit(1)


def import_release(argv: Sequence[str]) -> None:
    """Turn a checkpoint file of the official release into a checkpoint folder."""
    from pipeline.weights.config import ImportConfig

    config = parse("das import-release", ImportConfig, argv)

    from pipeline.weights.import_release import import_release

    print(import_release(config).summary())


def registry(argv: Sequence[str]) -> None:
    """Show a registered model's history, the difference of two versions or its gate; roll back its champion."""
    from pipeline.registry.config import DefaultGate, Diff, History, RegistryConfig, Rollback

    commands = {"history": History, "diff": Diff, "rollback": Rollback, "gate": DefaultGate}
    config = RegistryConfig(choose_command("das registry", commands, argv))

    from pipeline.registry.queries import run_command

    print(run_command(config))


def predict(argv: Sequence[str]) -> None:
    """Find people on photos and videos: JSON, overlay and a view from above."""
    from pipeline.predict.config import PredictConfig

    config = parse("das predict", PredictConfig, argv).expanded()
    config.refuse_unusable()

    from pipeline.predict.predict import predict

    if predict(config):
        sys.exit(1)


def rescale(argv: Sequence[str]) -> None:
    """Compute stored results of `predict` for a focal length that is known later, without the model."""
    from pipeline.predict.rescale import RescaleConfig

    config = parse("das rescale", RescaleConfig, argv)

    from pipeline.predict.rescale import rescale

    rescale(config)


def track(argv: Sequence[str]) -> None:
    """Follow the people of predicted videos: identities, smooth motion, a table and BVH, without the model."""
    from pipeline.predict.track import TracksConfig, track_videos

    track_videos(parse("das track", TracksConfig, argv))


def demo(argv: Sequence[str]) -> None:
    """Run all of it on rendered data, from rendering to a promoted model and a picture."""
    from pipeline.demo import DemoConfig, demo

    demo(parse("das demo", DemoConfig, argv))


def _chosen(prog: str, presets: Mapping[str, tuple[str, Config]], argv: Sequence[str]) -> Config:
    """The settings of a training or a sweep; its preset may come from the environment or from das.yaml."""
    preset = given("preset")
    default = (preset.values[0], preset.source) if preset else None
    return choose_preset(prog, presets, argv, default, f"; {how_to_give('preset')}")


def _require_data(folders: Sequence[str], argv: Sequence[str], option: str = "--data") -> None:
    """Checks that there are prepared folders; says so when they come from the environment or from das.yaml."""
    prepared = given("prepared")
    if not folders:
        raise ValueError(
            f"data is empty, wanted {option} with folders made by `das prepare`, {how_to_give('prepared')}"
        )
    if prepared is not None and not any(word.partition("=")[0] == option for word in argv):
        print(f"data of {prepared.source}: {redacted(' '.join(folders))}")


def _train(config: TrainConfig, argv: Sequence[str]) -> None:
    """One training, or its first steps alone."""
    _require_data(config.data, argv)
    _check_training(config)

    if config.dry_run:
        from pipeline.training.measure.dry_run import dry_run

        print(dry_run(config).summary())
        return
    from pipeline.training.fit import fit

    print(fit(config).summary())


def _check_training(config: TrainConfig) -> None:
    """Looks at the cluster before a training reads anything."""
    from pipeline.data.cluster_doctor import check_job, needs_of

    needs = needs_of(config.fewest_workers, config.cpus_per_worker, config.gpu, config.spare_cpus)
    check_job(config.cluster, needs, config.data, config.experiment)


GROUPS: dict[str, tuple[Callable[[Sequence[str]], None], ...]] = {
    "data": (render, doctor, prepare, data),
    "training": (train_panoptic, train_mupots, sweep),
    "evaluation": (evaluate, benchmark),
    "models": (import_release, promote, registry),
    "people on photos": (predict, rescale, track),
    "everything": (demo,),
}
COMMANDS = {f.__name__.replace("_", "-"): f for group in GROUPS.values() for f in group}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: das COMMAND [OPTIONS]   (das COMMAND --help lists its options; das --version)"]
    for group, functions in GROUPS.items():
        lines += ["", group]
        lines += [f"  {f.__name__.replace('_', '-'):<{width}}  {(f.__doc__ or '').strip()}" for f in functions]
    return "\n".join(lines)


def version() -> str:
    """Release and code: a commit, or a hash of the sources."""
    from das import __version__
    from pipeline.infra.code_version import code_version

    return f"das {__version__} ({code_version()})"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `das` and of every job script; exits with 2 on a user's mistake."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            _run(args)
        finally:
            _flush()
    except KeyboardInterrupt:
        sys.exit(_refuse("interrupted", 130))
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, BrokenPipeError):  # the reader of a pipe, such as `head`, has seen enough
            sys.exit(2)
        if not isinstance(cause, (ValueError, OSError)):
            raise
        sys.exit(_refuse(_one_line(cause)))


def _run(args: Sequence[str]) -> None:
    """Carries out one command."""
    if not args or args[0] in ("-h", "--help"):
        print(_usage())
    elif args[0] in ("-V", "--version"):
        print(version())
    elif args[0] in COMMANDS:
        COMMANDS[args[0]](args[1:])
    else:
        near = did_you_mean(args[0], COMMANDS)
        raise ValueError(f"unknown command {args[0]!r}, wanted one of {', '.join(COMMANDS)}{near}")


def _cause(error: BaseException) -> BaseException:
    """The exception itself, or the one that ended a task of Ray: Ray wraps it and keeps it in ``cause``."""
    cause = getattr(error, "cause", None)
    return _cause(cause) if isinstance(cause, BaseException) and cause is not error else error


def _flush() -> None:
    """Writes what standard output holds, here where a full disk or a closed pipe can still be said.

    Raises:
        OSError: it cannot be written; it is sent nowhere from now on, or Python would try again at its end.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from None


def _one_line(error: BaseException) -> str:
    """The message; of a file that cannot be read or written, its name and the reason."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(redacted(text).split())


def _refuse(message: str, status: int = 2) -> int:
    with suppress(OSError):
        print(f"das: {message}", file=sys.stderr)
    return status

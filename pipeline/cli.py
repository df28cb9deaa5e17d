"""The `das` command; every job script calls the subcommand of its name.

A user's mistake (ValueError), a server that does not answer (ConnectionError) or a sweep without progress
(TimeoutError) ends in one line on standard error and exit status 2. Any other exception is a bug and keeps its
traceback. Options are parsed before Ray, MLflow and torch are imported, so that help and mistakes in flags are quick.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any, TypeVar

import tyro

from pipeline.infra.redaction import redacted

Config = TypeVar("Config")


def _parse(name: str, config: type[Config], argv: Sequence[str]) -> Config:
    with _mistakes_in_flags():
        return tyro.cli(config, prog=f"das {name}", args=argv)


def _choose(name: str, presets: dict[str, tuple[str, Config]], argv: Sequence[str]) -> Config:
    """A preset by name, every field of it open to change by a flag."""
    with _mistakes_in_flags():
        return tyro.extras.overridable_config_cli(presets, prog=f"das {name}", args=argv)


def _subcommand(name: str, configs: dict[str, Callable[..., Any]], argv: Sequence[str]) -> Any:
    """The configuration of one of a command's own commands, such as `das data show`."""
    with _mistakes_in_flags():
        return tyro.extras.subcommand_cli_from_dict(configs, prog=f"das {name}", args=argv)


@contextmanager
def _mistakes_in_flags() -> Iterator[None]:
    """Tyro draws a box round a mistake in a flag; here it is a ValueError, one line like all others."""
    drawn = io.StringIO()
    try:
        with redirect_stderr(drawn):
            yield
    except SystemExit as end:
        if end.code != 2:
            raise
        # Title, message, further parts; in a pipe the box is drawn with - and |.
        lines = [line.strip("│| ") for line in drawn.getvalue().splitlines()[1:-1]]
        parts = (part.strip(" .") for part in re.split(r"[─-]{5,}", " ".join(lines)))
        raise ValueError(". ".join(part for part in parts if part and not part.startswith("Argument"))) from None


def render(argv: Sequence[str]) -> None:
    """Render licence-free people in the original layout of Panoptic, MuCo, MuPoTS or COCO."""
    from pipeline.studio.render_config import RenderConfig

    config = _parse("render", RenderConfig, argv)

    from pipeline.studio.render_job import render_with_ray

    render_with_ray(config)


def doctor(argv: Sequence[str]) -> None:
    """Say what is there of original data (`doctor data ROOT`), what is missing or broken, and what to type next."""
    from pipeline.data.doctor import DoctorConfig, doctor

    sys.exit(doctor(_subcommand("doctor", {"data": DoctorConfig}, argv)))


def prepare(argv: Sequence[str]) -> None:
    """Convert original data to checked Parquet shards with a manifest."""
    from pipeline.data.prepare.config import ConvertConfig

    config = _parse("prepare", ConvertConfig, argv)

    from pipeline.data.prepare.convert import convert

    print(convert(config).summary())


def data(argv: Sequence[str]) -> None:
    """Show prepared data: `data stats` for tables and plots, `data show` for pictures."""
    from pipeline.data.browse.config import ShowConfig, StatsConfig

    config = _subcommand("data", {"stats": StatsConfig, "show": ShowConfig}, argv)

    if isinstance(config, ShowConfig):
        from pipeline.data.browse.show import show

        show(config)
    else:
        from pipeline.data.browse.stats import stats

        print(stats(config).summary())


def train_panoptic(argv: Sequence[str]) -> None:
    """Train for Panoptic (15 joints), with COCO beside it if given: release, ours, paper or small."""
    from pipeline.training.presets import panoptic_presets

    config = _choose("train-panoptic", panoptic_presets(), argv)

    from pipeline.training.fit import fit

    print(fit(config).summary())


def train_mupots(argv: Sequence[str]) -> None:
    """Train on MuCo for MuPoTS (21 joints), with COCO beside it if given: release, ours or small."""
    from pipeline.training.presets import mupots_presets

    config = _choose("train-mupots", mupots_presets(), argv)

    from pipeline.training.fit import fit

    print(fit(config).summary())


def sweep(argv: Sequence[str]) -> None:
    """Sweep loss weights (Eq. 10) and update layers with Ray Tune; a trial is a training."""
    from pipeline.training.trials import sweep_presets

    config = _choose("sweep", sweep_presets(), argv)

    from pipeline.training.sweep import sweep

    print(sweep(config).summary())


def evaluate(argv: Sequence[str]) -> None:
    """Score a model or predictions under every protocol; tables, overlays and an HTML report, all into MLflow."""
    from pipeline.evaluation.config import EvaluateConfig

    config = _parse("evaluate", EvaluateConfig, argv)

    from pipeline.evaluation.command import run_evaluation

    print(run_evaluation(config).summary())


def benchmark(argv: Sequence[str]) -> None:
    """Measure latency, throughput, memory, cost of each stage, parameters and FLOPs of a model."""
    from pipeline.evaluation.benchmark.config import BenchmarkConfig

    config = _parse("benchmark", BenchmarkConfig, argv)

    from pipeline.evaluation.benchmark.benchmark import benchmark

    print(benchmark(config).summary())


def promote(argv: Sequence[str]) -> None:
    """Register a checkpoint; a paired statistical gate decides whether it becomes champion."""
    from pipeline.registry.config import PromoteConfig

    config = _parse("promote", PromoteConfig, argv)

    from pipeline.registry.promote import promote

    result = promote(config)
    print(result.summary())
    if not result.champion:
        sys.exit(1)


def registry(argv: Sequence[str]) -> None:
    """Show a registered model's history, the difference of two versions or its gate; roll back its champion."""
    from pipeline.registry.config import RegistryConfig

    config = _parse("registry", RegistryConfig, argv)

    from pipeline.registry.queries import run_command

    print(run_command(config))


def predict(argv: Sequence[str]) -> None:
    """Find people on photos and videos: JSON, overlay and a view from above."""
    from pipeline.predict.config import PredictConfig

    config = _parse("predict", PredictConfig, argv)

    from pipeline.predict.predict import predict

    if predict(config):
        sys.exit(1)


def demo(argv: Sequence[str]) -> None:
    """Run all of it on rendered data, from rendering to a promoted model and a picture."""
    from pipeline.demo import DemoConfig, demo

    demo(_parse("demo", DemoConfig, argv))


GROUPS: dict[str, tuple[Callable[[Sequence[str]], None], ...]] = {
    "data": (render, doctor, prepare, data),
    "training": (train_panoptic, train_mupots, sweep),
    "evaluation": (evaluate, benchmark),
    "models": (promote, registry),
    "people on photos": (predict,),
    "everything": (demo,),
}
COMMANDS = {f.__name__.replace("_", "-"): f for group in GROUPS.values() for f in group}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: das COMMAND [OPTIONS]   (das COMMAND --help lists its options)"]
    for group, functions in GROUPS.items():
        lines += ["", group]
        lines += [f"  {f.__name__.replace('_', '-'):<{width}}  {(f.__doc__ or '').strip()}" for f in functions]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `das` and of every job script; exits with 2 on a user's mistake."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(_usage())
        return
    if args[0] not in COMMANDS:
        sys.exit(_refuse(f"unknown command {args[0]!r}, wanted one of {', '.join(COMMANDS)}"))
    try:
        COMMANDS[args[0]](args[1:])
    except (ValueError, ConnectionError, TimeoutError) as error:
        sys.exit(_refuse(_one_line(error)))


def _one_line(error: Any) -> str:
    return " ".join(redacted(str(error)).split())


def _refuse(message: str) -> int:
    print(f"das: {message}", file=sys.stderr)
    return 2

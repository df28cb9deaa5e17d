"""The `das` command. Every subcommand is the function that the job script of the same name calls.

A user's mistake (ValueError), a server that does not answer (ConnectionError) or a sweep that does not move
(TimeoutError) ends in one line on standard error and exit status 2; anything else is a fault of ours and keeps its
traceback. Heavy packages are imported by the subcommand that needs them, so that help is quick.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any, TypeVar

import tyro

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
    """Render licence-free people (the studio) in the original layout of Panoptic, MuCo, COCO or MuPoTS."""
    from pipeline.studio.render_job import RenderConfig, render

    render(_parse("render", RenderConfig, argv))


def doctor(argv: Sequence[str]) -> None:
    """Look what is there of original data (`doctor data ROOT`), what is missing, and what to type next."""
    from pipeline.data.check.doctor import DoctorConfig, doctor

    sys.exit(doctor(_subcommand("doctor", {"data": DoctorConfig}, argv)))


def prepare(argv: Sequence[str]) -> None:
    """Convert original data sets (or rendered ones) to checked Parquet shards with a manifest."""
    from pipeline.data.prepare.convert import ConvertConfig, convert

    print(convert(_parse("prepare", ConvertConfig, argv)).summary())


def data(argv: Sequence[str]) -> None:
    """Look at prepared data: `data stats` for numbers and plots, `data show` for pictures."""
    from pipeline.data.browse.show import ShowConfig, show
    from pipeline.data.browse.stats import StatsConfig, stats

    config = _subcommand("data", {"stats": StatsConfig, "show": ShowConfig}, argv)
    if isinstance(config, ShowConfig):
        show(config)
    else:
        print(stats(config).summary())


def train_panoptic(argv: Sequence[str]) -> None:
    """Train on prepared Panoptic-like data (15 joints), with COCO beside it if given."""
    from pipeline.training.fit import fit
    from pipeline.training.presets import panoptic_presets

    print(fit(_choose("train-panoptic", panoptic_presets(), argv)).summary())


def train_mupots(argv: Sequence[str]) -> None:
    """Train on prepared MuCo / MuPoTS data (21 joints), with COCO beside it if given."""
    from pipeline.training.fit import fit
    from pipeline.training.presets import mupots_presets

    print(fit(_choose("train-mupots", mupots_presets(), argv)).summary())


def evaluate(argv: Sequence[str]) -> None:
    """Score a model (folder or registry URI), or predictions, on prepared data under every protocol."""
    from pipeline.evaluation.evaluate import EvaluateConfig
    from pipeline.evaluation.rescore import judge

    print(judge(_parse("evaluate", EvaluateConfig, argv)).summary())


def promote(argv: Sequence[str]) -> None:
    """Register a checkpoint and make it champion if it passes the gate; exit status 1 and the reasons if not."""
    from pipeline.registry.promote import PromoteConfig, promote

    result = promote(_parse("promote", PromoteConfig, argv))
    print(result.summary())
    if not result.champion:
        sys.exit(1)


def registry(argv: Sequence[str]) -> None:
    """Show a registered model's history or how two versions differ; roll back its champion; print its gate."""
    from pipeline.registry.queries import RegistryConfig, ask

    print(ask(_parse("registry", RegistryConfig, argv)))


def predict(argv: Sequence[str]) -> None:
    """Draw the 3D poses of the people on photos with a trained or promoted model."""
    from pipeline.predict.predict import PredictConfig, predict

    predict(_parse("predict", PredictConfig, argv))


def sweep(argv: Sequence[str]) -> None:
    """Sweep loss weights and update layers with Ray Tune; a trial is a training."""
    from pipeline.training.sweep import sweep, sweep_presets

    print(sweep(_choose("sweep", sweep_presets(), argv)).summary())


def benchmark(argv: Sequence[str]) -> None:
    """Time a model on a CPU, a GPU or both: latency, throughput, memory, stages, size; all into MLflow."""
    from pipeline.evaluation.benchmark.benchmark import BenchmarkConfig, benchmark

    print(benchmark(_parse("benchmark", BenchmarkConfig, argv)).summary())


def demo(argv: Sequence[str]) -> None:
    """The whole way on rendered data: render, prepare, train, evaluate, promote, predict."""
    from pipeline.demo import DemoConfig, demo

    demo(_parse("demo", DemoConfig, argv))


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    f.__name__.replace("_", "-"): f
    for f in (
        render,
        doctor,
        prepare,
        data,
        train_panoptic,
        train_mupots,
        evaluate,
        promote,
        registry,
        predict,
        sweep,
        benchmark,
        demo,
    )
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = (f"  {name:<{width}}  {(f.__doc__ or '').strip()}" for name, f in COMMANDS.items())
    return "\n".join(("usage: das COMMAND [OPTIONS]   (das COMMAND --help lists its options)", "", *rows))


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
    return " ".join(str(error).split())


def _refuse(message: str) -> int:
    print(f"das: {message}", file=sys.stderr)
    return 2

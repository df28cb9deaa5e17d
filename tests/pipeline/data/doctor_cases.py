"""What `das doctor data` reports, and what the source reads from the same folder."""

import shlex
from pathlib import Path

from pipeline.data.catalog import CATALOG
from pipeline.data.doctor import DoctorConfig, doctor
from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.convert import plan_conversion
from pipeline.data.record import Record
from pipeline.infra.flags import choose_command, parse


def report_on(capsys, root, **options) -> tuple[int, str]:
    """Exit status and report."""
    status = doctor(DoctorConfig(str(root), **options))
    return status, capsys.readouterr().out


def next_command(report: str) -> list[str]:
    """The words after the last `next:`, split as a shell does."""
    line = [line for line in report.splitlines() if line.startswith("next: ")][-1]
    return shlex.split(line.removeprefix("next: "), comments=True)


def parsed(report: str) -> ConvertConfig | DoctorConfig:
    """The next command, parsed by `das`; a `das prepare` must also find chunks to convert."""
    das, command, *words = next_command(report)
    assert das == "das"
    if command == "doctor":
        return choose_command("das doctor", {"data": DoctorConfig}, words)
    assert command == "prepare"
    config = parse("das prepare", ConvertConfig, words)
    plan = plan_conversion(config)
    chunks = [chunk for task in plan.tasks for chunk in task.chunks]
    assert chunks and {chunk.sequence for chunk in chunks} <= {part.sequence for part in plan.splits.parts}
    return config


def readable(source: str, root: Path) -> int:
    """How many records the source reads from it."""
    reader = CATALOG[source].source
    chunks = [chunk for split in ("train", "val", "test") for chunk in reader.chunks(root, split)]
    return sum(isinstance(item, Record) for chunk in chunks for item in reader.records(chunk))

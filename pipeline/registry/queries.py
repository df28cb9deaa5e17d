"""Questions to the registry, and the way back: who is champion and why, how two versions differ, rollback."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from pipeline.evaluation.annotations import read_annotations
from pipeline.infra.cluster import ClusterConfig
from pipeline.infra.configs import flat
from pipeline.models import resolve_model
from pipeline.registry import versions
from pipeline.registry.champion_lock import champion_lock
from pipeline.registry.gate import difference_in_words, gate_for, paired_differences
from pipeline.registry.gate_inputs import evidence_of
from pipeline.registry.models_store import champion_version
from pipeline.registry.promote import ModelName
from pipeline.registry.versions import Version


@dataclass(frozen=True)
class History:
    """All versions with their scores and verdicts, and every change of champion."""

    name: tyro.conf.Positional[ModelName]
    """Registered model."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where the registry is: storage and tracking_uri count."""


@dataclass(frozen=True)
class Diff:
    """What differs between two versions: settings, data, code and, image by image, their scores."""

    name: tyro.conf.Positional[ModelName]
    """Registered model."""
    first: tyro.conf.Positional[str]
    """Number of a version, or an alias such as champion."""
    second: tyro.conf.Positional[str]
    """Another one."""
    data: tuple[str, ...] = ()
    """Prepared folders of their evaluations, where they have moved since."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where the registry is: storage and tracking_uri count."""


@dataclass(frozen=True)
class Rollback:
    """Make the version before the champion, or another former one, champion again."""

    name: tyro.conf.Positional[ModelName]
    """Registered model."""
    to: int | None = None
    """A version that has been champion before; by default the one that the champion replaced."""
    reason: str = "not given"
    """Why, for the history."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Where the registry is: storage and tracking_uri count."""


@dataclass(frozen=True)
class DefaultGate:
    """Print the default gate of a registered model as JSON, to be changed and given to `das promote --gate FILE`."""

    name: tyro.conf.Positional[ModelName]
    """Registered model."""


@dataclass(frozen=True)
class RegistryConfig:
    """A question to the registry, or the way back."""

    ask: tyro.conf.OmitSubcommandPrefixes[
        History | Diff | Rollback | Annotated[DefaultGate, tyro.conf.subcommand("gate")]
    ]
    """What to do."""


def ask(config: RegistryConfig) -> str:
    """The answer, for the terminal.

    Raises:
        ValueError: a model, version or alias that does not exist, a rollback that leads nowhere, or one to files that
            are not those that were registered; nothing has moved then.
    """
    question = config.ask
    if isinstance(question, History):
        return history(question)
    if isinstance(question, Diff):
        return diff(question)
    if isinstance(question, Rollback):
        return rollback(question)
    return json.dumps(gate_for(question.name).to_json(), indent=1)


# ---- history ----


def history(config: History) -> str:
    """Versions, the newest first, each with the last verdict on it, and the changes of champion."""
    _, tracking_uri = config.cluster.locations()
    found = versions.read_versions(tracking_uri, config.name)
    held = {alias: version.number for version in found for alias in version.aliases}
    lines = [f"{config.name}: {', '.join(f'{a} is version {n}' for a, n in sorted(held.items())) or 'no champion yet'}"]
    for version in reversed(found):
        mark = f" ({', '.join(version.aliases)})" if version.aliases else ""
        lines.append(
            f"version {version.number}{mark}, trained by run {version.run_id}, {version.tags['das.code_version']}"
        )
        if version.scores is not None:
            s = version.scores
            lines.append(f"  {s.split}: MPJPE {s.mpjpe_mm:.1f} mm, recall {s.recall:.3f}, precision {s.precision:.3f}")
        lines.append(f"  {version.judged} {version.verdict}" if version.verdict else "  never judged")
    moves = versions.read_moves(tracking_uri, config.name)
    lines += ["changes of champion:" if moves else "no champion so far"]
    for move in moves:
        before = "nobody" if move.before is None else str(move.before)
        lines.append(f"  {move.time}  {before} -> {move.after}  {move.why}")
    return "\n".join(lines)


# ---- diff ----


def diff(config: Diff) -> str:
    """What differs, a line each; then the scores, and how sure their difference is where the data can be read."""
    _, tracking_uri = config.cluster.locations()
    pair = [versions.read_version(tracking_uri, config.name, which) for which in (config.first, config.second)]
    first, second = (_described(version) for version in pair)
    lines = [f"{config.name} version {pair[0].number} -> version {pair[1].number}"]
    for name in sorted(first | second):
        a, b = first.get(name, "-"), second.get(name, "-")
        if a != b:
            lines.append(f"  {name}: {a} -> {b}")
    if len(lines) == 1:
        lines.append("  same settings, data and code")
    return "\n".join((*lines, *_scores(pair), *_paired(pair, config.data, tracking_uri)))


def _described(version: Version) -> dict[str, object]:
    """Settings, data and code of a version as flat names."""
    tags = version.tags
    described: dict[str, object] = {f"model.{k}": v for k, v in flat(json.loads(tags["das.config"])).items()}
    described |= {k.removeprefix("das."): v for k, v in tags.items() if k.startswith("das.data.")}
    described["code"], described["weights"] = tags["das.code_version"], tags["das.weights"]
    described["trained by run"] = version.run_id
    return described


def _scores(pair: list[Version]) -> list[str]:
    a, b = (version.scores for version in pair)
    if a is None or b is None:
        lacking = " and ".join(str(version.number) for version in pair if version.scores is None)
        return [f"  never scored: version {lacking}"]
    rows = (
        ("MPJPE mm", a.mpjpe_mm, b.mpjpe_mm),
        ("recall", a.recall, b.recall),
        ("precision", a.precision, b.precision),
    )
    where = a.split if a.split == b.split else f"{a.split} -> {b.split}"
    return [f"  on {where}: " + ", ".join(f"{name} {x:.4g} -> {y:.4g}" for name, x, y in rows)]


def _paired(pair: list[Version], data: tuple[str, ...], tracking_uri: str) -> list[str]:
    """The second less the first on the same images; one line that says why not, where that cannot be told."""
    folders = data or pair[1].data
    try:
        annotations = read_annotations(list(folders), "test")
        both = [evidence_of(annotations, versions.read_predictions(tracking_uri, version)) for version in pair]
    except ValueError as error:
        return [f"  image by image: not compared ({error})"]
    changes = paired_differences(both[1], both[0])
    lines = [f"  image by image, second less first, {len(annotations.records)} images:"]
    lines += [f"    {name}: {difference_in_words(change, name)}" for name, change in changes.items()]
    for kind, slices in both[1].slices.items():
        moved = []
        for name, here in slices.items():
            change = (
                here.metrics["mpjpe_with_misses"].value - both[0].slices[kind][name].metrics["mpjpe_with_misses"].value
            )
            if not math.isnan(change):
                moved.append((change, name))
        shown = ", ".join(f"{name} {change:+.1f}" for change, name in sorted(moved))
        lines.append(f"    mpjpe_with_misses by {kind}, mm: {shown}")
    return lines


# ---- rollback ----


def rollback(config: Rollback) -> str:
    """Moves the champion back, in its turn, after the version's files were found to be those that were registered."""
    _, tracking_uri = config.cluster.locations()
    name = config.name
    champion = champion_version(tracking_uri, name)
    if champion is None:
        raise ValueError(f"{name} has no champion, so nothing to roll back")
    holder = versions.read_version(tracking_uri, name, champion)
    with champion_lock(tracking_uri, name, holder.source, holder.run_id) as mine:
        now = champion_version(tracking_uri, name)
        if now != champion:
            raise ValueError(
                f"the champion of {name} became version {now} meanwhile; look at `das registry history` first"
            )
        target = config.to if config.to is not None else holder.replaced
        if target is None:
            raise ValueError(f"version {champion} of {name} replaced nobody, wanted --to VERSION of a former champion")
        if target == champion:
            raise ValueError(f"version {champion} of {name} is the champion already")
        version = versions.read_version(tracking_uri, name, target)
        if not version.was_champion:
            former = [v.number for v in versions.read_versions(tracking_uri, name) if v.was_champion]
            raise ValueError(f"version {target} of {name} was never champion, wanted one of {former}")
        resolve_model(f"models:/{name}/{target}", tracking_uri)  # its files, or a ValueError
        versions.crown(tracking_uri, version, champion, mine, f"rollback: {config.reason}", replaces=False)
    return f"{name}: champion is version {target} again, instead of version {champion}"

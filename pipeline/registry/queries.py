"""`das registry`: the history of a registered model, the difference of two versions, rollback, the default gate."""

from __future__ import annotations

import json
import math

from pipeline.evaluation.annotations import read_annotations
from pipeline.infra.configs import flat
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.registry.champion_lock import champion_lock
from pipeline.registry.config import Diff, History, RegistryConfig, Rollback
from pipeline.registry.gate import difference_in_words, paired_differences
from pipeline.registry.gate_inputs import evidence_of
from pipeline.registry.registered_model import RegisteredModel
from pipeline.registry.tasks import default_gate
from pipeline.registry.versions import Version


def run_command(config: RegistryConfig) -> str:
    """Carries out a command and returns its output for the terminal.

    Raises:
        ValueError: a model, version or alias that does not exist, or a rollback without a former champion or to files
            that are not those that were registered; nothing has changed then.
    """
    command = config.command
    if isinstance(command, History):
        return history(command)
    if isinstance(command, Diff):
        return diff(command)
    if isinstance(command, Rollback):
        return rollback(command)
    return json.dumps(default_gate(command.name).to_json(), indent=1)


def _model(config: History | Diff | Rollback) -> RegisteredModel:
    _, tracking_uri = config.cluster.locations()
    return RegisteredModel(MlflowStore(tracking_uri), config.name)


# ---- history ----


def history(config: History) -> str:
    """Versions, the newest first, each with its last verdict, and the changes of champion, the oldest first."""
    model = _model(config)
    found = model.versions()
    aliases = sorted((alias, version.number) for version in found for alias in version.aliases)
    lines = [f"{config.name}: {', '.join(f'{alias} is version {n}' for alias, n in aliases) or 'no champion yet'}"]
    for version in reversed(found):
        mark = f" ({', '.join(version.aliases)})" if version.aliases else ""
        lines.append(
            f"version {version.number}{mark}, trained by run {version.run_id}, {version.tags['das.code_version']}"
        )
        if version.scores is not None:
            s = version.scores
            lines.append(f"  {s.split}: MPJPE {s.mpjpe_mm:.1f} mm, recall {s.recall:.3f}, precision {s.precision:.3f}")
        lines.append(f"  {version.verdict_time} {version.verdict}" if version.verdict else "  no verdict yet")
    changes = model.champion_changes()
    lines += ["changes of champion:" if changes else "no champion so far"]
    for change in changes:
        before = "none" if change.before is None else str(change.before)
        lines.append(f"  {change.time}  {before} -> {change.after}  {change.why}")
    return "\n".join(lines)


# ---- diff ----


def diff(config: Diff) -> str:
    """What differs, a line each; then the scores and, where the data can be read, their paired differences."""
    model = _model(config)
    pair = [model.version(which) for which in (config.first, config.second)]
    first, second = (_properties(version) for version in pair)
    lines = [f"{config.name} version {pair[0].number} -> version {pair[1].number}"]
    for name in sorted(first | second):
        a, b = first.get(name, "-"), second.get(name, "-")
        if a != b:
            lines.append(f"  {name}: {a} -> {b}")
    if len(lines) == 1:
        lines.append("  same settings, data and code")
    return "\n".join((*lines, *_scores(pair), *_paired(pair, config.data)))


def _properties(version: Version) -> dict[str, object]:
    """Settings, data and code of a version by dotted name."""
    tags = version.tags
    properties: dict[str, object] = {f"model.{k}": v for k, v in flat(json.loads(tags["das.config"])).items()}
    properties |= {k.removeprefix("das."): v for k, v in tags.items() if k.startswith("das.data.")}
    properties["code"], properties["weights"] = tags["das.code_version"], tags["das.weights"]
    properties["trained by run"] = version.run_id
    return properties


def _scores(pair: list[Version]) -> list[str]:
    a, b = (version.scores for version in pair)
    if a is None or b is None:
        lacking = " and ".join(str(version.number) for version in pair if version.scores is None)
        return [f"  never scored: version {lacking}"]
    rows = (
        ("MPJPE mm", a.mpjpe_mm, b.mpjpe_mm),
        ("recall", a.recall, b.recall),
        ("precision", a.precision, b.precision),
        ("f1", a.f1, b.f1),
    )
    where = a.split if a.split == b.split else f"{a.split} -> {b.split}"
    return [f"  on {where}: " + ", ".join(f"{name} {x:.4g} -> {y:.4g}" for name, x, y in rows)]


def _paired(pair: list[Version], data: tuple[str, ...]) -> list[str]:
    """The second version's metrics minus the first's on the same images; one line with the reason where impossible."""
    try:
        annotations = read_annotations(list(data or pair[1].data), "test")
        first, second = (evidence_of(annotations, version.predictions()) for version in pair)
    except ValueError as error:
        return [f"  image by image: not compared ({error})"]
    changes = paired_differences(second, first)
    lines = [f"  image by image, second minus first, {len(annotations.index)} images:"]
    lines += [f"    {name}: {difference_in_words(change, name)}" for name, change in changes.items()]
    metric = "mpjpe_with_misses"
    for kind, subsets in second.slices.items():
        differences = []
        for name, subset in subsets.items():
            difference = subset.metrics[metric].value - first.slices[kind][name].metrics[metric].value
            if not math.isnan(difference):
                differences.append((difference, name))
        shown = ", ".join(f"{name} {difference:+.1f}" for difference, name in sorted(differences))
        lines.append(f"    {metric} by {kind}, mm: {shown}")
    return lines


# ---- rollback ----


def rollback(config: Rollback) -> str:
    """Makes a former champion the champion again, under the lock, if its files are still the registered ones.

    Raises:
        ValueError: no champion, no former champion, or changed files; the alias has not moved.
    """
    model, name = _model(config), config.name
    number = model.champion()
    if number is None:
        raise ValueError(f"{name} has no champion, so nothing to roll back")
    champion = model.version(number)
    with champion_lock(model.store, name, champion.source, champion.run_id) as lock:
        now = model.champion()
        if now != number:
            raise ValueError(
                f"the champion of {name} became version {now} meanwhile; look at `das registry history` first"
            )
        target = config.to if config.to is not None else champion.replaced
        if target is None:
            raise ValueError(
                f"version {number} of {name} replaced no champion, wanted --to VERSION of a former champion"
            )
        if target == number:
            raise ValueError(f"version {number} of {name} is the champion already")
        version = model.version(target)
        if not version.was_champion:
            former = [v.number for v in model.versions() if v.was_champion]
            raise ValueError(f"version {target} of {name} was never champion, wanted one of {former}")
        version.files()  # ValueError where they are not those that were registered
        model.set_champion(target, number, lock, f"rollback: {config.reason}", replaces=False)
    return f"{name}: champion is version {target} again, instead of version {number}"

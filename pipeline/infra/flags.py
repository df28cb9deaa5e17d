"""From the words of a command line to a dataclass of settings; every mistake is a ValueError of one line.

The line names the option as it is typed, the value found and the value wanted, and what may have been meant. Tyro says
what is wrong in an event before it draws a box round it; the events are not a part of its stable interface, so a kind
that is not known here ends in the words of the box.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, Final, TypeVar

import tyro
from tyro import _errors as events

Config = TypeVar("Config")

_WORDS: Final = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "STR": "a value",
    "PATH": "a path",
    "N|MIN:MAX": "a whole number or MIN:MAX",
}
_HELP: Final = ("-h", "--help")


class _Refused(ValueError):
    """A mistake in the flags, found by tyro and said in our words."""


def parse(prog: str, config: type[Config], argv: Sequence[str], default: Config | None = None) -> Config:
    """The settings that the options ask for.

    Args:
        prog: the command as it is typed, such as "das prepare".
        config: dataclass whose fields are the options.
        argv: the words behind the command.
        default: settings from which the options depart; by default those of the dataclass.

    Raises:
        ValueError: a mistake in the options, or one that the dataclass refuses.
        SystemExit: with status 0, after printing the help that was asked for.
    """
    more: dict[str, Any] = {} if default is None else {"default": default}

    def run(words: Sequence[str]) -> Any:
        return tyro.cli(config, prog=prog, args=_renamed(words), config=(tyro.conf.AvoidSubcommands,), **more)

    with _in_one_line(prog, run):
        return run(argv)


def choose_preset(
    prog: str,
    presets: Mapping[str, tuple[str, Config]],
    argv: Sequence[str],
    default: tuple[str, str] | None,
    hint: str,
) -> Config:
    """A preset by its name, every field of it open to change by an option.

    Args:
        prog: the command as it is typed.
        presets: name -> (description, settings).
        argv: the words behind the command.
        default: name of the preset that is taken if the words have none, and where that name was given.
        hint: end of the message that no preset was given.

    Raises:
        ValueError: as ``parse``; an unknown preset or none.
        SystemExit: as ``parse``.
    """
    if argv and argv[0] in _HELP:
        tyro.extras.overridable_config_cli(dict(presets), prog=prog, args=argv)
    if default is not None and (not argv or argv[0].startswith("-")):
        name, source = default
        if name not in presets:
            raise ValueError(
                f"{source}: preset = {name!r}, wanted one of {', '.join(presets)}{did_you_mean(name, presets)}"
            )
        options = argv
    else:
        name, options = _first(prog, presets, argv, hint), argv[1:]
    settings = presets[name][1]
    return parse(f"{prog} {name}", type(settings), options, settings)


def choose_command(prog: str, configs: Mapping[str, type], argv: Sequence[str], **defaults: Any) -> Any:
    """The settings of one of a command's own commands, such as `das data show`; ``defaults`` by its name."""
    if argv and argv[0] in _HELP:
        commands: dict[str, Callable[..., Any]] = dict(configs)
        tyro.extras.subcommand_cli_from_dict(commands, prog=prog, args=argv)
    name = _first(prog, configs, argv)
    return parse(f"{prog} {name}", configs[name], argv[1:], defaults.get(name))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """End of a message: the known word that is most like this one; empty without such a word.

    A word that is made of the initials of the other's comes first: --optim.lr for --optim.learning-rate.
    """
    words = list(known)
    near = [name for name in words if _abbreviates(name, word) or _abbreviates(word, name)]
    near += difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _abbreviates(short: str, long: str) -> bool:
    """Whether the last part of a name is made of the initials of the other's words; groups may be left out."""
    (group, _, letters), (other, _, words) = (name.lstrip("-").rpartition(".") for name in (short, long))
    parts = words.split("-")
    return (
        (group == other or not (group and other)) and len(parts) > 1 and letters == "".join(part[:1] for part in parts)
    )


def _first(prog: str, known: Iterable[str], argv: Sequence[str], hint: str = "") -> str:
    """The first word, which must be one of the known ones; ``hint`` ends the message that there is none."""
    wanted = f"wanted {prog} followed by {'one of ' if len(list(known)) > 1 else ''}{', '.join(known)}"
    if not argv or argv[0].startswith("-"):
        raise ValueError(wanted + (f" before {argv[0]}" if argv else "") + hint)
    if argv[0] not in known:
        raise ValueError(f"unknown {argv[0]!r}, {wanted}{did_you_mean(argv[0], known)}")
    return argv[0]


def _renamed(argv: Sequence[str]) -> list[str]:
    """The words with older spellings of the device as --device: --gpu, --no-gpu and --devices."""
    words: list[str] = []
    for word in argv:
        old = re.fullmatch(r"--((?:train\.)?)(no-)?gpu", word)
        words += (
            [f"--{old[1]}device", "cpu" if old[2] else "cuda"] if old else [re.sub("^--devices\\b", "--device", word)]
        )
    return words


@contextmanager
def _in_one_line(prog: str, run: Callable[[Sequence[str]], Any]) -> Iterator[None]:
    def refuse(event: events.ParseErrorEvent) -> None:
        line = _line(event, lambda: _options(run))
        if line is not None:
            own = isinstance(event, events.InstantiationFailure) and event.argument is None
            raise _Refused(line if own else f"{line} ({prog} --help)")

    drawn = io.StringIO()
    try:
        with redirect_stderr(drawn), events.on_parse_error(refuse):
            yield
    except SystemExit as end:
        if end.code != 2:
            raise
        # Title, message, further parts; in a pipe the box is drawn with - and |.
        lines = [line.strip("│| ") for line in drawn.getvalue().splitlines()[1:-1]]
        parts = (part.strip(" .") for part in re.split(r"[─-]{5,}", " ".join(lines)))
        raise ValueError(". ".join(part for part in parts if part and not part.startswith("Argument"))) from None


def _line(event: events.ParseErrorEvent, options: Callable[[], list[str]]) -> str | None:
    """What is wrong, in one line; None for a kind of mistake that is not known here."""
    if isinstance(event, events.MissingArgs):
        if event.unrecognized_tokens:  # probably the missing one, misspelt
            return _unknown(event.unrecognized_tokens, options())
        missing = [_name(found.arg) for found in event.missing_arguments]
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} required"
    if isinstance(event, events.UnrecognizedArgs):
        return _unknown(event.tokens, options())
    if isinstance(event, events.InvalidChoice):
        near = did_you_mean(event.value, event.choices)
        return f"{_name(event.argument)} = {event.value!r}, wanted one of {', '.join(event.choices)}{near}"
    if isinstance(event, events.BadValue) and event.reason == "too_few_values":
        return f"{_name(event.argument)} has no value, wanted {_wanted(event.argument)}"
    if isinstance(event, events.InstantiationFailure):
        if event.argument is None:
            return event.message
        found = re.search(r"from \[(.*?)\]", event.message) or re.search(r": ('.*')$", event.message)
        value = f" = {found[1]}" if found else ""
        return f"{_name(event.argument)}{value}, wanted {_wanted(event.argument)}"
    return None


def _unknown(words: Sequence[str], options: Sequence[str]) -> str:
    """The first word that is neither an option nor a value of one, and the option that is most like it."""
    name = next((word for word in words if word.startswith("--")), None)
    if name is None:
        return f"unexpected {' '.join(words)!r}, wanted options only, each with -- and its value"
    name = name.partition("=")[0]
    return f"unknown option {name}{did_you_mean(name.replace('_', '-'), options)}"


def _options(run: Callable[[Sequence[str]], Any]) -> list[str]:
    """All options of a command, read from its help."""
    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):
        run(["--help"])
    lines = (line.strip("│| ") for line in text.getvalue().splitlines())
    return [option for line in lines if line.startswith("-") for option in re.findall(r"--[a-z][\w.-]*", line)]


def _name(argument: Any) -> str:
    """An option as it is typed, --out; a positional argument by its word in the help, ROOT, or by its field's name."""
    if not argument.is_positional():
        return argument.display_name().split("/")[0]
    word = (argument.lowered.metavar or "").split(" ")[0]
    return argument.field.intern_name.upper() if word in ("", *_WORDS) or word.startswith("{") else word


def _wanted(argument: Any) -> str:
    kind = (argument.lowered.metavar or "").replace("{None}|", "")
    return _WORDS.get(kind, kind)

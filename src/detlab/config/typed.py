"""Overrides as typed by the user: parsed by Hydra's grammar; one that cannot be parsed is refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from detlab.config.catalogue import group_comments, group_options
from detlab.config.places import groups
from detlab.errors import ConfigError

MODEL_PARTS = {  # keys under model that are groups, wherever they stand
    "backbone",
    "neck",
    "anchors",
    "matcher",
    "sampler",
    "coder",
    "cls_loss",
    "obj_loss",
    "box_loss",
    "head",
    "proposals",
    "arm",
    "pool",
    "detect",
    "criterion",
}

NO_NAMES = ("null", "true", "false")  # words that name no option
LONGEST = 20_000  # characters of an override; Hydra's parser reads some 1,000 a second, several times


def read_override(text: str) -> Override:
    """Parse an override with Hydra's grammar.

    Raises:
        ConfigError: it cannot be parsed; the message shows the right form.
    """
    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, ValueError) as error:
        raise ConfigError(unreadable(text)) from error


def check_overrides(overrides: Iterable[str], command: str = "train") -> None:
    """Refuse overrides that Hydra cannot parse, a group without the name of an option, and a dot in place of a slash.

    model.box_loss=giou would overwrite the whole group with text; model/box_loss=giou chooses an option.

    Args:
        overrides: as typed by the user.
        command: chooses some of the groups; Hydra refuses the others.

    Raises:
        ConfigError: the message shows the right form.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        if len(override) > LONGEST:
            raise ConfigError(
                f"{key[:100]} is given {len(override):,} characters, and Hydra would take minutes to read more than "
                f"{LONGEST:,}; write the value into an option of your own, --config-dir=FOLDER."
            )
        _check_group(read_override(override), command)
        if not key.strip("+~"):
            raise ConfigError(unreadable(override))
        parts = key.lstrip("+~").split(".")
        is_group = len(parts) > 1 and parts[0] == "model" and parts[-1] in MODEL_PARTS
        if not is_group or not value or value.startswith("{") or "@" in key or "/" in key:
            continue
        group = f"model/{parts[-1]}"
        slash = group if len(parts) == 2 else f"{group}@{'.'.join(parts)}"
        options = group_options().get(group, ())
        if options and (not value.isidentifier() or value in NO_NAMES):
            raise ConfigError(f"{key}={value} would overwrite a whole group; use {slash}=OPTION, {_listed(options)}.")
        raise ConfigError(f"{key}={value} would overwrite a whole group by a word; use {slash}={value}.")


def _check_group(override: Override, command: str) -> None:
    """Refuse null, a number, a boolean or an empty list as the option of a group, such as debug=true.

    Raises:
        ConfigError: the message lists the options.
    """
    group = str(override.key_or_group)
    if override.is_sweep_override() or override.is_delete() or group not in groups():
        return
    value = override.value()
    if isinstance(value, str | dict) or (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
        return
    if "/" not in group and group not in group_comments(command):
        raise ConfigError(f"detlab {command} chooses no {group}; {unchosen(group, command)}.")
    options = group_options().get(group, ())
    raise ConfigError(f"{override.input_line} names no option of the group {group}; use {_listed(options)}.")


def unchosen(group: str, command: str) -> str:
    """What to write in place of a group that a command does not choose."""
    if command == "evaluate" and group in ("data", "trainer"):
        own = " of the run's own" if group == "data" else ""
        return f"change single keys{own}, {group}.KEY=VALUE"
    return f"add it with a plus, +{group}=CHOICE" if command in ("train", "check") else "leave it out"


def _listed(options: Sequence[str]) -> str:
    return f"one of {', '.join(options)}" if len(options) > 1 else "".join(options)


def check_once(overrides: Iterable[str]) -> None:
    """Refuse a key that is given two values, where Hydra would use the last value.

    A shell's brace expansion turns data.limit={train:8,val:4} into two arguments.

    Raises:
        ConfigError: the message names both.
    """
    given: dict[str, str] = {}
    for text in overrides:
        key = text.partition("=")[0]
        if given.get(key, text) != text and not key.startswith("hydra"):
            split = all(":" in word.partition("=")[2] for word in (given[key], text))
            hint = (
                f"a shell has made two of braces: put the whole argument in quotes, '{key}={{...}}'"
                if split
                else "leave one of the two out"
            )
            raise ConfigError(f"{key} is given twice, {given[key]} and {text}; {hint}.")
        given[key] = text


def swept(overrides: Sequence[str]) -> str:
    """The first override with several values; empty if there is none."""
    for text in overrides:
        try:
            if OverridesParser.create().parse_override(text).is_sweep_override():
                return text
        except HydraException:
            continue
    return ""


def unreadable(text: str) -> str:
    """The message for an argument that Hydra cannot parse, with what to write instead."""
    key, equals, value = text.partition("=")
    if not equals:
        if text.strip(",").endswith("}") or text.endswith((":", "]")) or text.endswith(","):
            return (
                f"{text} is not KEY=VALUE; a shell splits braces and lists at blanks: put the whole argument in "
                f"quotes, such as 'data.limit={{train: 8, val: 4}}'."
            )
        return f"{text} is not KEY=VALUE; write an option and its value with = between them, such as model=retinanet."
    if value.count("{") != value.count("}") or value.count("[") != value.count("]"):
        return (
            f"{text} ends within a bracket; a shell splits braces and lists at blanks: put the whole argument in "
            f"quotes, such as 'data.limit={{train: 8, val: 4}}'."
        )
    if not key.strip("+~"):
        return f"{text} cannot be read: it has no option before its =; write OPTION=VALUE, such as seed=1."
    quoted = f"{key}=" + '"' + value.strip("\"'").replace('"', '\\"') + '"'
    try:
        OverridesParser.create().parse_override(quoted)
    except (HydraException, ValueError):
        return f"{text} cannot be read: {key!r} is not the name of an option; names are letters, digits, _ and dots."
    return f"{text} cannot be read: its value needs quotes of its own; write '{quoted}'."

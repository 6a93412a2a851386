"""detlab options: the groups, their options, and every key with its default and what it does."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from detlab.config.catalogue import Key, Option, command_names, group_options, included, keys_of_command, read_option
from detlab.errors import ConfigError
from detlab.system.text import complain, write_lines

USAGE = "detlab options [GROUP | GROUP=OPTION | markdown]"
ORDER = (
    "model",
    "data",
    "augment",
    "optim",
    "lr_schedule",
    "trainer",
    "training",
    "callbacks",
    "logger",
    "metrics",
    "tta",
)
INTRODUCTION = """# Options

Every group of `conf/`, its options, and their keys with defaults. `GROUP=OPTION` swaps a part, `KEY=VALUE` sets a
value. `detlab options GROUP=OPTION` prints one of these entries. Written by `detlab options markdown`.
"""


def main() -> None:
    """Print what was asked for."""
    words = sys.argv[1:]
    try:
        if len(words) > 1:
            raise ConfigError(f"detlab options takes one argument, not {len(words)}; use {USAGE}.")
        write_lines(answer(words[0] if words else ""))
    except ConfigError as error:
        complain(error)
        sys.exit(2)


def answer(word: str) -> Iterator[str]:
    """Lines for one argument of the command.

    Raises:
        ConfigError: no such group or option.
    """
    if word in ("-h", "--help"):
        yield USAGE
    elif not word:
        yield from _all()
    elif word == "markdown":
        yield from _markdown()
    elif "=" in word:
        group, _, name = word.partition("=")
        yield from _entry(read_option(group.split("@")[0].lstrip("/"), name))
    else:
        group = word.split("@")[0].strip("/")
        known = group_options()
        if group not in known:
            read_option(group, "")  # raises with the nearest name
        yield f"{group}: {len(known[group])} options; detlab options {group}=NAME lists the keys of one"
        yield from _listed(group)
        for inner in (name for name in known if name.startswith(f"{group}/")):
            yield f"  see also {inner}: {' | '.join(known[inner])}"


def _groups() -> list[str]:
    def place(group: str) -> tuple[int, str]:
        first = group.partition("/")[0]
        return (ORDER.index(first) if first in ORDER else len(ORDER), group)

    return sorted(group_options(), key=place)


def _all() -> Iterator[str]:
    yield "GROUP=OPTION swaps a part; detlab options GROUP=OPTION lists its keys."
    for group in _groups():
        yield ""
        yield group
        yield from _listed(group)


def _listed(group: str) -> Iterator[str]:
    names = group_options()[group]
    width = max(len(name) for name in names)
    for name in names:
        yield f"  {name:{width}}  {read_option(group, name).summary}".rstrip()


def _entry(option: Option) -> Iterator[str]:
    yield f"{option.group}={option.name}"
    yield from (f"  {line}" for line in option.comments)
    if option.target:
        yield f"  builds {option.target}"
    for group, chosen in option.chosen.items():
        yield f"  chooses {group}={chosen}"
    prefix = f"{option.package}." if option.package else ""
    rows = [(f"{prefix}{key.name}={key.value}", key.comment) for key in option.keys]
    width = min(max((len(left) for left, _ in rows), default=0), 60)
    for left, comment in rows:
        yield f"  {left:{width}}  {'# ' + comment if comment else ''}".rstrip()


def _markdown() -> Iterator[str]:
    yield from INTRODUCTION.splitlines()
    for command in command_names():
        yield from ("", f"## detlab {command}", "")
        yield from (f"{line}  " for line in read_option("", command).comments)
        yield from (f"\nAnd every group and key of `detlab {other}`." for other in included(command))
        yield from _table("", keys_of_command(command))
    for group in _groups():
        yield from ("", f"## {group}")
        for name in group_options()[group]:
            option = read_option(group, name)
            yield from ("", f"### {group}={name}", "")
            yield from (f"{_text(line)}  " for line in option.comments)
            chosen = ", ".join(f"`{g}={o}`" for g, o in option.chosen.items())
            if chosen:
                yield f"Chooses {chosen}."
            yield from _table(f"{option.package}." if option.package else "", option.keys)


def _table(prefix: str, keys: tuple[Key, ...]) -> Iterator[str]:
    if keys:
        yield from ("", "| key | default | |", "|---|---|---|")
        for key in keys:
            yield f"| `{prefix}{key.name}` | `{key.value}` | {_text(key.comment)} |".replace("``", "")


def _text(comment: str) -> str:
    """A comment as Markdown: no column ends at a bar, and no tag opens."""
    return comment.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    main()

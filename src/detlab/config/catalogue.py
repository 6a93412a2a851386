"""Groups, options and keys as the YAML files of conf/ and their comments describe them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from detlab.config.places import config_dir
from detlab.errors import ConfigError
from detlab.system.reading import load_yaml

SHARED = "common"  # a folder of YAML that options include; no choices of their own
HIDDEN = {"lean"}  # chosen by the budget and the model together, not by hand
GLOBAL = "_global_"


class Key(NamedTuple):
    """One value of an option."""

    name: str  # with the parents inside the option: limit.train
    value: str  # as written
    comment: str


class Option(NamedTuple):
    """One file of a group, or the config of a command."""

    group: str  # "" for a command
    name: str
    target: str  # the class that it builds; "" for none
    comments: tuple[str, ...]  # the lines above its first key
    chosen: dict[str, str]  # groups that it chooses, with the option
    keys: tuple[Key, ...]

    @property
    def summary(self) -> str:
        """Its first comment that is no command line."""
        return next((line for line in self.comments if not line.startswith(("detlab ", "make "))), "")

    @property
    def package(self) -> str:
        """Where its keys stand in the composed config, "" for the top."""
        return "" if not self.group or self.is_global else self.group.replace("/", ".")

    @property
    def is_global(self) -> bool:
        """Whether the option sets keys anywhere in the config."""
        return _is_global(_file(self.group, self.name).read_text(encoding="utf-8"))


@cache
def group_options() -> dict[str, tuple[str, ...]]:
    """The options of every group, both in alphabetical order."""
    root, found = config_dir(), dict[str, tuple[str, ...]]()
    for folder in sorted(path for path in root.rglob("*") if path.is_dir()):
        place = folder.relative_to(root)
        names = tuple(sorted(file.stem for file in folder.glob("*.yaml")))
        if names and SHARED not in place.parts and place.parts[0] not in HIDDEN:
            found[place.as_posix()] = names
    return found


@cache
def command_names() -> tuple[str, ...]:
    """Commands with a config of their own."""
    return tuple(sorted(file.stem for file in config_dir().glob("*.yaml")))


@cache
def read_option(group: str, name: str) -> Option:
    """An option with the keys of the files it includes; an option's own value and comment come before theirs.

    Raises:
        ConfigError: there is no such group or option.
    """
    known = group_options().get(group) if group else command_names()
    if known is None or name not in known:
        raise ConfigError(_unknown(group, name, known))
    file = _file(group, name)
    text = file.read_text(encoding="utf-8")
    head = []
    for line in text.splitlines():
        if line.startswith("#"):
            head.append(line.lstrip("#").strip())
        elif line.strip():
            break
    comments = tuple(line for line in head if not line.startswith("@package"))
    bases, chosen = _defaults(group, text)
    keys: dict[str, Key] = {}
    for base in bases:
        keys |= {key.name: key for key in _keys(base.read_text(encoding="utf-8"))}
    for key in _keys(text):
        inherited = keys.get(key.name)
        keys[key.name] = key if key.comment or inherited is None else key._replace(comment=inherited.comment)
    target = keys["_target_"].value if "_target_" in keys else ""
    shown = tuple(key for key in keys.values() if not key.name.rpartition(".")[2].startswith("_"))
    return Option(group, name, target, comments, chosen, shown)


@cache
def group_comments(command: str) -> dict[str, tuple[str, str]]:
    """The groups that a command chooses from: the option it begins with, and the comment beside it."""
    text = _file("", command).read_text(encoding="utf-8")
    found: dict[str, tuple[str, str]] = {}
    for group, option, comment in _choices(text):
        if not option:  # data, check and the like take what train takes
            found |= group_comments(group)
        elif group.split("@")[0] in group_options():
            found[group] = (option, comment)
    return found


def included(command: str) -> tuple[str, ...]:
    """The commands whose groups and keys a command takes, too."""
    return tuple(other for other, option in read_option("", command).chosen.items() if not option)


def keys_of_command(command: str) -> tuple[Key, ...]:
    """The keys that a command adds to those of the commands it includes."""
    return tuple(key for key in read_option("", command).keys if not key.name.startswith("hydra"))


def _unknown(group: str, name: str, known: tuple[str, ...] | None) -> str:
    import difflib

    if known is not None:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? They are" if near else "they are"
        return f"{group} has no option {name}; {hint} {', '.join(known)}."
    near = difflib.get_close_matches(group, group_options(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"There is no group {group}; {hint}detlab options lists the groups."


def _file(group: str, name: str) -> Path:
    return config_dir() / group / f"{name}.yaml"


def _is_global(text: str) -> bool:
    return any(line.startswith("# @package") and GLOBAL in line for line in text.splitlines()[:3])


def _defaults(group: str, text: str) -> tuple[list[Path], dict[str, str]]:
    """The files that an option includes, bases first, and the groups that it chooses."""
    content = load_yaml(text)
    entries = content.get("defaults", []) if isinstance(content, dict) else []
    folder, bases, chosen = config_dir() / group, list[Path](), dict[str, str]()
    for entry in entries:
        if isinstance(entry, str):
            if entry == "_self_":
                continue
            file = folder / f"{entry}.yaml"
            if not group:
                chosen[entry] = ""  # a command's config, included whole
                continue
        else:
            key, option = next(iter(entry.items()))
            place, _, package = str(key).removeprefix("override ").removeprefix("optional ").partition("@")
            if package != "_here_":
                chosen[str(key).removeprefix("override ").removeprefix("optional ").lstrip("/")] = str(option or "null")
                continue
            file = folder / place / f"{option}.yaml"
        bases += [*_defaults(_group_of(file), file.read_text(encoding="utf-8"))[0], file]
    return bases, chosen


def _group_of(file: Path) -> str:
    return file.parent.relative_to(config_dir()).as_posix()


def _choices(text: str) -> Iterator[tuple[str, str, str]]:
    """Group, option and comment of the lines of a defaults list."""
    inside = False
    for line in text.splitlines():
        if line.startswith("defaults:"):
            inside = True
        elif inside and line.lstrip().startswith("- "):
            entry, _, comment = line.strip()[2:].partition(" #")
            group, _, option = entry.partition(":")
            if entry.strip() != "_self_" and not group.startswith(("override", "optional")):
                yield group.strip(), option.strip(), comment.strip()
        elif inside and line[:1].isalpha():
            return


def _keys(text: str) -> Iterator[Key]:
    """Every key of a YAML text that holds a value, a list or a map written in one line."""
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        yield from _inside(root, "", text, lines)


def _inside(node: yaml.MappingNode, parent: str, text: str, lines: list[str]) -> Iterator[Key]:
    for key, value in node.value:
        name = f"{parent}{key.value}"
        if name == "defaults":
            continue
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _inside(value, f"{name}.", text, lines)
            continue
        written = " ".join(text[value.start_mark.index : value.end_mark.index].split())
        rest = lines[value.end_mark.line][value.end_mark.column :] if value.end_mark.line < len(lines) else ""
        comment = rest.partition("#")[2].strip() if rest.lstrip().startswith("#") else ""
        yield Key(name, written, comment)

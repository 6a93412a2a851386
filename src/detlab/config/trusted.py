"""Check a config from an untrusted file: it may build only what conf/ builds at the same place.

    place       key path of a node, with * for an index in a list, such as model.neck or augment.transforms.*
    table       {place: {target: its reserved keys}}, collected from the YAML files of conf/ and their defaults lists

A target that conf/ uses as a logger is therefore refused as a neck. The check imports nothing but the user's own
packages, and these only after every other target was found in the table.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from inspect import isclass, isroutine
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from detlab.config.compose import config_dir
from detlab.config.parts import object_of
from detlab.errors import ConfigError
from detlab.system.foreign import ForeignFileError, plain, read_yaml, walk
from detlab.system.reading import read_text

Table = Mapping[str, Mapping[str, Mapping[str, Any]]]
RESERVED = {"_args_", "_convert_", "_partial_", "_recursive_"}  # keys that Hydra interprets, besides _target_
HEADER = 512  # characters of a file in which Hydra looks for its package
COMMANDS = ("train", "evaluate", "predict")  # top configs whose defaults lists name the groups of a stored config
LIBRARIES = {
    "detlab",
    "hydra",
    "hydra_plugins",
    "lightning",
    "numpy",
    "omegaconf",
    "PIL",
    "rich",
    "torch",
    "torchmetrics",
    "torchvision",
    "wandb",
    "yaml",
    "matplotlib",
    "pytorch_lightning",
    "lightning_fabric",
    "tensorboard",
}


class Node(NamedTuple):
    """A mapping with `_target_` or another key that Hydra interprets."""

    place: str
    target: Any  # None without `_target_`
    reserved: dict[str, Any]


def checked_config(
    config: Any,
    trust: Sequence[str] | str = (),
    *,
    own: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
    interpolations: Collection[str] = (),
    name: str = "The config",
) -> dict[str, Any]:
    """Check that every target of an untrusted config is trusted at its place, and return a copy that may be built.

    Args:
        trust: the user's own packages, trusted at every place; or full names of single targets in libraries.
        own: the user's own composed configs; their targets are trusted at the places where they occur.
        interpolations: strings with `${` that are allowed; a stored config is resolved and has none.
        name: what the messages call the config.

    Raises:
        ConfigError: a target is not trusted; the message names it, its place and the option that would trust it.
    """
    packages = trusted_packages(trust)
    table = joined(shipped(), *map(table_of, [own] if isinstance(own, Mapping) else own))
    try:
        copy = plain(config, name)
        nodes = list(nodes_of(copy, name))
        strings = [(place, value) for place, value in walk(copy, name) if type(value) is str]
    except ForeignFileError as error:
        raise ConfigError(str(error)) from error
    if type(copy) is not dict:
        raise ConfigError(f"{name} is no map of keys.")
    for place, value in strings:
        if ("${" in value and value not in interpolations) or value == "???":
            where = ".".join(map(str, place))
            raise ConfigError(f"{name} holds {value[:80]!r} at {where}, where a resolved config has a value.")
    theirs = [node for node in nodes if not _named(node, table)]
    for node in theirs:
        if not _of_packages(node, packages):
            raise ConfigError(_refusal(node, table, name))
    for node in theirs:
        _check_home(node, name)
    return copy


def trusted_packages(trust: Sequence[str] | str) -> tuple[str, ...]:
    """Check the `trust` option: the user's own packages, or full names of single targets in libraries.

    Raises:
        ConfigError: an entry is not a name, is a whole library, or lies in Python's standard library.
    """
    names = [trust] if isinstance(trust, str) else list(trust)
    for name in names:
        parts = str(name).split(".")
        if not all(part.isidentifier() and not part.startswith("__") for part in parts):
            raise ConfigError(f"trust=[{name}] is no name of a package; write trust=[my_package].")
        if parts[0] in sys.stdlib_module_names:
            raise ConfigError(
                f"trust=[{name}] is Python's own and would run anything; trust packages of your own only."
            )
        if parts[0] in LIBRARIES and (len(parts) == 1 or parts[-1][0].islower()):
            raise ConfigError(
                f"trust=[{name}] would open a library; name the one class that you mean in full, such as "
                f"trust=[torch.nn.Identity]."
            )
    return tuple(map(str, names))


def nodes_of(config: Any, name: str = "The config") -> Iterator[Node]:
    """All mappings of a config with `_target_` or another key of the form `_name_`."""
    for place, value in walk(config, name):
        if isinstance(value, dict):
            reserved = {k: v for k, v in value.items() if isinstance(k, str) and _is_reserved(k)}
            if reserved:
                target = reserved.pop("_target_", None)
                yield Node(".".join("*" if isinstance(part, int) else part for part in place), target, reserved)


def table_of(config: Mapping[str, Any]) -> Table:
    """The table of a config: its targets by place."""
    table: dict[str, dict[str, Mapping[str, Any]]] = {}
    for node in nodes_of(config):
        if isinstance(node.target, str):
            table.setdefault(node.place, {})[node.target] = node.reserved
    return table


def joined(*tables: Table) -> Table:
    """The union of several tables."""
    places = {place for table in tables for place in table}
    return {p: {t: r for table in tables for t, r in table.get(p, {}).items()} for p in places}


@cache
def shipped() -> Table:
    """The table of conf/."""
    return joined(*(table_of({} if not at else nest(at, content)) for at, content in _contributions(config_dir())))


@cache
def shipped_interpolations() -> frozenset[str]:
    """All strings in conf/ that contain an interpolation."""
    return interpolations_of(read_yaml(file) for file in config_dir().rglob("*.yaml"))


def interpolations_of(contents: Iterable[Any]) -> frozenset[str]:
    """All strings of some configs that contain an interpolation."""
    return frozenset(v for c in contents for _, v in walk(c) if isinstance(v, str) and "${" in v)


def options_in(folder: Path) -> list[dict[str, Any]]:
    """The content of each YAML file of a user's own folder of options (--config-dir), nested at its package.

    Raises:
        ConfigError: a file cannot be read.
    """
    found = []
    for file in sorted(folder.rglob("*.yaml")):
        try:
            content = read_yaml(file) or {}
        except ForeignFileError as error:
            raise ConfigError(str(error)) from error
        if type(content) is not dict:
            raise ConfigError(f"{file} is no map of keys, as an option is.")
        try:
            list(walk(content, str(file)))
        except ForeignFileError as error:
            raise ConfigError(str(error)) from error
        header = _own_header(file)
        package = ".".join(file.relative_to(folder).parts[:-1]) if header is None else header
        kept = {key: value for key, value in content.items() if key != "defaults"}
        found.append(nest(package, kept) if package else kept)
    return found


def nest(place: str, content: Any) -> dict[str, Any]:
    """{a: {b: content}} for a.b."""
    for part in reversed(place.split(".")):
        content = {part: content}
    return content


def _contributions(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(package, content) of every option file in conf/, once for each package where a defaults list places it."""
    waiting = [(root / f"{command}.yaml", "") for command in COMMANDS]
    seen = set()
    while waiting:
        file, package = waiting.pop()
        if (file, package) in seen:
            continue
        seen.add((file, package))
        content = read_yaml(file) or {}
        for entry in content.pop("defaults", []):
            waiting += _entry_files(root, file, package, entry)
        content.pop("hydra", None)  # not part of a stored config
        # top-level keys are returned one by one, so that `table_of` handles all files alike
        yield from ([(package, content)] if package else [(key, value) for key, value in content.items()])


def _entry_files(root: Path, file: Path, package: str, entry: Any) -> Iterator[tuple[Path, str]]:
    """(file, package) of every option that an entry of the defaults list of `file` may choose."""
    if not isinstance(entry, Mapping):
        if entry != "_self_":  # another option of the same group
            yield file.with_name(f"{entry}.yaml"), package
        return
    (words, _), *_ = entry.items()
    if words.startswith("override "):
        return  # the group is listed in the top config, which is read too
    group, _, at = words.removeprefix("optional ").partition("@")
    folder = PurePosixPath(group[1:]) if group.startswith("/") else PurePosixPath(file.parent.relative_to(root)) / group
    for option in sorted((root / folder).rglob("*.yaml")):
        header = _header(option)
        if header is None and option.parent != root / folder:
            continue  # belongs to a nested group, such as model/neck in model
        default = ".".join(folder.parts) if group.startswith("/") else _under(package, group.replace("/", "."))
        yield option, _under(package, at) if at else default if header is None else header


def _under(package: str, at: str) -> str:
    """The full package of `at`, as written in the defaults list of a file whose package is `package`."""
    if at == "_here_":
        return package
    if at.startswith("_global_"):
        return at.removeprefix("_global_").lstrip(".")
    return f"{package}.{at}" if package else at


def _header(file: Path) -> str | None:
    """The package in a file's first line (`# @package ...`); None without such a line."""
    first = read_text(file).content.partition("\n")[0]
    return _under("", first.removeprefix("# @package").strip()) if first.startswith("# @package") else None


def _own_header(file: Path) -> str | None:
    """The package in the header of a user's file, as Hydra reads it; None without one.

    The header is the lines `# @KEY VALUE` before any other line that is not empty, within HEADER characters.

    Raises:
        ConfigError: Hydra cannot read it.
    """
    found = None
    for line in filter(None, map(str.strip, read_text(file).content[:HEADER].splitlines())):
        if not re.match(r"#\s*@", line):
            break
        key, *values = filter(None, line.lstrip("#").strip().split(" "))
        if len(values) != 1 or (key == "@package" and not re.fullmatch(r"\w+(\.\w+)*", values[0])):
            raise ConfigError(f"{file} begins with {line[:80]!r}, which is no place in a config.")
        if key == "@package":
            found = _under("", values[0])  # the last one holds
    return found


def _is_reserved(key: str) -> bool:
    return len(key) > 1 and key.startswith("_") and key.endswith("_")


def _named(node: Node, table: Table) -> bool:
    """Whether a table has a node's target at its place, with the same values of all reserved keys of the node."""
    if not isinstance(node.target, str) or node.target not in (there := table.get(node.place, {})):
        return False
    return all(key in there[node.target] and there[node.target][key] == value for key, value in node.reserved.items())


def _of_packages(node: Node, packages: Sequence[str]) -> bool:
    """Whether the user trusts a node's target, by its package or (for libraries) by its full name."""
    target = node.target
    if not isinstance(target, str) or not set(node.reserved) <= RESERVED:
        return False
    if any(part.startswith("__") or not part.isidentifier() for part in target.split(".")):
        return False
    below = [p for p in packages if p.split(".")[0] not in LIBRARIES]
    return target in packages or any(target.startswith(f"{package}.") for package in below)


def _check_home(node: Node, name: str) -> None:
    """Import a target of a trusted package, and refuse it if the package only imports it (my_package.os.system).

    Raises:
        ConfigError: the message names the target and the module that defines it.
    """
    try:
        found = object_of(node.target)
    except Exception as error:  # an import may raise anything
        cause = error.__cause__ or error
        cause = cause.__cause__ or cause  # Hydra's error holds the import's own
        reason = f"{type(cause).__name__}: {cause}"
        raise ConfigError(
            f"{name} names {node.target} at {node.place}, which cannot be imported ({reason})."
        ) from error
    home = str(getattr(found, "__module__", ""))
    if not (isclass(found) or isroutine(found)) or home.split(".")[0] != node.target.split(".")[0]:
        raise ConfigError(
            f"{name} names {node.target} at {node.place}, which is no class or function of a package that you trust, "
            f"but of {home or 'none'}."
        )


def _refusal(node: Node, table: Table, name: str) -> str:
    where = node.place or "its top"
    if not isinstance(node.target, str):
        keys = ", ".join(sorted(node.reserved)) or "no word as _target_"
        return f"{name} has {keys} at {where}, where a config of detlab has no such key."
    there = table.get(node.place, {})
    if node.target in there:
        known = there[node.target]
        keys = ", ".join(k for k, value in sorted(node.reserved.items()) if k not in known or known[k] != value)
        return f"{name} has {keys} at {where}, where conf/ has no such key or another value."
    root = node.target.split(".")[0]
    others = f"; conf/ names {', '.join(sorted(there))} there" if there else ""
    own = root.isidentifier() and root not in LIBRARIES and root not in sys.stdlib_module_names
    advice = f" If it is a package of your own, add trust=[{root}]." if own else ""
    return f"{name} names {node.target or 'nothing'} at {where}, which is not trusted there{others}.{advice}"

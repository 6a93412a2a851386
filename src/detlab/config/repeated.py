"""Repeat a run from an untrusted run folder. Its overrides could make Hydra run code, so only some are accepted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from detlab.config.compose import compose_config, config_dir, plain_config
from detlab.config.places import searched
from detlab.config.trusted import checked_config, interpolations_of, options_in, shipped_interpolations
from detlab.errors import ConfigError
from detlab.system.foreign import ForeignFileError, read_yaml, walk

LEFT_OUT = ("logger", "paths", "name", "resume", "trust")  # places and trust are never taken from the run
WRITTEN = ("run_dir", "dirpath", "save_dir", "default_root_dir")  # keys that hold a folder to write into
PLACES = (*WRITTEN, "cache_dir", "url")
MOST = 500  # largest number of overrides
LONGEST = 2000  # largest number of characters in one override
ALTOGETHER = 10_000  # of all: Hydra parses some 2000 characters a second
DEEPEST = 20  # brackets within brackets, which Hydra follows by recursion
LONGEST_KEY = 200  # which Hydra looks for as the name of a file


@cache
def known_keys() -> tuple[frozenset[str], frozenset[str]]:
    """(groups, keys) at the top level of train.yaml that an untrusted override may choose or set."""
    content = read_yaml(config_dir() / "train.yaml")
    entries = [key for entry in content.pop("defaults") if isinstance(entry, dict) for key in entry]
    groups = {key for key in entries if key.isidentifier()}  # drops "optional ..." and "override hydra/..." entries
    return frozenset(groups), frozenset(content) - {"hydra"}


class Repeated(NamedTuple):
    """The part of an untrusted run's overrides that is run again."""

    words: list[str]
    left_out: list[str]
    config: dict[str, Any]  # composed, resolved and checked


def run_dir_override(folder: Path) -> str:
    """The override that sets a run's folder.

    Raises:
        ConfigError: the name contains characters that Hydra would interpret.
    """
    text = str(folder)
    if "'" in text or "$" in text or "\\" in text or not text.isprintable():
        raise ConfigError(f"The folder {text!r} has a quote, a backslash or a dollar sign in its name; use another.")
    return f"hydra.run.dir='{text}'"


def repeated(words: Sequence[Any], out: Path, trust: Sequence[str], source: str, own: Path | None = None) -> Repeated:
    """Check the overrides of an untrusted run, compose and resolve them, and check every target in the result.

    Args:
        words: overrides read from the untrusted file.
        out: folder of the new run.
        trust: the user's own packages that the config may name.
        source: name of that file, for the messages.
        own: the user's folder of own options; the overrides may choose these too, and the targets there are trusted.

    Raises:
        ConfigError: an override or a target is refused; the message names it.
    """
    if len(words) > MOST or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"{source} is not a list of overrides.")
    if (length := sum(map(len, words))) > ALTOGETHER:
        raise ConfigError(f"{source} holds overrides of {length} characters; a run's are no longer than {ALTOGETHER}.")
    kept: list[str] = []
    left_out: list[str] = []
    for word in words:
        (kept if _is_taken(_parsed(word, source), source, own) else left_out).append(word)
    run_dir_override(out)
    given = [*kept, f"trust=[{','.join(trust)}]"] if trust else kept
    composed = compose_config("train", [*searched(own), *given, "name=rerun", f"paths.run_dir='{out}'"])
    options = [] if own is None else options_in(own)
    strings = shipped_interpolations() | interpolations_of(options)
    for place, value in walk(OmegaConf.to_container(composed, resolve=False), source):
        if isinstance(value, str) and "${" in value and value not in strings:
            raise ConfigError(f"{source} puts {value[:80]!r} at {'.'.join(map(str, place))}; write the value itself.")
    config = checked_config(plain_config(composed), trust, own=options, name=f"What {source} composes")
    _check_places(config, out, source)
    return Repeated(given, left_out, config)


def _parsed(word: str, source: str) -> Override:
    if len(word) > LONGEST:
        raise ConfigError(f"{source} holds an override of {len(word)} characters; none is longer than {LONGEST}.")
    brackets = accumulate((mark in "[{(") - (mark in "]})") for mark in word)
    if "\0" in word or max(brackets, default=0) > DEEPEST or len(word.partition("=")[0]) > LONGEST_KEY:
        raise ConfigError(f"{source} holds {word[:120]!r}, which no override of a run is.")
    if "${" in word:  # checked before Hydra parses it: resolvers run code and read the environment
        raise ConfigError(f"{source} holds {word[:120]!r}; an interpolation of a stranger's is not taken.")
    try:
        override = OverridesParser.create().parse_override(word)
    except (HydraException, RecursionError) as error:
        raise ConfigError(f"{source} holds {word[:120]!r}, which no override of a run is.") from error
    if word.startswith("-") or override.is_sweep_override():
        raise ConfigError(f"{source} holds {word[:120]!r}, which no override of a run is.")
    return override


def _is_taken(override: Override, source: str, own: Path | None) -> bool:
    """Whether an override is repeated; False for a key of `LEFT_OUT` or `PLACES`.

    Raises:
        ConfigError: detlab has no such key.
    """
    key = str(override.key_or_group)
    parts = re.split(r"[./]", key)
    packages = [package for package in (override.package, getattr(override, "pkg1", None)) if package]
    if parts[0] in LEFT_OUT or (len(parts) > 1 and parts[-1] in PLACES):
        return False
    groups, keys = known_keys()
    known = parts[0] in groups if len(parts) > 1 else parts[0] in groups | keys
    if not known or any(package.split(".")[0] not in groups for package in packages):
        line = str(override.input_line)[:120]
        raise ConfigError(f"{source} holds {line!r}; a run of detlab has no such key to take.")
    if "/" in key or (len(parts) == 1 and key in groups):
        _check_choice(override, source, own)
    return True


def _check_choice(override: Override, source: str, own: Path | None) -> None:
    """Refuse an option that is no file in conf/ or in the user's own folder.

    Hydra would also read ../../evil.yaml, with its `hydra` node.

    Raises:
        ConfigError: the message names the override.
    """
    if override.is_delete():
        return
    value = override.value()
    folders = [config_dir()] if own is None else [config_dir(), own]
    for option in value if isinstance(value, list) else [value]:
        word = "" if option is None else str(option)
        files = [folder / str(override.key_or_group) / f"{word}.yaml" for folder in folders]
        known = re.fullmatch(r"\w+(/\w+)*", word) and any(file.is_file() for file in files)
        if option is not None and not known:
            there = "; one of your own needs its folder, --config-dir=FOLDER" if own is None else f" or of {own}"
            raise ConfigError(f"{source} holds {str(override.input_line)[:120]!r}, which is no option of conf/{there}.")


def _check_places(config: dict[str, Any], out: Path, source: str) -> None:
    """Refuse a composed config that would write outside the run's folder or download from a changed address.

    Raises:
        ConfigError: the message names the key.
    """
    shipped = read_yaml(config_dir() / "data" / "common" / "default.yaml")["cache_dir"]
    for place, value in walk(config, source):
        key, where = place[-1] if place else "", ".".join(map(str, place))
        inside = isinstance(value, str) and (value == str(out) or value.startswith(f"{out}/")) and ".." not in value
        bad = key in WRITTEN and value is not None and not inside
        bad |= key == "cache_dir" and value not in (None, shipped)
        bad |= key == "url" or (key == "filename" and isinstance(value, str) and not re.fullmatch(r"[\w.-]*", value))
        if bad:
            shown = str(value)[:80]
            raise ConfigError(f"{source} sets {where}={shown}; where to write and load from is yours to say.")


def read_overrides(run: Path) -> list[Any]:
    """The list in a run folder's .hydra/overrides.yaml.

    Raises:
        ConfigError: the folder is not a run, or its files cannot be read safely.
    """
    file = run / ".hydra" / "overrides.yaml"
    try:
        words = read_yaml(file)
    except ForeignFileError as error:
        raise ConfigError(f"{run} is not a run folder with .hydra/overrides.yaml: {error}") from error
    if not isinstance(words, list):
        raise ConfigError(f"{file} is not a list of overrides.")
    return words

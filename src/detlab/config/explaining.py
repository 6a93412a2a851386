"""Turn an error of Hydra, OmegaConf or a part into one sentence; detlab's own errors keep their text."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from detlab.config.places import choices_among, compose_quietly, config_dir, groups
from detlab.config.typed import swept, unchosen, unreadable
from detlab.errors import ConfigError, DataError
from detlab.system.memory import ran_out

PLACING = re.compile(r"(full_key|reference_type|object_type)\s*[:=]")  # OmegaConf's lines below its reason
MERGED = "Cannot merge DictConfig with ListConfig"
LONGEST = 1000  # characters of a reason that is not ours; torch lists every tensor that does not fit


def explain(error: BaseException, name: str = "train", overrides: Sequence[str] = ()) -> str:
    """One sentence for an error, with a similar valid name if there is one.

    Args:
        error: caused by the user's config.
        name: name of the top config.
        overrides: as typed by the user.
    """
    if isinstance(error, ConfigError | DataError):
        return str(error)
    if isinstance(error, InstantiationException):
        return of_part(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        return _no_choice(error.missing_cfg_file, list(error.options))
    if isinstance(error, OverrideParseException):
        return unreadable(error.override)
    for cause in _chain(error):
        if isinstance(cause, OmegaConfBaseException):
            return _of_key(cause, name, overrides)
    return _of_composition(str(error), name, overrides) or one_line(error)


def of_part(error: BaseException) -> str:
    """One sentence for a part that Hydra could not instantiate.

    It is the text of the part's own error, followed by the class's name if the error is not one of detlab's.
    """
    cause = of_its_own(error)
    if isinstance(cause, ConfigError | DataError):
        return str(cause)
    if type(cause) is ValueError or (isinstance(cause, ValueError) and type(cause).__module__.startswith("detlab.")):
        return one_line(cause)
    if isinstance(cause, InstantiationException):
        return one_line(cause)
    if lacking := ran_out(cause):
        return f"{_target_of(error)} is too large for this machine, {lacking}; use smaller widths and depths."
    return f"{one_line(cause)} ({type(cause).__name__} in {_target_of(error)})"


def of_its_own(error: BaseException) -> BaseException:
    """The error that a part's own code raised, without Hydra's errors around it."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """An error's text with its lines joined, without those that only place it; the error's class, if it has none."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = list(dict.fromkeys(line for line in lines if line and not PLACING.match(line)))
    text = "".join(line + (" " if line[-1] in ".,:;!?" else "; ") for line in lines).removesuffix("; ").strip()
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return text or type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, then its chain of causes."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        yield cause
        seen.append(cause)
        cause = cause.__cause__


def _of_key(error: OmegaConfBaseException, name: str, overrides: Sequence[str]) -> str:
    """One sentence for an OmegaConf error, which names its key."""
    key = str(error.full_key or error.key or "")
    if isinstance(error, MissingMandatoryValue):
        return f"{key} must be given{_comment(name, key)}; add {key}=..."
    if isinstance(error, InterpolationResolutionError):
        if any(word.partition("=")[0] == f"+{key}" for word in overrides):
            return f"+{key} adds an option that is there already; use {key}=VALUE."
        if any(word.partition("=")[0] == f"~{key}" for word in overrides):
            return f"{key} was taken away, and detlab {name} needs it; use {key}=VALUE, or leave ~{key} out."
        return f"{key} cannot be resolved: {one_line(error)}"
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        return _no_group(key, name) if "/" in key else _no_key(key, name, overrides)
    typed = {word.lstrip("+").partition("=")[0]: word.partition("=")[2] for word in overrides}
    value = typed.get(key, error.value)
    if key and MERGED in str(error):  # a list in place of a map, or the other way round
        is_map = str(value).startswith("{")
        wanted = f"a list; write {key}=[VALUE]" if is_map else f"a group of keys; write {key}.NAME=VALUE"
        return f"{key}={value} must be {wanted}."
    return f"{key}={value} does not fit: {one_line(error)}" if key else one_line(error)


def _of_composition(text: str, name: str, overrides: Sequence[str]) -> str:
    """One sentence for a composition error that Hydra describes only in its text; empty if the text is not known."""
    if m := re.search(r"Could not override '([^']+)'\.?\s*No match in the defaults list", text):
        return _no_group(m[1], name)
    if m := re.search(r"Could not delete (?:from config\. )?'([^']+)'", text):
        key = m[1].partition("=")[0]
        return f"~{key} takes nothing away: {_no_group(key, name) if '/' in key else _no_key(key, name, overrides)}"
    if m := re.search(r"Error resolving interpolation '([^']+)'", text):
        return f"conf/ needs one option of each group in {m[1]}; choose one, such as model=retinanet."
    if m := re.search(r"Multiple values for ([\w/@.]+)\. To override a value", text):
        return f"+{m[1]}=... chooses an option of a group that is there already; use {m[1]}=... without the plus."
    if m := re.search(r"force-add of config groups is not supported: '\+\+([^']+)'", text):
        return f"++{m[1]} chooses an option of a group, which takes no plus; use {m[1]}."
    if m := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"+{m[1]} adds an option that is there already; use {m[1]}=VALUE."
    if "Ambiguous value for argument" in text or "Sweep parameters" in text:
        text = swept(overrides)
        key, _, value = text.partition("=")
        return f"{text} holds several values; add -m to sweep over them, or write '{key}=[{value}]' for a list."
    return ""


def _target_of(error: BaseException) -> str:
    """The class that could not be instantiated, taken from Hydra's message."""
    found = [m[1] for one in _chain(error) if (m := re.search(r"call to target '([^']+)'", str(one)))]
    return found[-1] if found else "a part"


def _no_choice(config: str, options: list[str]) -> str:
    group, _, choice = config.rpartition("/")
    options = [option for option in options if option != "common"]
    return f"{group}={choice} does not exist{_nearest(choice, options)}; options: {', '.join(options)}."


def _no_group(key: str, name: str) -> str:
    """The message for a group that the chosen config of this name does not have."""
    if key in ("model/pool", "model/proposals"):
        return f"{key} is refused: the chosen family pools no RoI, it reads its maps densely; use model=faster_rcnn."
    if key == "model/arm":
        return f"{key} is refused: it refines anchors for a second step; use model=refinedet."
    if key == "model/obj_loss":
        return f"{key} is refused: the chosen family has no objectness apart from its classes; use model=yolo."
    known = groups()
    if key in known and not key.startswith("model/"):
        return f"detlab {name} chooses no {key}; {unchosen(key, name)}."
    if key in known:
        return f"{key} is not part of the chosen model; use model=faster_rcnn, or leave it out."
    return f"There is no option {key}{_nearest(key, known)}."


def _no_key(key: str, name: str, overrides: Sequence[str]) -> str:
    """The message for a key that the composed config does not have."""
    parent, _, last = key.rpartition(".")
    group = key.split(".")[0]
    if group in groups() and group in _unset(name):
        return f"No option of the group {group} is chosen; add {group}=NAME; detlab options {group} lists them."
    try:
        config = OmegaConf.to_container(compose_quietly(name, choices_among(overrides)), resolve=False)
        for part in parent.split(".") if parent else []:
            config = config[part] if isinstance(config, dict) else {}
    except (HydraException, OmegaConfBaseException, KeyError):
        config = {}
    known = [str(k) for k in config if k != "_target_"] if isinstance(config, dict) else []
    known += [] if parent else [group for group in _unset(name) if group not in known]
    listed = f"; keys there: {', '.join(known)}" if known else ""
    return f"There is no option {key}{_nearest(last, known, parent)}{listed}."


def _unset(name: str) -> list[str]:
    """The groups of which a command's config chooses nothing by itself, such as experiment and debug."""
    file = config_dir() / f"{name}.yaml"
    text = file.read_text() if file.is_file() else ""
    inherited = _unset("train") if name != "train" and re.search(r"^  - train$", text, re.MULTILINE) else []
    return inherited + re.findall(r"^  - (\w+): null", text, re.MULTILINE)


def _comment(name: str, key: str) -> str:
    """The YAML comment on a mandatory key in the command's config, in brackets."""
    file = config_dir() / f"{name}.yaml"
    lines = file.read_text().splitlines() if file.is_file() else []
    found = [line.partition("#")[2].strip() for line in lines if line.startswith(f"{key}:") and "#" in line]
    return f" ({found[0]})" if found else ""


def _nearest(name: str, known: Sequence[str], parent: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {parent + '.' if parent else ''}{near[0]}?" if near else ""

"""Checkpoints as data: read safely, found by run folder, built into a detector again, or used to start another."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from inspect import isclass, isroutine
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detlab.config.parts import object_of
from detlab.detectors import Detector
from detlab.errors import ConfigError
from detlab.model.heads import RoIHead

CHECKPOINT_KEY = "detlab"  # where a checkpoint holds what is needed to build its detector again
LAYOUT = 3  # of configs and tensors in checkpoints; 3: targets in the rooms of model/, detectors/, training/
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
PREFIX = "detector."
# Of the packages trusted, the parts that configs build from. The rest of torch is no safer than what it imports:
# torch.hub.load and torch.load run code of a stranger's choice, and torch.os.system is os.system.
TRUSTED = (
    "detlab.",
    "torch.nn.",
    "torch.optim.",
    "torchvision.models.",
    "torchvision.ops.",
    "torchvision.transforms.",
    "lightning.Trainer",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.plugins.",
    "lightning.pytorch.profilers.",
    "lightning.pytorch.strategies.",
)
CLOSED = ("cli", "commands", "config", "files", "runs", "sweeps", "report", "training.build", "training.fit")
COMMANDS = tuple(f"detlab.{name}." for name in CLOSED)
HOMES = (*TRUSTED, "lightning.pytorch.trainer.")  # where what these names mean may be defined


class Checkpoint(NamedTuple):
    """What a checkpoint holds for use without its run."""

    path: Path
    config: dict[str, Any]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    state: dict[str, Tensor]  # of the detector


def find_checkpoint(run: str | Path, ckpt: str = "best") -> Path:
    """The file of a run folder (best or last), or the file itself.

    Raises:
        ConfigError: no such file.
    """
    path = Path(run).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"run={run} is neither a run folder nor a checkpoint.")
    file = path / "checkpoints" / f"{ckpt}.ckpt"
    if not file.is_file():
        have = sorted(p.stem for p in (path / "checkpoints").glob("*.ckpt"))
        raise ConfigError(
            f"run={run} has no checkpoints/{ckpt}.ckpt; "
            + (f"use ckpt={have[0]}." if have else "its training saved none yet.")
        )
    return file


def read_checkpoint(path: Path, trust: Sequence[str] = ()) -> Checkpoint:
    """Read a checkpoint with weights_only=True and check every `_target_` of its config before anything is imported.

    Raises:
        ConfigError: not a checkpoint of this project, damaged, or a target outside the trusted prefixes.
    """
    content = read_content(path)
    facts = content[CHECKPOINT_KEY]
    check_targets(facts["config"], trust)
    state = {k.removeprefix(PREFIX): v for k, v in content["state_dict"].items() if k.startswith(PREFIX)}
    return Checkpoint(path, dict(facts["config"]), tuple(facts["class_names"]), tuple(facts["category_ids"]), state)


def read_content(path: Path) -> Mapping[str, Any]:
    """All that a checkpoint holds, read with weights_only=True; nothing of it is imported or called.

    Raises:
        ConfigError: not a checkpoint of this project, or damaged.
    """
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else ""
        raise ConfigError(
            f"{path} is not a checkpoint that loads safely ({type(error).__name__}: {reason})."
        ) from error
    facts = content.get(CHECKPOINT_KEY) if isinstance(content, Mapping) else None
    if not isinstance(facts, Mapping) or "state_dict" not in content:
        raise ConfigError(f"{path} is a checkpoint, but not of detlab train: it has no {CHECKPOINT_KEY!r} entry.")
    if not {"config", "class_names", "category_ids"} <= facts.keys():
        raise ConfigError(
            f"{path} is a checkpoint of another version of detlab: its {CHECKPOINT_KEY!r} entry lacks its config."
        )
    if facts.get("layout") != LAYOUT:
        raise ConfigError(
            f"{path} was written by detlab {facts.get('version', 'of an unknown version')} with its classes elsewhere; "
            f"train it again, or use the commit named in its run's status.json."
        )
    return content


def _check_sums(path: Path) -> None:
    """Compare the parts of a torch archive with their checksums, which torch writes and does not look at.

    Raises:
        zipfile.BadZipFile: names the part that differs.
    """
    if not zipfile.is_zipfile(path):
        return  # torch's older format, or no checkpoint at all: loading tells
    with zipfile.ZipFile(path) as archive:
        if (part := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"bytes of {part} have changed since they were written")


def check_targets(config: Any, trust: Sequence[str] = ()) -> None:
    """Refuse a config that would import from outside the trusted packages.

    Raises:
        ConfigError: names the target and the option.
    """
    allowed = tuple(p if p.endswith(".") else f"{p}." for p in trust)
    nodes = [config]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Mapping):
            target = node.get("_target_")
            if target is not None and not str(target).startswith(allowed) and not _builds_safely(str(target)):
                raise ConfigError(
                    f"The config names {target}, which lies outside the trusted packages; if you trust it, add "
                    f"trust=[{str(target).split('.')[0]}]."
                )
            nodes.extend(node.values())
        elif isinstance(node, list | tuple):
            nodes.extend(node)


def _builds_safely(target: str) -> bool:
    """Whether a target lies in a trusted part and is a class or function that its package itself defines.

    The second look keeps out what such a module has merely imported; only trusted packages are imported for it.
    """
    if (
        not target.startswith(TRUSTED)
        or target.startswith(COMMANDS)
        or any(part.startswith("_") for part in target.split("."))
    ):
        return False
    try:
        found = object_of(target)
    except Exception:  # whatever an import raises: there is no such thing
        return False
    home = f"{getattr(found, '__module__', '')}."
    ours = home.startswith(HOMES) and home.split(".")[0] == target.split(".")[0]
    return ours and (isclass(found) or isroutine(found))


def model_without_download(config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's config with the backbone's own weights left out, since a checkpoint replaces them."""
    model = dict(config["model"])
    backbone = dict(model["backbone"])
    if "weights" in backbone:  # a user's own may know no such option
        backbone["weights"] = None
    return model | {"backbone": backbone}


def initialise_from(detector: Detector, checkpoint: Checkpoint, class_names: Sequence[str]) -> list[str]:
    """Copy every tensor that fits; rows of classes that both name are copied, those of new classes stay random.

    Args:
        detector: to be filled, for `class_names`.

    Returns:
        Names of tensors that stay as they were, for the log.

    Raises:
        ConfigError: nothing fits: another architecture.
    """
    own = detector.state_dict()
    old_names, new_names = checkpoint.class_names, tuple(class_names)
    skipped, copied = [], 0
    for name, value in own.items():
        old = checkpoint.state.get(name)
        layout = _class_layout(detector, name) if old_names != new_names else None
        if old is None:
            skipped.append(name)
        elif layout is not None:
            copied += _copy_classes(value, old, old_names, new_names, layout)
            skipped += [f"{name} (rows of new classes)"] if set(new_names) - set(old_names) else []
        elif old.shape == value.shape:
            value.copy_(old)
            copied += 1
        else:
            skipped.append(name)
    if copied < len(own) / 4:
        raise ConfigError(
            f"init_from={checkpoint.path} fits only {copied} of {len(own)} tensors; compose the model it was "
            f"trained with."
        )
    return skipped


def _class_layout(detector: Detector, name: str) -> str | None:
    """How the rows of a tensor are dealt to classes: "inner" [groups, classes], "outer" [classes, 4], or None."""
    if detector.class_agnostic or not name.startswith(("head.cls.", "head.box.")):
        return None
    if name.startswith("head.cls."):
        return "inner"
    per_class = isinstance(detector.head, RoIHead) and detector.head.box.out_features == 4 * detector.num_classes
    return "outer" if per_class else None


def _copy_classes(new: Tensor, old: Tensor, old_names: Sequence[str], new_names: Sequence[str], layout: str) -> bool:
    """Copy the rows of classes that both name, and of background; False where the shapes do not fit."""
    pairs = [(old_names.index(n), i) for i, n in enumerate(new_names) if n in old_names]
    if layout == "outer":
        if old.shape[0] != 4 * len(old_names) or old.shape[1:] != new.shape[1:]:
            return False
        source, target = old.unflatten(0, (-1, 4)), new.unflatten(0, (-1, 4))
        for i, j in pairs:
            target[j].copy_(source[i])
        return True
    for background in (0, 1):
        per_old, per_new = len(old_names) + background, len(new_names) + background
        fits = old.shape[0] % per_old == 0 and new.shape[0] % per_new == 0 and old.shape[1:] == new.shape[1:]
        if fits and old.shape[0] // per_old == new.shape[0] // per_new:
            source, target = old.unflatten(0, (-1, per_old)), new.unflatten(0, (-1, per_new))
            both = [*pairs, (len(old_names), len(new_names))] if background else pairs
            for i, j in both:
                target[:, j].copy_(source[:, i])
            return True
    return False

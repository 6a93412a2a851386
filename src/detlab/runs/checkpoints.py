"""Checkpoints: find them in a run folder, read them safely, and initialise another detector from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from detlab.config.trusted import checked_config
from detlab.detectors import Detector
from detlab.errors import ConfigError
from detlab.model.heads import RoIHead
from detlab.tensors.archive import load_tensors, not_finite

CHECKPOINT_KEY = "detlab"  # key in a checkpoint of what is needed to rebuild its detector
LAYOUT = 3  # version of configs and tensors in checkpoints; 3: classes in model/, detectors/, training/
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
PREFIX = "detector."


class Checkpoint(NamedTuple):
    """Content of a checkpoint that is needed to rebuild its detector without the run."""

    path: Path
    config: dict[str, Any]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    state: dict[str, Tensor]  # the detector's state dict


def find_checkpoint(run: str | Path, ckpt: str = "best") -> Path:
    """The best or last checkpoint of a run folder; `run` itself if it is a file.

    Raises:
        ConfigError: the file does not exist.
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


def read_checkpoint(
    path: Path,
    trust: Sequence[str] | str = (),
    own: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
    *,
    finite: bool = True,
) -> Checkpoint:
    """Read a checkpoint with weights_only=True and check its config, see `checked_config`.

    Args:
        trust: the user's own packages that the config may name.
        own: the user's own configs; their targets are trusted at the places where they occur.
        finite: refuse weights that are not finite: such a detector finds nothing, without a word.

    Raises:
        ConfigError: the file is no checkpoint of detlab, is damaged, or its config names an untrusted target.
    """
    content = read_content(path)
    facts = content[CHECKPOINT_KEY]
    config = checked_config(facts["config"], trust, own=own, name=f"The config of {path}")
    for key in ("model", "data"):
        if type(config.get(key)) is not dict:
            raise ConfigError(f"{path} is no checkpoint of detlab train: its config has no {key}.")
    if type(config["model"].get("backbone")) is not dict:
        raise ConfigError(f"{path} is no checkpoint of detlab train: its model has no backbone.")
    if type(config["model"].get("detect", {})) is not dict:  # a family of the user's own may have no such part
        raise ConfigError(f"{path} is no checkpoint of detlab train: its model.detect holds no options.")
    names, ids = facts["class_names"], facts["category_ids"]
    if not _all_of(names, str) or not _all_of(ids, int) or len(names) != len(ids):
        raise ConfigError(f"{path} is no checkpoint of detlab train: its class_names or category_ids are no such.")
    tensors = content["state_dict"]
    state = {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}
    bad = not_finite(state) if finite else []
    if bad:
        raise ConfigError(
            f"{path} holds weights that are not finite or variances below 0, in {len(bad)} of {len(state)} tensors "
            f"(first: {bad[0]}), as after a training that diverged; take an earlier checkpoint, such as ckpt=best."
        )
    return Checkpoint(path, config, tuple(names), tuple(ids), state)


def read_content(path: Path) -> Mapping[str, Any]:
    """The whole content of a checkpoint, read by `load_tensors`, which neither imports nor calls anything named there.

    Raises:
        ConfigError: the file is no checkpoint of detlab, or is damaged.
    """
    try:
        content = load_tensors(path)
    except Exception as error:
        reason = str(error).splitlines()[0][:160] if str(error) else ""
        raise ConfigError(
            f"{path} is not a checkpoint that loads safely ({type(error).__name__}: {reason})."
        ) from error
    facts = content.get(CHECKPOINT_KEY) if isinstance(content, Mapping) else None
    if not isinstance(facts, Mapping) or not _is_state(content.get("state_dict")):
        raise ConfigError(f"{path} is a checkpoint, but not of detlab train: it has no {CHECKPOINT_KEY!r} entry.")
    if not {"config", "class_names", "category_ids"} <= facts.keys():
        raise ConfigError(
            f"{path} is a checkpoint of another version of detlab: its {CHECKPOINT_KEY!r} entry lacks its config."
        )
    if type(facts.get("layout")) is not int or facts["layout"] != LAYOUT:
        version = facts.get("version")
        raise ConfigError(
            f"{path} was written by detlab {version if type(version) is str else 'of an unknown version'} with its "
            f"classes elsewhere; train it again, or use the commit named in its run's status.json."
        )
    if type(content.get("global_step", 0)) is not int:
        raise ConfigError(f"{path} is damaged: its global_step is no number.")
    return content


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and all(type(k) is str and isinstance(v, Tensor) for k, v in value.items())


def _all_of(values: Any, kind: type) -> bool:
    return isinstance(values, list | tuple) and all(type(value) is kind for value in values)


def model_without_download(config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's config without the backbone's pretrained weights, which the checkpoint replaces anyway."""
    model = dict(config["model"])
    backbone = dict(model["backbone"])
    if "weights" in backbone:  # a user's own backbone may lack this option
        backbone["weights"] = None
    return model | {"backbone": backbone}


def initialise_from(detector: Detector, checkpoint: Checkpoint, class_names: Sequence[str]) -> list[str]:
    """Copy all tensors of a checkpoint that fit into a detector.

    Tensors with one row per class are matched by class name; rows of classes new to the checkpoint keep their random
    initialisation.

    Args:
        detector: filled in place.
        checkpoint: source of the tensors.
        class_names: classes of `detector`.

    Returns:
        Names of tensors that were not copied, for the log.

    Raises:
        ConfigError: the architectures differ: too few tensors fit.
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
    """How the rows of a tensor belong to classes: "inner" [groups, classes], "outer" [classes, 4], or None."""
    if detector.class_agnostic or not name.startswith(("head.cls.", "head.box.")):
        return None
    if name.startswith("head.cls."):
        return "inner"
    per_class = isinstance(detector.head, RoIHead) and detector.head.box.out_features == 4 * detector.num_classes
    return "outer" if per_class else None


def _copy_classes(new: Tensor, old: Tensor, old_names: Sequence[str], new_names: Sequence[str], layout: str) -> bool:
    """Copy the rows of background and of classes that both sides name; False if the shapes do not fit."""
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

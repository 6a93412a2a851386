"""Queries that the rules make: parts of a config, and class attributes (facts) of the classes named there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from detlab.config.parts import class_of


@dataclass(frozen=True)
class Rule:
    """One refusal."""

    name: str
    applies: Callable[[Mapping[str, Any]], bool]
    option: str  # at fault; a group alone (model/sampler) where several of its options can be refused
    reason: str
    instead: str  # option that works


def model_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model's node; {} without one."""
    return config.get("model") or {}


def part(config: Mapping[str, Any], *path: str) -> Any:
    """The node at a path below the model; {} where it is absent or null."""
    node: Any = model_of(config)
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if node is not None else {}


def fact(node: Any, name: str) -> Any:
    """A class attribute of the class that a node names; None if the class lacks it or the node names no class."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    return getattr(class_of(target), name, None) if target else None


def family(config: Mapping[str, Any], name: str) -> Any:
    """A class attribute of the detector's class."""
    return fact(model_of(config), name)


def reads_rois(config: Mapping[str, Any]) -> bool:
    """Whether the detector reads RoIs or crops, not whole maps."""
    return family(config, "reads") in ("rois", "crops")


def pools(config: Mapping[str, Any], what: str) -> bool:
    """Whether the pool gives `what`, such as "vectors" or "crops"."""
    return fact(part(config, "pool"), "gives") == what


def fresh(config: Mapping[str, Any]) -> bool:
    """Whether the weights come from the backbone's `weights` option, not from a checkpoint."""
    return not config.get("init_from") and not config.get("resume")


def several_cpu_processes(config: Mapping[str, Any]) -> bool:
    """Whether training may run in several processes on CPUs."""
    trainer = config.get("trainer") or {}
    return trainer.get("accelerator") == "cpu" and trainer.get("devices") not in (1, "1")


def one_map(config: Mapping[str, Any]) -> bool:
    """Whether the neck gives a single map."""
    return bool(fact(part(config, "neck"), "single_map"))


def stages(config: Mapping[str, Any], name: str) -> list[Any]:
    """The part called `name` of each stage: the last one, the RPN (proposals), the ARM; {} where absent."""
    return [part(config, *stage, name) for stage in ((), ("proposals",), ("arm",))]


def any_stage(config: Mapping[str, Any], name: str, asked: str) -> bool:
    """Whether the part called `name` of any stage has the class attribute `asked`."""
    return any(fact(node, asked) for node in stages(config, name))


def one_size(config: Mapping[str, Any]) -> bool:
    """Whether all images have the same size, in training and in testing."""
    tta = config.get("tta") or {}
    return one_training_size(config) and list(tta.get("scales") or [1.0]) == [1.0]


def one_training_size(config: Mapping[str, Any]) -> bool:
    """Whether all training batches have the same canvas."""
    data = config.get("data") or {}
    resize = data.get("resize") or family(config, "resize")
    return (resize == "warp" or data.get("canvas") is not None) and not config.get("multiscale")


def unequal_boxes(config: Mapping[str, Any]) -> bool:
    """Whether the number of anchors per location differs between levels."""
    anchors = part(config, "anchors")
    numbers = {len(row) for row in anchors.get("ratios") or [] if isinstance(row, list)}
    return bool(fact(anchors, "by_level")) and len(numbers) > 1


def mines_without_best(config: Mapping[str, Any]) -> bool:
    """Whether a stage draws negatives in proportion to its positives without a forced best match.

    `force_best` is an option of the matcher, or a class attribute of one that has no such option.
    """
    found = zip(stages(config, "sampler"), stages(config, "matcher"), strict=True)
    return any(
        fact(sampler, "by_positives") and matcher.get("force_best", fact(matcher, "force_best")) is False
        for sampler, matcher in found
    )

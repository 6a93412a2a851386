"""Budgets and costs of rows, and warnings about unfair comparisons."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detlab.report.rows import Row, Sweep
from detlab.report.runs import DATA, WEIGHTS, WEIGHTS_FILE, resolved_config
from detlab.system.text import shortened

SPENT = {  # {key of budget.json: title}; the report warns if a key of FAIR differs between rows
    "epochs": "epochs",
    "images_seen": "images seen",
    "batch": "batch",
    "lr": "learning rate",
    "hours": "device hours",
    "parameters": "parameters",
    "flops": "FLOPs per image",
    "latency_ms": "latency with NMS, ms",
}
FAIR = ("batch", "lr", "images_seen")
COSTS = ("latency_ms", "parameters", "flops", "hours")  # costs that may explain a higher AP
MOST = 4  # keys that differ between the seeds of a row and are named
LONGEST = 80  # characters of such a value
UNEQUAL = 1.1  # costs count as different from this ratio to the cheapest row on


def spent(row: Row, key: str) -> float | None:
    """Mean of a budget entry over a row's runs; None if no run has it."""
    values = [run.budget[key] for run in row.done.values() if isinstance(run.budget.get(key), int | float)]
    return float(np.mean(values)) if values else None


def unfair(sweep: Sweep) -> list[str]:
    """Sentences about budget entries that differ between rows although they were not swept."""
    found = []
    for key in FAIR:
        values = {round(v, 12) for row in sweep.rows if (v := spent(row, key)) is not None}
        if len(values) > 1 and not any(name.endswith(key) for name in sweep.factors):
            shown = ", ".join(f"{v:g}" for v in sorted(values))
            found.append(f"The rows differ in {SPENT[key]} ({shown}): a difference between them may come from that.")
    return found + mixed(sweep)


def mixed(sweep: Sweep) -> list[str]:
    """A sentence for each key that has several values among the seeds of one row, which are no repetitions then."""
    found: dict[str, str] = {}
    for row in sweep.rows:
        configs = _with_parts({seed: resolved_config(run) for seed, run in row.done.items()})
        if all(WEIGHTS_FILE in config for config in configs.values()):  # known by content: the place may differ
            configs = {seed: {k: v for k, v in c.items() if k != WEIGHTS} for seed, c in configs.items()}
        for key in dict.fromkeys(key for config in configs.values() for key in config):
            values: dict[str, list[int]] = {}
            for seed, config in configs.items():
                if key in config:  # another version may not have had the key
                    values.setdefault(config[key], []).append(seed)
            if len(values) > 1 and key not in found and not _meant(key, configs):
                told = "; ".join(
                    f"{shortened(v, LONGEST)} with seed {', '.join(map(str, seeds))}" for v, seeds in values.items()
                )
                of = f" of {sweep.label(row)}" if row.choices else ""
                found[key] = f"The runs{of} differ in {key} ({told})"
    end = "they do not repeat one choice. Delete the folders of either, and run these again."
    more = [f"The seeds of a row differ in {len(found) - MOST} more keys."] if len(found) > MOST else []
    return [f"{text}: {end}" for text in list(found.values())[:MOST]] + more


def _with_parts(configs: Mapping[int, Mapping[str, str]]) -> dict[int, Mapping[str, str]]:
    """The configs with an entry for each part that another config has as one value, such as null: its keys are set."""
    leaves = {key for config in configs.values() for key in config}
    found: dict[int, Mapping[str, str]] = {}
    for seed, config in configs.items():
        parts = {key[:i] for key in config for i, letter in enumerate(key) if letter == "."} & leaves
        found[seed] = {**config, **{part: config.get(f"{part}._target_", "set") for part in sorted(parts)}}
    return found


def _meant(key: str, configs: Mapping[int, Mapping[str, str]]) -> bool:
    """Whether the config asks for another value with each seed, or for other data, as by `data.split_seed=${seed}`."""
    known = {name for config in configs.values() for name in config}
    names = [name for name in known if name.startswith("data.")] if key == DATA else [key]
    return any(all(config.get(name, str(seed)) == str(seed) for seed, config in configs.items()) for name in names)


def unequal(sweep: Sweep) -> list[str]:
    """Keys of `COSTS` in which rows differ by the ratio `UNEQUAL`."""
    found = []
    for key in COSTS:
        values = [v for row in sweep.rows if (v := spent(row, key))]
        if len(values) > 1 and max(values) > UNEQUAL * min(values):
            found.append(key)
    return found

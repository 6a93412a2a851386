"""What rows spent, and where that makes a comparison unfair."""

from __future__ import annotations

import numpy as np

from detlab.report.rows import Row, Sweep

SPENT = {  # budget.json's key -> title; the report warns where those of FAIR differ
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
COSTS = ("latency_ms", "parameters", "flops", "hours")  # what a better row may owe its AP to
UNEQUAL = 1.1  # times the cheapest: from there on rows differ in cost


def spent(row: Row, key: str) -> float | None:
    """Mean over a row's runs of what they spent."""
    values = [run.budget[key] for run in row.done.values() if isinstance(run.budget.get(key), int | float)]
    return float(np.mean(values)) if values else None


def unfair(sweep: Sweep) -> list[str]:
    """Sentences about what differs between rows and is not what was asked."""
    found = []
    for key in FAIR:
        values = {round(v, 12) for row in sweep.rows if (v := spent(row, key)) is not None}
        if len(values) > 1 and not any(name.endswith(key) for name in sweep.factors):
            shown = ", ".join(f"{v:g}" for v in sorted(values))
            found.append(f"The rows differ in {SPENT[key]} ({shown}): a difference between them may come from that.")
    return found


def unequal(sweep: Sweep) -> list[str]:
    """Costs in which rows differ by more than a tenth: keys of `COSTS`."""
    found = []
    for key in COSTS:
        values = [v for row in sweep.rows if (v := spent(row, key))]
        if len(values) > 1 and max(values) > UNEQUAL * min(values):
            found.append(key)
    return found

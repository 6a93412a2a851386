"""A result as the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping

TITLES = {
    "map": "mAP",
    "map_50": "mAP50",
    "map_75": "mAP75",
    "map_small": "mAP small",
    "map_medium": "mAP medium",
    "map_large": "mAP large",
    "mar_1": "AR@1",
    "mar_10": "AR@10",
    "mar_100": "AR@100",
    "ar_100": "AR@100",
    "ar_300": "AR@300",
    "ar_1000": "AR@1000",
    "ar_small": "AR small",
    "ar_medium": "AR medium",
    "ar_large": "AR large",
}


def summary_rows(results: Mapping[str, float]) -> list[tuple[str, str]]:
    """(title, value) of a metric's result: the totals in the usual order, then the classes by name."""
    rows = [(title, f"{results[key]:.3f}") for key, title in TITLES.items() if key in results]
    classes = [(f"AP {key[3:]}", f"{value:.3f}") for key, value in results.items() if key.startswith("ap/")]
    return rows + classes

"""A metric's result as rows of a table."""

from __future__ import annotations

import re
from collections.abc import Mapping

TITLES = {
    "map": "mAP",
    "map_50": "mAP50",
    "map_75": "mAP75",
    "map_small": "mAP small",
    "map_medium": "mAP medium",
    "map_large": "mAP large",
    "map_voc07": "mAP VOC 2007",
    "map_voc12": "mAP VOC 2012",
    "ar_small": "AR small",
    "ar_medium": "AR medium",
    "ar_large": "AR large",
    "mar_small": "AR small",
    "mar_medium": "AR medium",
    "mar_large": "AR large",
}
BY_CLASS = {"ap/": "AP", "ap_voc07/": "AP VOC 2007", "ap_voc12/": "AP VOC 2012"}  # before a class's name
RECALL_AT = re.compile(r"m?ar_(\d+)")  # mar_100: COCO's AR; ar_100: recall of proposals


def summary_rows(results: Mapping[str, float]) -> list[tuple[str, str]]:
    """(title, value) of a metric's result: totals in the usual order, then metrics of your own, then classes."""
    titles = TITLES | {key: f"AR@{m[1]}" for key in results if (m := RECALL_AT.fullmatch(key))}
    own = (key for key in results if key not in titles and not key.startswith(tuple(BY_CLASS)))
    titles |= {key: key for key in own}
    for start, title in BY_CLASS.items():
        titles |= {key: f"{title} {key[len(start) :]}" for key in results if key.startswith(start)}
    return [(title, f"{results[key]:.3f}") for key, title in titles.items() if key in results]

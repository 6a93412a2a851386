"""Splits and class filters of records."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detlab.data.formats.source import Splits
from detlab.data.records import Record
from detlab.errors import DataError


def of_classes(records: list[Record], renumber: Mapping[int, int]) -> list[Record]:
    """Records with the boxes of some classes only, whose labels are renumbered; the images all stay."""
    out = []
    for item in records:
        kept = item.keep(np.array([label in renumber for label in item.labels], bool))
        kept.labels[:] = [renumber[label] for label in kept.labels]
        out.append(kept)
    return out


def with_val(splits: Splits, val_fraction: float, seed: int) -> Splits:
    """Splits with a val part: the data set's own, else a seeded share of train.

    Raises:
        DataError: the share leaves one side empty.
    """
    if splits.get("val") or not splits.get("train"):
        return splits
    train = splits["train"]
    count = round(len(train) * val_fraction)
    if not 0 < count < len(train):
        raise DataError(
            f"data.val_fraction={val_fraction} of {len(train)} training images leaves one side empty; the data set "
            f"has no val split of its own, so give a fraction between 0 and 1."
        )
    picked = set(np.random.default_rng(seed).permutation(len(train))[:count].tolist())
    return splits | {
        "train": [r for i, r in enumerate(train) if i not in picked],
        "val": [r for i, r in enumerate(train) if i in picked],
    }

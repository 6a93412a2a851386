"""The contents of a data set as plain values: classes, and for each split its images, boxes and findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from detlab.data.datamodule import DetectionData
from detlab.data.formats.source import SPLITS
from detlab.data.records import Record

PLACES = 6  # decimals of px; rounds away the error of multiplying shares


def contents(data: DetectionData) -> dict[str, Any]:
    """The contents of a data set after the audit.

    Returns:
        classes: names in label order; splits: for each that the data set has, images and boxes (counts), findings
        (cases by rule) and items, with file (below data.root, if it lies there), width and height (px, as displayed)
        and boxes, each [x1, y1, x2, y2, class name] in original pixels.
    """
    top = root_of(data)
    splits = {}
    for split in SPLITS:
        findings = data.report.counts(split)
        if not data.has(split) and not findings:
            continue
        records = data.records(split) if data.has(split) else []
        splits[split] = {
            "images": len(records),
            "boxes": sum(len(r.labels) for r in records),
            "findings": findings,
            "items": [_item(r, data.class_names, top) for r in records],
        }
    return {"classes": list(data.class_names), "splits": splits}


def _item(record: Record, class_names: tuple[str, ...], top: Path | None) -> dict[str, Any]:
    rows = zip(np.round(record.boxes, PLACES).tolist(), record.labels.tolist(), strict=True)
    return {
        "file": file_of(record, top),
        "width": int(record.size[1]),
        "height": int(record.size[0]),
        "boxes": [[*box, class_names[label]] for box, label in rows],
    }


def root_of(data: DetectionData) -> Path | None:
    """The source's root, if it has one."""
    root = getattr(data.source, "root", None)
    return Path(root).expanduser().absolute() if root else None


def file_of(record: Record, top: Path | None) -> str:
    """An image's path, relative to the root if it lies below it; its name, if it has no file."""
    if record.path is None:
        return record.name
    if top is not None:
        for folder in (top, top.parent):  # data.root may be a file, such as a data.yaml
            if (folder == top or top.is_file()) and record.path.is_relative_to(folder):
                return record.path.relative_to(folder).as_posix()
    return record.path.as_posix()

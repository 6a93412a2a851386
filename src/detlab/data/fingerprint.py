"""A hash of the data that a run was trained and evaluated on."""

from __future__ import annotations

import hashlib

from detlab.data.datamodule import DetectionData
from detlab.data.formats.source import SPLITS


def fingerprint(data: DetectionData) -> str:
    """Hash, twelve hex digits, of classes, images and boxes after the audit.

    Of an image the id, name, height, width and file size in bytes are hashed; pixels are not read.
    """
    digest = hashlib.sha256(repr(data.class_names).encode())
    for split in SPLITS:
        if not data.has(split):
            continue
        digest.update(split.encode())
        for item in data.records(split):
            length = item.path.stat().st_size if item.path is not None else 0
            digest.update(repr((item.id, item.name, item.size, length)).encode())
            for values in (item.boxes, item.labels, item.crowd, item.difficult):
                digest.update(values.tobytes())
    return digest.hexdigest()[:12]

"""YOLO data sets: a data.yaml and one text file of normalised boxes per image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml

from detlab.data.audit import AuditReport, inside, printable
from detlab.data.datamodule import DetectionData
from detlab.data.formats.source import Source, Splits
from detlab.data.images import ImageError, inspect
from detlab.data.records import Classes, Record, record
from detlab.errors import DataError
from detlab.ranges import OptionsOf

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


class Yolo(Source):
    """A YOLO data.yaml with path, train, val, test and names.

    Labels lie beside the images with /images/ replaced by /labels/; rows are class cx cy w h, shares of the image.

    Args:
        root: the data.yaml, or the folder that holds it.
    """

    def __init__(self, *, root: str | None) -> None:
        self.root = root

    def read(self, report: AuditReport) -> tuple[Classes, Splits]:
        file = _yaml_file(self.root)
        try:
            document = yaml.safe_load(file.read_text())
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise DataError(f"data.root={self.root}: {file.name} is not readable YAML ({str(error)[:200]}).") from error
        if not isinstance(document, dict) or "names" not in document:
            raise DataError(f"{file} has no 'names'; a YOLO data.yaml names its classes.")
        names = document["names"]
        pairs = list(names.items() if isinstance(names, dict) else enumerate(names if isinstance(names, list) else ()))
        if not pairs or not all(type(key) is int for key, _ in pairs):
            raise DataError(f"{file}: 'names' must be a list, or a map from whole numbers to names, and not empty.")
        pairs.sort(key=lambda pair: pair[0])
        classes = Classes(tuple(printable(str(name)) for _, name in pairs), tuple(int(key) for key, _ in pairs))
        labels = {key: i for i, (key, _) in enumerate(pairs)}
        base = inside(file.parent, str(document.get("path") or "."))
        if base is None:
            raise DataError(f"{file}: its 'path' leaves its folder; move the file there, or remove the key.")
        base = base if base.is_dir() else file.parent
        splits: Splits = {}
        number = 0
        for split in ("train", "val", "test"):
            if not document.get(split):
                continue
            records = []
            for path in _images(base, document[split], f"{file.name}: {split}"):
                number += 1
                if inside(base, str(path)) is None:
                    report.add(split, "image outside the root", str(path)[:200])
                    continue
                made = _record(path, base, number, labels, split, report)
                if made is not None:
                    records.append(made)
            splits[split] = records
        if "train" not in splits:
            raise DataError(f"{file} has no 'train' entry.")
        return classes, splits


def yolo(*, root: str | None = None, **loading: Annotated[Any, OptionsOf(DetectionData)]) -> DetectionData:
    """A YOLO data set; `loading` goes to `DetectionData`."""
    return DetectionData(source=Yolo(root=root), **loading)


def _yaml_file(root: str | None) -> Path:
    if root is None:
        raise DataError("data.root is not set; give your data.yaml, data.root=PATH/data.yaml.")
    path = Path(root).expanduser().resolve()
    if path.is_dir():
        found = sorted(path.glob("*.yaml")) + sorted(path.glob("*.yml"))
        if not found:
            raise DataError(f"data.root={root} holds no data.yaml; give the file itself.")
        path = next((p for p in found if p.stem == "data"), found[0])
    if not path.is_file():
        raise DataError(f"data.root={root} is neither a data.yaml nor a folder with one.")
    return path


def _images(base: Path, entry: Any, option: str) -> list[Path]:
    """Image files of a split: a folder, a text file of paths, or a list of either."""
    if isinstance(entry, list):
        return [path for part in entry for path in _images(base, part, option)]
    path = inside(base, str(entry))
    if path is None:
        raise DataError(f"{option}={str(entry)[:200]} leaves {base}.")
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if path.is_file():
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
        return [(base / line) for line in lines]
    raise DataError(f"{option}={entry} is neither a folder nor a list of images under {base}.")


def _label_file(path: Path) -> Path:
    parts = list(path.parts)
    for i in range(len(parts) - 1, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _record(
    path: Path, base: Path, number: int, labels: dict[int, int], split: str, report: AuditReport
) -> Record | None:
    name = str(path.relative_to(base))
    if not path.is_file():
        report.add(split, "missing image", name)
        return None
    try:
        height, width = inspect(path, decode=False).size
    except ImageError as error:
        report.add(split, "unreadable image", f"{name}: {error}")
        return None
    objects = []
    label_file = _label_file(path)
    ours = inside(base, str(label_file)) is not None and label_file.is_file()
    lines = label_file.read_text(errors="replace").splitlines() if ours else []
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        values = _numbers(line)
        where = f"{label_file.name}:{row}"
        if values is None:
            report.add(split, "malformed box", where)
        elif int(values[0]) not in labels:
            report.add(split, "unknown class", f"{where} (class {int(values[0])})")
        else:
            cx, cy, w, h = np.array(values[1:5]) * (width, height, width, height)
            box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
            objects.append({"box": box, "label": labels[int(values[0])]})
    return record(id=number, name=name, path=path, size=(height, width), objects=objects)


def _numbers(line: str) -> list[float] | None:
    """class cx cy w h of a line; a polygon (more columns) becomes its bounding box; None where malformed."""
    try:
        values = [float(v) for v in line.split()]
    except ValueError:
        return None
    if not np.isfinite(values).all() or len(values) < 5 or values[0] != int(values[0]):
        return None
    if len(values) == 5:
        return values
    if len(values) % 2 == 0:
        return None
    xs, ys = values[1::2], values[2::2]
    low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)
    return [values[0], (low_x + high_x) / 2, (low_y + high_y) / 2, high_x - low_x, high_y - low_y]

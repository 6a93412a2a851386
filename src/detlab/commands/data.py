"""detlab data: content of a data set before training: tables by split, class and size, the audit, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from PIL import Image
from rich.progress import track
from rich.table import Table

from detlab.commands.app import on_plain_config, run_app
from detlab.config.compose import config_dir
from detlab.data import DetectionData
from detlab.data.contents import contents, file_of, root_of
from detlab.data.counts import (
    SIZES,
    ClassCount,
    SizeCount,
    areas_of,
    by_class,
    by_size,
    chosen,
    magnification,
    size_of,
    splits_of,
    without_boxes,
)
from detlab.data.images import ImageError
from detlab.data.records import Record
from detlab.drawing import data_page
from detlab.drawing.pictures import Boxes, draw_boxes, picture_sheet
from detlab.errors import ConfigError
from detlab.system.files import write_json, write_whole
from detlab.system.printing import PlainConsole, say, show
from detlab.training.build import make_data
from detlab.training.console import say_audit

USAGE = "detlab data data=voc data.root=..."

WIDTH = 110  # smallest width of the tables in characters, also without a terminal
MOST_ROWS = 100  # largest number of rows of a printed table; data.html has them all
SHEET = 24  # largest number of pictures in data_sheet.png
COLUMNS, SIDE = 6, 400  # of that sheet: pictures in a row, and px of a picture's longer side


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="data")
@on_plain_config("data")
def main(config: dict[str, Any]) -> None:
    """Print the content of a data set, draw its pictures, and write it as JSON with json=FILE."""
    look(config)


def look(config: Mapping[str, Any]) -> DetectionData:
    """Read and audit a data set, print its tables, and write data_sheet.png and data.html; splits may be missing.

    Raises:
        DataError: the data set cannot be read.
        ConfigError: the json file cannot be written.
    """
    data = make_data(config, required=())
    say_audit(data)
    tables = [class_table(by_class(data), without_boxes(data)), size_table(by_size(data), input_of(data))]
    for table in tables:
        _print(table)
    for line in anchor_lines(config, data):
        say(line)
    if config["json"]:
        write_contents(data, str(config["json"]))
    out = Path(config["paths"]["run_dir"])
    if config["pictures"]:
        audit = data_page.Table("audit", ("split", "dirt", "count", "what is done", "examples"), data.report.as_rows())
        write_pictures(data, int(config["pictures"]), [audit, *tables], out)
    say(f"results     {out}")
    return data


def class_table(rows: Sequence[ClassCount], empty: Mapping[str, int]) -> data_page.Table:
    """Images and boxes of each class and split.

    Args:
        rows: see `by_class`.
        empty: images without boxes by split.
    """
    splits = list(empty)
    heads = ["class", *(f"{split} {what}" for split in splits for what in ("images", "boxes")), "all boxes"]
    made = []
    for row in rows:
        cells = [f"{counts[split]:,}" for split in splits for counts in (row.images, row.boxes)]
        made.append([row.name, *cells, f"{sum(row.boxes.values()):,}"])
    if any(empty.values()):
        made.append(["(no box)", *(cell for split in splits for cell in (f"{empty[split]:,}", "")), ""])
    return data_page.Table("images and boxes", heads, made)


def size_table(rows: Sequence[SizeCount], seen_at: str) -> data_page.Table:
    """Shares of small, medium and large boxes of each class, in the original and as the network sees them."""
    heads = ["class", "boxes", *SIZES, *(f"seen {name}" for name in SIZES), "seen side 5 %", "50 %", "95 %"]
    made = []
    for row in rows:
        total = sum(row.original)
        shares = [f"{n / total:.0%}" if total else "" for n in (*row.original, *row.seen)]
        made.append([row.name, f"{total:,}", *shares, *([f"{side:.0f}" for side in row.sides] or [""] * 3)])
    title = f"box sizes: areas below 32 x 32, below 96 x 96 px and above; seen: by the network, {seen_at}"
    return data_page.Table(title, heads, made)


def input_of(data: DetectionData) -> str:
    """How images are resized, in words."""
    size = data.resize.size
    if data.resize.mode == "short_side":
        most = f", at most {data.resize.max_size}" if data.resize.max_size else ""
        return f"shorter side {size[0]} px{most}"
    return f"{data.resize.mode} {size[0]} x {size[1]} px"


def anchor_lines(config: Mapping[str, Any], data: DetectionData) -> list[str]:
    """The boxes beside the sizes of the model's anchors, as far as these stand in the config; none without anchors."""
    node = config["model"].get("anchors")
    if not node:
        return []
    more = f"detlab anchors model={config['name']} data=... measures how well they cover the boxes"
    sizes = [s * o for s in node.get("sizes", ()) for o in node.get("octaves", (1.0,))]
    sizes += [(w * h) ** 0.5 for w, h in node.get("shapes", ())]
    sides = np.sqrt(areas_of(data).seen)
    if not sizes or not len(sides):
        return [f"anchors     {more}"]
    low, high = min(sizes), max(sizes)
    below, above = (sides < low / 2).mean(), (sides > 2 * high).mean()
    return [
        f"anchors     model={config['name']} has sizes from {low:.0f} to {high:.0f} px; {below:.1%} of the boxes are "
        f"smaller than half the smallest, {above:.1%} larger than twice the largest",
        f"            {more}",
    ]


def write_pictures(data: DetectionData, most: int, tables: Sequence[data_page.Table], out: Path) -> None:
    """Write data.html with at most `most` pictures, and data_sheet.png with some of them."""
    top = root_of(data)
    for_page, for_sheet = (chosen(data, count) for count in (most, min(most, SHEET)))
    on_page, on_sheet = ({(split, item.id) for split, item in picked} for picked in (for_page, for_sheet))
    wanted = [*for_page, *(pair for pair in for_sheet if (pair[0], pair[1].id) not in on_page)]
    pictures: list[data_page.Picture] = []
    cells: dict[tuple[str, int], tuple[Image.Image, str]] = {}
    unread = 0
    for split, item in track(wanted, description="pictures", console=PlainConsole(stderr=True)):
        try:
            image = data.source.image(item)
        except ImageError:  # it vanished since the audit, or only its header was checked
            unread += 1
            continue
        file = file_of(item, top)
        if (split, item.id) in on_page:
            dirt = sorted(data.report.by_file.get(item.path, ())) if item.path is not None else ()
            boxes = _page_boxes(data, item)
            pictures.append(data_page.Picture(split, file, item.size, data_page.thumbnail(image), boxes, dirt))
        if (split, item.id) in on_sheet:
            drawn = draw_boxes(image, Boxes(item.boxes, item.labels), data.class_names, fit=SIDE)
            cells[split, item.id] = drawn, f"{split}  {Path(file).name}"
    total = sum(map(len, splits_of(data).values()))
    facts = [
        f"{total:,} images; {data.num_classes} classes; boxes as the audit left them, in the images as displayed",
        f"{len(pictures)} images are shown: some of every split, of every class and of every kind of dirt"
        if len(pictures) < total
        else "all images are shown",
        *data.notes,
    ]
    name = Path(str(getattr(data.source, "root", None) or type(data.source).__name__.lower())).name
    text = data_page.data_page(f"Data: {name}", facts, tables, pictures, data.class_names, SIZES)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "data.html", text.encode())
    if cells:
        ordered = [cells[split, item.id] for split, item in for_sheet if (split, item.id) in cells]
        sheet = picture_sheet([drawn for drawn, _ in ordered], [caption for _, caption in ordered], COLUMNS)
        sheet.save(out / "data_sheet.png")
    if unread:
        say(f"note        {unread} images could not be read and are not shown")


def _page_boxes(data: DetectionData, item: Record) -> list[tuple[float, float, float, float, int, int, bool]]:
    sizes = size_of(item.area * magnification(data, item))
    rows = zip(item.boxes.tolist(), item.labels.tolist(), sizes.tolist(), item.crowd.tolist(), strict=True)
    return [(*box, label, size, crowd) for box, label, size, crowd in rows]


def _print(table: data_page.Table) -> None:
    """Print a table, a long one without its last rows."""
    shown = Table(title=table.title)
    for i, head in enumerate(table.heads):
        shown.add_column(head, justify="right" if i else "left")
    for row in table.rows[:MOST_ROWS]:
        shown.add_row(*row)
    show(shown, WIDTH)
    if len(table.rows) > MOST_ROWS:
        say(f"            and {len(table.rows) - MOST_ROWS} rows more, see data.html")


def write_contents(data: DetectionData, file: str) -> None:
    """Write the JSON file.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = Path(file).expanduser()
    try:
        write_json(path, contents(data), compact=True)
    except OSError as error:
        raise ConfigError(
            f"json={file} cannot be written ({error.strerror}); give a file in a folder of yours."
        ) from error
    say(f"json        {path}")


if __name__ == "__main__":
    run_app(main, "data")

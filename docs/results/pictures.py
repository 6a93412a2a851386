"""The pictures of results.md from run folders: curves of all runs, and the same test images found by each.

    python docs/results/pictures.py DATA_ROOT [out=PREFIX] NAME=RUN_FOLDER ...

Writes PREFIX_curves.png and PREFIX.jpg beside this file; PREFIX is families.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import detlab
from detlab.data.formats.bccd import bccd
from detlab.drawing.pictures import PALETTE, Boxes, draw_boxes

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
IMAGES = (0, 20, 40, 60)  # of the test split
SCORE = 0.5
BEST = 20  # proposals of the RPN
WIDTH = 260  # px of one picture


def curves(prefix: str, runs: dict[str, Path]) -> None:
    """Validation mAP by minutes of training; of the RPN its AR@300."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for i, (name, folder) in enumerate(runs.items()):
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        key = "val/map" if any(row.get("val/map") for row in rows) else "val/ar_300"
        epochs = [(int(row["epoch"]) + 1, float(row[key])) for row in rows if row.get(key)]
        seconds = [float(row["time/epoch_s"]) for row in rows if row.get("time/epoch_s")]
        minutes = np.cumsum(seconds) / 60
        x = [minutes[min(epoch, len(minutes)) - 1] for epoch, _ in epochs]
        label = name if key == "val/map" else f"{name} (AR@300)"
        style = "-" if i < len(PALETTE) else "--"
        axes.plot(x, [v for _, v in epochs], style, marker="o", label=label, color=PALETTE[i % len(PALETTE)])
    axes.set(xlabel="minutes on one core", ylabel="validation mAP", ylim=(0, 0.8), xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(HERE / f"{prefix}_curves.png", dpi=90)


def sheet(root: str, prefix: str, runs: dict[str, Path]) -> None:
    """Rows: ground truth, then each family; columns: the images."""
    data = bccd(root=root, size=480, max_size=640)
    data.setup()
    records = [data.records("test")[i] for i in IMAGES]
    images = [data.source.image(record) for record in records]
    names = data.class_names
    rows = [("ground truth", [Boxes(r.boxes, r.labels) for r in records], names)]
    for name, folder in runs.items():
        loaded = detlab.load(folder)
        given = None
        if loaded.detector.box_source == "proposals":
            data.proposal_source = loaded.config["data"]["proposals"]
            data.proposal_count = loaded.config["data"]["proposal_count"]
            given = [data._open_proposals()(record)[0] for record in records]
        found = loaded.predict(images, score_threshold=SCORE, proposals=given)
        if loaded.detector.class_agnostic:
            drawn = [Boxes(f["boxes"][:BEST], f["labels"][:BEST]) for f in found]
            rows.append((f"{name}\nbest {BEST}", drawn, ("object",)))
        else:
            rows.append((name, [Boxes(f["boxes"], f["labels"], f["scores"]) for f in found], names))
    height = round(WIDTH * images[0].shape[1] / images[0].shape[2])
    whole = Image.new("RGB", (110 + len(images) * (WIDTH + 4), len(rows) * (height + 4)), "white")
    font = ImageFont.load_default(size=14)
    for y, (name, boxes, shown) in enumerate(rows):
        ImageDraw.Draw(whole).text((4, y * (height + 4) + height // 2), name, "black", font)
        for x, (image, drawn) in enumerate(zip(images, boxes, strict=True)):
            picture = draw_boxes(image, drawn, [""] * len(shown)).resize((WIDTH, height))
            whole.paste(picture, (110 + x * (WIDTH + 4), y * (height + 4)))
    whole.save(HERE / f"{prefix}.jpg", quality=72)


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[2:])
    out = given.pop("out", "families")
    chosen = {name: Path(folder) for name, folder in given.items()}
    curves(out, chosen)
    sheet(sys.argv[1], out, chosen)

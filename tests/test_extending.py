"""CONTRIBUTING is followed to the letter: its files are written outside the checkout, and each part trains."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```(?:python|yaml)\n# (my_\S+)\n(.*?)```", re.DOTALL)
SMALL = [
    "trainer.max_epochs=1", "trainer.precision=32-true", "logger=csv", "data.num_workers=0", "data.batch_size=2",
    "data.cache_dir=null", "model.head.depth=1", "model.head.width=16", "model.anchors.sizes=[16,32]",
]  # fmt: skip
CHOICES = {
    "backbone": "model/backbone=plain",
    "neck": "model/neck=summed",
    "box_loss": "model/box_loss=charbonnier",
    "metric": "metrics=counted",
    "family": "model=counting",
    "data": "data=lines",
}


def example(folder: Path) -> None:
    """Write every file of CONTRIBUTING, and eight pictures with a list of their boxes."""
    files = dict(BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text()))
    assert len(files) == 12
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    g = np.random.default_rng(0)
    rows = []
    for i, split in enumerate(["train"] * 4 + ["val"] * 2 + ["test"] * 2):
        Image.fromarray(g.integers(0, 255, (64, 96, 3), np.uint8)).save(folder / f"{i}.png")
        boxes = [[4 + i, 6, 40 + i, 50, "cat"], [30, 10, 70, 40 + i, "dog"]]
        rows.append({"split": split, "file": f"{i}.png", "width": 96, "height": 64, "boxes": boxes})
    (folder / "boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))


def train(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "detlab.cli", "train", "--config-dir", "my_conf", *words, *SMALL,
        f"hydra.run.dir={folder / 'run'}",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)


def test_all_six_train_together_and_load_with_trust(tmp_path: Path) -> None:
    example(tmp_path)
    done = train(tmp_path, *CHOICES.values(), "data.root=boxes.jsonl")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert metrics["detections_per_image"] >= 0
    config = yaml.safe_load((tmp_path / "run" / ".hydra" / "config.yaml").read_text())
    assert config["model"]["_target_"] == "my_package.counting.Counting"
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert "val/loss_count" in header
    assert "val/detections_per_image" in header
    load = "import detlab; detlab.load('run', trust={trust}).predict(['0.png'])"
    for trust, words in (([], "trust="), (["my_package"], "")):
        found = subprocess.run(
            [sys.executable, "-c", load.format(trust=trust)], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert (found.returncode == 0) == bool(trust), found.stderr[-2000:]
        assert words in found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("part", [part for part in CHOICES if part != "data"])
def test_each_trains_alone(part: str, tmp_path: Path) -> None:
    """On built-in data, beside built-in parts."""
    example(tmp_path)
    few = ["data.side=64", "data.size=64", "data.sizes=[14,30]", "data.counts={train: 8, val: 4, test: 4}"]
    done = train(tmp_path, CHOICES[part], *few)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_the_data_format_alone(tmp_path: Path) -> None:
    example(tmp_path)
    done = train(tmp_path, CHOICES["data"], "data.root=boxes.jsonl")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

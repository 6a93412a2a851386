"""Every command of README.md and docs/first-detector.md, as it stands there: composed, and in the slow run carried out.

PATH and RUN are a small data set and a run in the folder of the commands; what is added only shortens the work.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detlab.commands.listing import commands
from detlab.config.compose import compose_config, open_keys, valid_config
from detlab.config.rules import check
from tests.data.writing import coco_json, picture, row, simple_yolo, voc_xml

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
PLAIN = ("ablate", "report", "benchmark", "completion", "options")  # commands without a config
SHORT = [
    "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1", "trainer.check_val_every_n_epoch=1", "trainer.precision=32-true", "logger=csv",
    "data.num_workers=0", "data.batch_size=2", "data.size=64", "data.max_size=96", "data.cache_dir=null",
]  # fmt: skip
BRIEF = {"train": SHORT, "check": [*SHORT, "steps=2", "batches=1"], "anchors": ["data.cache_dir=null"]}
BRIEF |= {"data": ["data.cache_dir=null", "pictures=4"]}
NOT_RUN = {  # commands that are shown at work elsewhere
    "detlab ablate": "tests/commands/test_ablate.py",
    "detlab report": "tests/report/test_page.py",
    "detlab train -m": "tests/sweeps/test_launcher.py",
    "detlab train --config-dir": "tests/test_extending.py",
}


def documented(name: str) -> list[str]:
    """The commands of a file's blocks, without their comments; a line that ends in a backslash goes on."""
    lines = "\n".join(BLOCK.findall((ROOT / name).read_text())).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("detlab ")]


README, FIRST = documented("README.md"), documented("docs/first-detector.md")
NAMES = [" ".join(line.split()[1:5]) for line in [*README, *FIRST]]


def test_the_files_have_commands() -> None:
    assert len(README) >= 15
    assert len(FIRST) >= 7


@pytest.mark.parametrize("line", [*README, *FIRST], ids=NAMES)
def test_a_command_composes(line: str) -> None:
    _, command, *words = shlex.split(line, comments=True)
    assert command in commands()
    if command in PLAIN or "-m" in words or "--config-dir" in words:
        return
    typed = [word for word in words if "=" in word]
    paths = ["name=x", "paths.run_dir=x"] if command in ("train", "check", "anchors", "data") else ["paths.run_dir=x"]
    config = valid_config(compose_config(command, open_keys(command, [*typed, *paths])), command, typed)
    if command in ("train", "check"):
        check(config)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs and annotations of every format, and nothing else."""
    folder = tmp_path_factory.mktemp("first") / "PATH"
    rows, images, table = [], [], ["filename,class,xmin,ymin,xmax,ymax"]
    for i in range(12):
        name, box = f"{i}.jpg", (4 + i, 5, 40 + i, 60)
        picture(folder / "images" / name, (80, 100))
        voc_xml(folder / "annotations" / f"{i}.xml", [("dog" if i % 2 else "cat", box)], (80, 100))
        images.append({"id": i + 1, "file_name": name, "height": 80, "width": 100})
        rows.append(row(i + 1, i + 1, [box[0], box[1], 36, 55], 6 if i % 2 else 3))
        table.append(f"images/{name},{'dog' if i % 2 else 'cat'},{','.join(map(str, box))}")
    coco_json(folder / "train.json", images, rows)
    (folder / "boxes.csv").write_text("\n".join(table))
    simple_yolo(folder.parent / "yolo")
    given = ["data=voc", "data.root=PATH", "data.val_fraction=0.1", "data.test_fraction=0.2", "hydra.run.dir=RUN"]
    done = run(folder.parent, "train", ["experiment=small_data", *given])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder.parent


def run(folder: Path, command: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Carry a command out, shortened by what it does not set itself."""
    given = {word.partition("=")[0] for word in words}
    brief = [word for word in BRIEF.get(command, []) if word.partition("=")[0] not in given]
    brief = [] if {"--help", "--cfg"} & given else brief
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "detlab.cli", command, *words, *brief],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def shortened(words: list[str]) -> list[str]:
    """A line's own lengths and machines, where this machine has not got them; `data.root` of YOLO is its own folder."""
    changes = {
        "trainer=gpu": "trainer=gpu" if torch.cuda.is_available() else "trainer=cpu",
        "data.size=512": "data.size=64",
    }
    changes |= {"data.num_workers=8": "data.num_workers=0", "data.max_size=768": "data.max_size=96"}
    changes |= {"data.root=PATH/data.yaml": "data.root=yolo/data.yaml"}
    return [changes.get(word, word) for word in words]


@pytest.mark.slow
@pytest.mark.parametrize("line", [*README, *FIRST], ids=NAMES)
def test_a_command_runs(line: str, place: Path) -> None:
    known = next((shown for begin, shown in NOT_RUN.items() if line.startswith(begin)), None)
    if known:
        assert (ROOT / known).is_file()
        return
    _, command, *words = shlex.split(line, comments=True)
    if {"resume=true", "init_from=RUN"} & set(words) and "experiment=small_data" not in words:
        words.append("experiment=small_data")  # the run's own options, as these lines say
    done = run(place, command, shortened(words))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    if command == "check" and any(word.startswith("minutes=") for word in words):
        pasted = shlex.split(done.stdout.strip().splitlines()[-1])
        again = run(place, pasted[1], pasted[2:])
        assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-2000:]
        assert "run folder" in again.stdout

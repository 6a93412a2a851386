"""detlab check: a table of verdicts, the cost of a run, the number of jobs of a sweep."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from detlab.commands.check import FAIL, PASS, SKIPPED, Preflight, estimate, first_of_sweep, print_table
from detlab.commands.proposing import propose
from detlab.config.compose import compose_config, plain_config
from tests.data.writing import simple_voc
from tests.metrics.test_anchor_coverage import config_of

TINY = ["model.neck.width=32", "model.head.width=32", "model.head.depth=1", "data.batch_size=2", "steps=2"]
TINY += ["trainer.precision=32-true", "model.anchors.sizes=[8,16,32,64,128]"]


def checked(tmp_path: Path, *overrides: str) -> dict[str, tuple[str, str]]:
    preflight = Preflight(config_of(tmp_path, "check", *TINY, *overrides), jobs=4)
    preflight.go()
    print_table(preflight)
    return {name: (verdict, seen) for name, verdict, seen, _ in preflight.rows} | {"passed": preflight.passed}


def test_a_sound_config_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = checked(tmp_path, "trainer.max_epochs=3")
    assert rows["passed"], rows
    assert {v[0] for k, v in rows.items() if k not in ("passed", "anchors")} == {PASS}
    assert rows["training steps"][1].startswith("2 steps, loss ")
    assert "weights_only=True" in rows["checkpoint"][1]
    assert rows["cost"][1].startswith("about ")
    assert "18 steps of" in rows["cost"][1]
    assert "4 jobs" in rows["cost"][1]
    assert "ready to run" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.ckpt"))


def failed(config: dict[str, Any]) -> dict[str, tuple[str, str]]:
    preflight = Preflight(config)
    preflight.go()
    assert not preflight.passed
    return {name: (verdict, seen) for name, verdict, seen, _ in preflight.rows}


@pytest.mark.parametrize(
    ("override", "name", "message"),
    [
        ("model.backbone.norm=frozen_bn", "options", "model.backbone.norm=frozen_bn is refused"),
        ("monitor=val/mapp", "evaluation", "gave no val/mapp"),
    ],
)
def test_a_fault_fails_its_own_line_and_the_rest_is_skipped(
    tmp_path: Path, override: str, name: str, message: str
) -> None:
    rows = failed(config_of(tmp_path, "check", *TINY, override))
    assert rows[name][0] == FAIL
    assert message in rows[name][1]
    assert rows["cost"][0] == SKIPPED


def test_missing_data_fails_its_line(tmp_path: Path) -> None:
    overrides = ["name=x", f"paths.run_dir={tmp_path}", "data=coco", "data.root=/nowhere"]
    rows = failed(plain_config(compose_config("check", overrides)))
    verdict, seen = rows["data and model"]
    assert verdict == FAIL
    assert seen.startswith("data.root=/nowhere is not a folder")


def test_sweeps_are_counted_and_checked_by_their_first_job() -> None:
    single, jobs = first_of_sweep(["-m", "model/neck=fpn,none", "seed=range(3)", "optim.lr=0.1", "data.size=[64,64]"])
    assert single == ["model/neck=fpn", "seed=0", "optim.lr=0.1", "data.size=[64,64]"]
    assert jobs == 6
    assert first_of_sweep(["model=rpn", "--cfg", "job"]) == (["model=rpn", "--cfg", "job"], 1)


def test_the_estimate_by_hand() -> None:
    """103 steps an epoch are 1854 over 18; evaluated 6 times on 87 images, tested once on 72."""

    class Data:
        def train_dataloader(self) -> range:
            return range(103)

        def records(self, split: str) -> range:
            return {"val": range(87), "test": range(72)}[split]

    trainer = {"max_epochs": 18, "check_val_every_n_epoch": 3, "devices": 1}
    seconds, parts = estimate({"trainer": trainer, "test": True}, Data(), step=0.5, image=0.1)
    assert seconds == pytest.approx(1854 * 0.5 + (6 * 87 + 72) * 0.1)
    assert parts.startswith("1854 steps of 0.50 s, 6 evaluations")
    half, _ = estimate({"trainer": trainer | {"devices": 2}, "test": True}, Data(), step=0.5, image=0.1)
    assert half == pytest.approx(seconds / 2)
    limited = {"trainer": trainer | {"max_time": "00:00:01:00"}, "test": True}
    short, said = estimate(limited, Data(), step=0.5, image=0.1)
    assert short == pytest.approx(60 + 72 * 0.1)
    assert said.endswith("which trainer.max_time ends")


def test_minutes_propose_a_command_that_composes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its settings fit data and time; options that were given stay as they are, and none of check's is left."""
    simple_voc(tmp_path / "photos")
    words = [
        "data=voc",
        f"data.root={tmp_path / 'photos'}",
        "data.cache_dir=null",
        "threads=1",
        "minutes=10",
        "steps=3",
    ]
    words += ["data.max_size=333", "trainer.precision=32-true"]
    config = plain_config(compose_config("check", [*words, f"paths.run_dir={tmp_path}", "name=x"]))
    measured: list[dict[str, Any]] = []

    def measure(config: dict[str, Any]) -> tuple[float, float]:
        measured.append(config)
        return 50.0, 0.01  # ten steps of four in the time: 20.5 passes over two pictures, where 25 are wanted

    assert propose(config, words, measure)
    printed = capsys.readouterr().out
    command = shlex.split(printed.strip().splitlines()[-1])
    assert command[:3] == ["detlab", "train", "experiment=small_data"]
    assert set(words[:4]) < set(command)
    assert "data.max_size=333" in command
    assert not [word for word in command if word.startswith(("minutes", "steps", "paths", "name"))]
    plain = plain_config(compose_config("train", [*command[2:], f"paths.run_dir={tmp_path}", "name=x"]))
    assert plain["trainer"]["max_time"] == "00:00:10:00"
    assert plain["data"]["size"] == 160  # in place of 192 px: 20.5 * (192 / 160)^2 passes
    assert measured[0]["data"]["size"] == 192
    assert measured[0]["steps"] == 3
    assert "29.5 passes" in printed


def test_no_command_is_proposed_where_a_check_failed(tmp_path: Path) -> None:
    simple_voc(tmp_path / "photos")
    words = ["data=voc", f"data.root={tmp_path / 'photos'}", "data.cache_dir=null", "minutes=10"]
    config = plain_config(compose_config("check", [*words, f"paths.run_dir={tmp_path}", "name=x"]))
    assert not propose(config, words, lambda config: None)

"""detlab check: a table of verdicts, the cost of a run, the number of jobs of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detlab.commands.check import FAIL, PASS, SKIPPED, Preflight, estimate, first_of_sweep, print_table
from detlab.config.compose import compose_config, plain_config
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

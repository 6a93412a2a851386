"""What is read from a job's files, and shares of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from detlab.config.sweep_name import sweep_name
from detlab.sweeps.job import choices_of, describe, explain_log, read_history, read_progress
from detlab.sweeps.slots import GpuSlots, cores, thread_share

TRACEBACK = """epoch 1
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    f()
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "b.py", line 2, in <module>
    g()
detlab.data.audit.DataError: no images
    in two lines
[rank 0] bye
"""

CAUSED = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
    open("a.pth")
FileNotFoundError: a.pth

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "b.py", line 2, in <module>
    g()
RuntimeError: cannot load
"""


@pytest.mark.parametrize(
    ("log", "code", "reason"),
    [
        (TRACEBACK, 1, "detlab.data.audit.DataError: no images\n    in two lines"),
        (CAUSED, 1, "RuntimeError: cannot load (caused by FileNotFoundError: a.pth)"),
        ("noise\ndetlab: model/neck=fnp does not exist.\n", 2, "model/neck=fnp does not exist."),
        ("detlab: these do not fit:\n  a.b=1\n  c=2\n\nbye\n", 2, "these do not fit:\n  a.b=1\n  c=2"),
        (
            TRACEBACK.partition("detlab.data")[0]
            + "ValueError: one\n[/x] [red]two\nthree | 3\n[2026-11-27 10:00,1] bye\n",
            1,
            "ValueError: one\n[/x] [red]two\nthree | 3",
        ),
        (TRACEBACK, -9, "ended by signal 9"),
        ("Killed\n", 137, "exit status 137"),
    ],
)
def test_a_reason_is_the_last_error_in_the_log(log: str, code: int, reason: str, tmp_path: Path) -> None:
    (tmp_path / "job.log").write_text(log)
    found, traceback = explain_log(tmp_path / "job.log", code)
    assert found == reason
    if code == 1:
        assert traceback.startswith('Traceback (most recent call last):\n  File "b.py"')


def test_a_metrics_file_that_is_being_written_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("epoch,step,train/loss,val/map\n0,9,0.5,\n0,9,,0.25\n1,19,,0.5\n2,29,,0.")
    assert read_history(tmp_path / "m.csv", "val/map") == ((0, 0.25), (1, 0.5), (2, 0.0))
    assert read_history(tmp_path / "none.csv", "val/map") == ()
    (tmp_path / "m.csv").rename(tmp_path / "metrics.csv")
    (tmp_path / "status.json").write_text('{"epoch": 1, "step": 20, "monitor": "val/map"}')
    progress = read_progress(tmp_path)
    assert (progress.epoch, progress.step, progress.last, progress.best) == (1, 29, 0.0, 0.5)


def test_choices_are_what_differs_between_jobs() -> None:
    jobs = [["model/neck=fpn", "seed=0", "+x=1", "y=2"], ["model/neck=none", "seed=0", "+x=1"]]
    assert choices_of(jobs) == [{"model/neck": "fpn", "y": "2"}, {"model/neck": "none"}]
    assert choices_of([["a=1"]]) == [{"a": "1"}]
    assert describe({"model/neck": "fpn", "a.neck": "x"}) == "model/neck=fpn  a.neck=x"


def test_gpus_go_to_the_least_used_and_come_back() -> None:
    slots = GpuSlots(["4", "5"], jobs_per_gpu=2)
    assert slots.take(1) == ["4"]
    assert slots.take(1) == ["5"]
    assert slots.take(-1) == ["4", "5"]
    assert slots.take(1) is None
    slots.give(["5"])
    assert slots.take(2) is None
    assert slots.take(1) == ["5"]


def test_threads_are_shared_equally() -> None:
    assert thread_share(1) == cores()
    assert thread_share(1000) == 1
    assert thread_share(2, 2) == max(1, cores() // 4)


def test_a_sweeps_folder_is_named_by_what_is_swept_in_any_order() -> None:
    swept = ["seed=0,1", "model/neck=fpn,none", "data.counts={train: 8, val: 4}", "data.sizes=[14,30]", "optim.lr=0.1"]
    name = sweep_name(swept)
    assert name.startswith("neck-")
    assert sweep_name(list(reversed(swept))) == name
    assert sweep_name([*swept, "x=1"]) != name
    assert sweep_name(["optim.lr=interval(1,2)"]).startswith("lr-")
    assert sweep_name(["model.anchors.ratios=[1.0],[0.5,1.0]", "a=1"]).startswith("ratios-")  # lists are levels too
    assert sweep_name(["seed=0,1"]).startswith("seeds-")
    many = [f"section.quite_a_long_key_{i}=1,2" for i in range(4)]
    assert all(f"quite_a_long_key_{i}" in sweep_name(many) for i in range(4))


def test_more_seeds_or_levels_are_the_same_sweep() -> None:
    name = sweep_name(["model/neck=fpn,none", "optim.lr=0.1"])
    assert sweep_name(["model/neck=fpn,none", "optim.lr=0.1", "seed=3"]) == name
    assert sweep_name(["model/neck=fpn,none", "optim.lr=0.1", "seed=0,1,2"]) == name
    assert sweep_name(["model/neck=fpn,none,spp", "optim.lr=0.1"]) == name
    assert sweep_name(["model/neck=fpn,none", "optim.lr=0.2"]) != name
    assert sweep_name(["model/box_loss=giou,iou", "optim.lr=0.1"]) != name
    ablation = sweep_name(["ablation=box_loss", "budget=cpu"], {"model/box_loss": "l1,giou", "seed": "0,1,2"})
    assert ablation.startswith("box_loss-")
    narrower = ["ablation=box_loss", "budget=cpu", "model/box_loss=giou", "seed=0,1,2,3"]
    assert sweep_name(narrower, {"model/box_loss": "l1,giou", "seed": "0,1,2"}) == ablation

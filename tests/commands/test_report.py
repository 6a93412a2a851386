"""`detlab report` while a sweep runs: the page is followed, and nobody else is kept from writing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import detlab.commands.ablate as ablate
from detlab.commands import report
from detlab.commands.ablate import ROUNDS, answer, read_request
from detlab.report.results import Measured
from detlab.runs.folder import claim, give_back, in_use
from detlab.system.locks import is_locked
from tests.report.folders import write_run


def test_a_followed_page_reloads_while_the_sweep_runs_and_may_be_written_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "0", ["model/neck=none", "seed=0"])
    running, reloads, held = [True, True, False], [], []

    def look(_: float) -> None:
        reloads.append('http-equiv="refresh"' in (tmp_path / "report" / "index.html").read_text())
        held.append(is_locked(tmp_path / "report" / ".lock"))

    monkeypatch.setattr(report, "is_running", lambda _: running.pop(0))
    monkeypatch.setattr(report.time, "sleep", look)
    assert report.main([str(tmp_path), "follow=true"]) == 0
    assert reloads == [True, True]
    assert held == [False, False]  # the sweep's own command writes the page, too
    assert 'http-equiv="refresh"' not in (tmp_path / "report" / "index.html").read_text()
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_ctrl_c_ends_a_followed_page_without_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "0", ["model/neck=none", "seed=0"])

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "is_running", lambda _: True)
    monkeypatch.setattr(report.time, "sleep", interrupted)
    assert report.main([str(tmp_path), "follow=true"]) == 130
    assert (tmp_path / "report" / "index.html").is_file()


def test_a_sweep_that_goes_on_is_running_between_two_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DETLAB_OUTPUTS", str(tmp_path))
    request = read_request(["neck", "budget=cpu", "model/neck=none,fpn", "seed=0"])
    folder, seen = request.ablation.folder, []

    def measure(*_: Any) -> Measured:
        seen.append(is_locked(folder / ROUNDS / ".lock"))
        value = 0.5 if folder.is_dir() else float("nan")
        return Measured(ablate.np.full((2, 1), value), None, None)

    def launch(*_: Any) -> int:
        folder.mkdir(parents=True)
        return 0

    monkeypatch.setattr(ablate, "measure", measure)
    monkeypatch.setattr(ablate, "launch", launch)
    monkeypatch.setattr(ablate, "write_page", lambda *_: None)
    assert answer(request) == 0
    assert seen == [False, True, True]
    assert not is_locked(folder / ROUNDS / ".lock")
    assert not report.is_running([folder])
    claim(folder / ROUNDS, holds=())
    assert not in_use(folder / ROUNDS)  # by another process
    give_back(folder / ROUNDS)

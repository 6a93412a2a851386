"""`detlab options` and `detlab completion`: what may be given, from the files of conf/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from detlab.commands.completion import SCRIPTS, words
from detlab.commands.helping import help_lines
from detlab.commands.options import answer

DOCS = Path(__file__).resolve().parents[2] / "docs" / "options.md"


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = [sys.executable, "-m", f"detlab.commands.{command}", *arguments]
    return subprocess.run(code, capture_output=True, text=True, timeout=120)


def test_the_page_is_the_one_that_is_written_from_conf() -> None:
    """Make it again: detlab options markdown > docs/options.md."""
    assert DOCS.read_text() == "\n".join(answer("markdown")) + "\n"


def test_an_option_is_shown_with_its_keys() -> None:
    lines = list(answer("model/neck=fpn"))
    assert lines[0] == "model/neck=fpn"
    assert any(line.startswith("  model.neck.lateral=true") and "FPN table 1 e" in line for line in lines)


def test_a_group_is_shown_with_a_line_for_each_option() -> None:
    lines = list(answer("model/neck"))
    assert any(line.split()[0] == "fpn" and "RetinaNet" in line for line in lines)
    assert any("model/backbone: " in line for line in answer("model"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model/nek"], "There is no group model/nek; did you mean model/neck?"),
        (["model/neck=fpm"], "model/neck has no option fpm; did you mean fpn?"),
        (["a", "b"], "detlab options takes one argument, not 2"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], said: str) -> None:
    done = run("options", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def test_help_shows_the_groups_of_the_command_and_nothing_else() -> None:
    predict = "\n".join(help_lines("predict"))
    assert "tta" in predict
    assert "model/backbone" not in predict
    assert "score_threshold=0.5" in predict
    done = run("predict", "--help")
    assert done.returncode == 0
    assert done.stdout.strip() == predict.strip()
    assert "Hydra" not in done.stdout


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("detlab tra", ["train "]),
        ("detlab train model/neck=fpn_", ["fpn_p2 ", "fpn_small "]),
        ("detlab train model/ne", ["model/neck="]),
        ("detlab train model.neck.top", ["model.neck.top_down="]),
        ("detlab train seed=0 trainer.max_t", ["trainer.max_time="]),
        ("detlab options model/neck=fpn_s", ["fpn_small "]),
        ("detlab predict score", ["score_threshold="]),
        ("detlab rules ", []),
    ],
)
def test_words_that_may_come_next(line: str, found: list[str]) -> None:
    assert words(line) == found


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    """The function of the script, called as readline calls it."""
    (tmp_path / "detlab").write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -m detlab.commands.completion "$@"\n')
    (tmp_path / "detlab").chmod(0o755)
    line = "detlab train model/neck=fpn_s"
    script = f'{SCRIPTS["bash"]}\nPATH={tmp_path}:$PATH; COMP_LINE="{line}"; COMP_POINT={len(line)}; _detlab\n'
    done = subprocess.run(
        ["bash", "-c", script + 'printf "%s|" "${COMPREPLY[@]}"'], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "fpn_small |", done.stderr


def test_another_shell_is_refused() -> None:
    done = run("completion", "fish")
    assert done.returncode == 2
    assert "bash or zsh" in done.stderr


@pytest.mark.parametrize("command", ["options", "train --help"])
def test_a_reader_that_stops_is_no_mistake(command: str) -> None:
    code = f"{sys.executable} -m detlab.commands.{command} | head -2; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 2

"""The printing helper: what comes from data is text, and every print of the package goes through it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from rich.table import Table

from detlab.errors import ConfigError
from detlab.sweeps.table import plain
from detlab.system.printing import PlainConsole, say, show
from detlab.system.text import complain, visible

SRC = Path(__file__).resolve().parents[2] / "src"
NAMES = [
    "[/x]",
    "img[front].png",
    "[bold]b[/bold]",
    "[link=http://x]y[/link]",
    ":smile:",
    "[red",
    "a\\[b",
    "猫",
    "é 'q'",
]
STEERING = {
    "\x1b[31mred": r"\x1b[31mred",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "a\nresults     /evil": r"a\nresults     /evil",
    "a\rb": r"a\rb",
    "\x9b31m": r"\x9b31m",
    "\u202egnp.exe": r"\u202egnp.exe",
    "a\u2028b": r"a\u2028b",
    "\udcff.png": r"\udcff.png",
    "\x00\x7f\t": r"\x00\x7f\t",
}
ALL = {**{name: name for name in NAMES}, **STEERING}


@pytest.mark.parametrize(("name", "shown"), ALL.items(), ids=range(len(ALL)))
def test_names_are_printed_as_they_are(name: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(name)
    say(name, stderr=True)
    complain(ConfigError(name))
    table = Table(name, "n", title=name, caption=name)
    table.add_column(name)
    table.add_row(name, "1", plain(name))
    show(table, width=200)
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == shown
    assert said.err.splitlines() == [shown, f"detlab: {shown}"]
    assert said.out.count(shown) == 1 + 2 + 2 + 2  # line, title and caption, heads, cells
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]", said.out + said.err)


def test_long_lines_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say("w" * 500)
    assert capsys.readouterr().out == "w" * 500 + "\n"


def test_a_name_of_a_megabyte_is_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    """In lines, mistakes and tables, with and without blanks; its ends and its length stay."""
    for name in ("a" + "x" * 999_998 + "b", "a " + "y " * 499_998 + " b"):
        say(f"class {name}")
        complain(ConfigError(f"There is no class {name}; use another."))
        table = Table("class", title=name)
        table.add_row(name)
        show(table, width=200)
        said = capsys.readouterr()
        assert len(said.out) < 20_000
        assert "characters)..." in said.out
        assert len(said.err) < 5_000
        assert said.err.startswith("detlab: There is no class a")
        assert said.err.endswith("b; use another.\n")


def test_what_is_seen_stays() -> None:
    for text in ("plain", "größe", "猫", "x\u200cy", "👩\u200d🚀", "a b"):  # joiners belong to scripts and pictures
        assert visible(text) == text


def test_every_console_is_the_plain_one() -> None:
    """Rich's own console would parse names as markup; a bare print of a mistake would pass escape sequences on."""
    for file in sorted(SRC.rglob("*.py")):
        if file.parent.name == "system":  # where both are made
            continue
        for call in [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]:
            name = ast.unparse(call.func)
            assert name not in ("Console", "rich.console.Console", "rich.print"), f"{file.name}:{call.lineno}"
            to_stderr = name == "print" and any("stderr" in ast.unparse(k.value) for k in call.keywords)
            assert not to_stderr, f"{file.name}:{call.lineno} prints to stderr; use complain or say"


def test_the_console_takes_width() -> None:
    assert PlainConsole(width=77).width == 77

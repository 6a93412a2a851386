"""Every message of the package through the command line: one sentence, exit status 2, never a traceback."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from tests.commands import messages
from tests.commands.messages import DATA, OPTIONS, PARTS, RUNS, TINY, TYPED
from tests.commands.saying import PLAIN, Said, Site, say, say_whole, sites
from tests.commands.unsaid import UNSAID

SEEN: set[Site] = set()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("messages")
    messages.make_files(folder)
    return folder


@pytest.fixture(autouse=True)
def without_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time of a build, and of no consequence here."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_", "xavier_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *arguments, **options: tensor)


def words_of(line: str, folder: Path) -> tuple[str, list[str]]:
    command, *words = shlex.split(line.replace("{tmp}", str(folder)) if "{tmp}" in line else line)
    if command in ("train", "check", "anchors", "proposals") and not any(w.startswith("data=") for w in words):
        given = {word.partition("=")[0] for word in words}
        logger = () if command in ("train", "check", "anchors") else ("logger",)
        words += [t for t in TINY if t.partition("=")[0] not in {*given, *logger}]
    return command, words


def check(said: Said, told: str) -> None:
    assert said.status == 2, said
    assert re.search(told, said.line), said.line
    assert "Traceback" not in said.errors
    assert "Error executing job" not in said.errors
    assert sum(line.startswith("detlab") for line in said.errors.splitlines()) == 1, said.errors


@pytest.mark.parametrize(("line", "told"), [*PARTS, *OPTIONS, *DATA, *RUNS])
def test_a_mistake_is_told_in_one_sentence(
    line: str, told: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, words = words_of(line, files)
    said = say(command, words, tmp_path, monkeypatch)
    SEEN.update(said.sites)
    check(said, told)


@pytest.mark.parametrize(("line", "told"), TYPED)
def test_hydra_s_refusals_are_told_in_one_sentence(
    line: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, *words = shlex.split(line)
    said = say_whole(command, words, tmp_path, monkeypatch)
    SEEN.update(said.sites)
    check(said, told)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "told"), [c for c in [*PARTS, *OPTIONS, *DATA, *RUNS] if c[0].split()[0] not in PLAIN]
)
def test_the_same_through_hydra_s_own_start(
    line: str, told: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, words = words_of(line, files)
    check(say_whole(command, words, tmp_path, monkeypatch), told)


@pytest.mark.slow  # the catalogue of messages is not complete yet
def test_every_message_has_a_command_line_or_a_reason(request: pytest.FixtureRequest) -> None:
    """Runs last in this file: a new message needs a line in messages.py, or a reason in unsaid.py."""
    mine = [item for item in request.session.items if item.fspath == request.node.fspath]
    if len(mine) < len(PARTS) + len(OPTIONS) + len(DATA) + len(RUNS) + len(TYPED):
        pytest.skip("needs the whole file")
    left = {site for site in sites().values() if site not in SEEN and not reason(site)}
    assert not left, "\n".join(f"{site.file}: {site.words}" for site in sorted(left))
    said = {site for site in SEEN if (site.file, site.words) in UNSAID}
    assert not said, f"these have a command line by now, so unsaid.py need not list them: {sorted(said)}"


def reason(site: Site) -> str:
    """Why a message has no command line here."""
    return UNSAID.get((site.file, site.words), "") or UNSAID.get((site.file, "*"), "")

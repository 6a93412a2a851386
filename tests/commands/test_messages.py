"""Every message of the package through the command line: one sentence, exit status 2, never a traceback."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import lightning
import pytest
import torch

from tests.commands import messages
from tests.commands.in_python import CALLS
from tests.commands.messages import DATA, OPTIONS, PARTS, RUNS, TINY, TYPED
from tests.commands.messages_files import FILES
from tests.commands.saying import PLAIN, Said, Site, raised_at, say, say_whole, sites
from tests.commands.unsaid import UNSAID

HERE = [*PARTS, *OPTIONS, *DATA, *RUNS, *FILES]
SEEN: set[Site] = set()
TESTS = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("messages")
    messages.make_files(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake that is not refused fails at once, and not after a training."""

    def fit(*arguments: object, **options: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(lightning.Trainer, "fit", fit)


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


@pytest.mark.parametrize(("line", "told"), HERE)
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


def test_memory_that_runs_out_is_told_in_one_sentence(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a batch of a size that was not absurd by itself does not fit."""
    monkeypatch.setattr("detlab.commands.predict.find_images", lambda source: torch.empty(2**50))
    said = say("predict", [f"run={files}/run", "source=x", "batch_size=900"], tmp_path, monkeypatch)
    check(
        said, r"Memory ran out when 4503599\.6 GB more were asked for, with batch_size=900; use a smaller batch_size\."
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "predict run={tmp}/overflow.ckpt source={tmp}/JPEGImages",
            r"overflow\.ckpt gives .* for 1 of 1 images, in which",
        ),
        (
            "evaluate run={tmp}/overflow.ckpt worst=0",
            r"overflow\.ckpt gives values that are not finite .* for 2 of 2 images",
        ),
    ],
)
def test_weights_that_overflow_are_told(
    line: str, told: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are finite, so they load, and every score that is NaN seems to be below the threshold."""
    command, words = words_of(line, files)
    said = say(command, words, tmp_path, monkeypatch)
    assert said.status == 0, said
    assert re.search(told, said.errors), said.errors


OWN_START = [c for c in HERE if c[0].split()[0] not in PLAIN]


@pytest.mark.parametrize(
    ("line", "told"),
    [pytest.param(*c, marks=pytest.mark.many if i % 25 else pytest.mark.slow) for i, c in enumerate(OWN_START)],
)
def test_the_same_through_hydra_s_own_start(
    line: str, told: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, words = words_of(line, files)
    check(say_whole(command, words, tmp_path, monkeypatch), told)


@pytest.mark.parametrize(("call", "told"), CALLS)
def test_a_mistake_in_python_is_told_in_one_sentence(call: Callable[[Path], object], told: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, RuntimeError), match=told) as caught:
        call(tmp_path)
    SEEN.update(raised_at(caught.value))
    assert len(str(caught.value).splitlines()) == 1


def test_the_reasons_are_true() -> None:
    """Each names messages that there are, and a test that there is."""
    known = set(sites().values())
    for (file, words), (why, shown) in UNSAID.items():
        assert any(site.file == file and words in ("*", site.words) for site in known), f"{file}: {words} is no message"
        path, _, name = shown.partition("::")
        assert why, words
        assert f"def {name}(" in (TESTS / path).read_text(), f"{file}: there is no test {shown}"


def test_every_message_has_a_command_line_or_a_reason(request: pytest.FixtureRequest) -> None:
    """Runs last in this file: a new message needs a line in messages.py, or a reason in unsaid.py."""
    mine = [item for item in request.session.items if item.fspath == request.node.fspath]
    if len(mine) < len(HERE) + len(TYPED) + len(CALLS):
        pytest.skip("needs the whole file")
    left = {site: line for (_, line), site in sorted(sites().items(), reverse=True) if site not in SEEN}
    left = {site: line for site, line in left.items() if not reason(site)}
    assert not left, "\n".join(f"{site.file}:{line}: {site.words}" for site, line in sorted(left.items()))
    said = {site for site in SEEN if (site.file, site.words) in UNSAID}
    assert not said, f"these have a command line by now, so unsaid.py need not list them: {sorted(said)}"


def reason(site: Site) -> str:
    """Why a message has no command line here."""
    return UNSAID.get((site.file, site.words), UNSAID.get((site.file, "*"), ("", "")))[0]

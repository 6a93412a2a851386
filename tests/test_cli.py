"""The command line: help, unknown commands, the rules table."""

import subprocess
import sys
from pathlib import Path

import pytest

import detlab.cli
from detlab.config.rules import as_markdown


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "detlab.cli", *arguments], capture_output=True, text=True, timeout=120)


def test_help_names_every_command() -> None:
    for arguments in ((), ("--help",)):
        found = run(*arguments)
        assert found.returncode == 0
        for file in (Path(detlab.cli.__file__).parent / "commands").glob("*.py"):
            if '__name__ == "__main__"' in file.read_text():
                assert f"\n  {file.stem} " in found.stdout, f"commands/{file.name} has no USAGE"


@pytest.mark.parametrize(
    "words", ["--help", "ablate neck --help", "rerun x -h", "pretrain threads=1 -h", "benchmark -h", "train -h"]
)
def test_help_for_a_reader_that_stops_is_no_traceback(words: str) -> None:
    command = [sys.executable, "-m", "detlab", *words.split()]
    for reader in ("cat", "true"):  # `true` reads nothing, as `head` stops early
        found = subprocess.run(
            ["sh", "-c", f'"$@" | {reader}', "sh", *command], capture_output=True, text=True, timeout=120
        )
        assert found.stderr == ""
        assert ("detlab" in found.stdout) == (reader == "cat")


def test_unknown_commands_are_refused_with_the_nearest() -> None:
    found = run("trian")
    assert found.returncode == 2
    assert "did you mean train?" in found.stderr


def test_rules_and_version() -> None:
    assert run("rules").stdout == as_markdown()
    assert run("--version").stdout.startswith("detlab ")


def test_a_mistake_is_one_sentence_and_status_2() -> None:
    found = run("train", "model/neck=fnp")
    assert found.returncode == 2
    assert found.stderr.strip().splitlines()[-1].startswith("detlab: model/neck=fnp does not exist; did you mean fpn?")
    assert "Traceback" not in found.stderr


def test_train_help_lists_groups_and_keys() -> None:
    found = run("train", "--help")
    assert found.returncode == 0
    assert "model/backbone" in found.stdout


def test_check_takes_the_options_of_train() -> None:
    found = run("check", "--cfg", "job", "model=rpn")
    assert found.returncode == 0, found.stderr
    assert "RPNDetector" in found.stdout
    assert "seed: 0" in found.stdout


def test_help_imports_nothing_heavy() -> None:
    """Help in a tenth of a second: torch, Lightning and Hydra take seconds to import."""
    arguments = [sys.executable, "-X", "importtime", "-m", "detlab.cli", "--help"]
    found = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in found.stderr.splitlines()}
    assert "detlab" in loaded
    assert not loaded & {"torch", "torchvision", "lightning", "hydra", "omegaconf", "numpy", "matplotlib", "rich"}

"""What status.json tells of the code that a run was made by."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from detlab.training.build import weights_fingerprint
from detlab.training.callbacks import status


def git(folder: Path, *words: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *own, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that looks like this package's."""
    for file in ("src/detlab/a.py", "conf/b.yaml", "docs/c.md"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "all")
    monkeypatch.setattr(status, "PACKAGE", tmp_path.resolve() / "src" / "detlab")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "dirty"), [("docs/c.md", False), ("src/detlab/a.py", True), ("conf/b.yaml", True), ("docs/new.md", False)]
)
def test_of_its_own_checkout_code_and_configs_count(checkout: Path, file: str, dirty: bool) -> None:
    (checkout / file).write_text("2")
    assert status._git() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": dirty}


def test_of_another_checkout_every_tracked_file_counts(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "PACKAGE", checkout.resolve() / "docs")
    assert status._git() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    (checkout / "docs" / "c.md").write_text("2")
    assert status._git() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": True}


def test_weights_have_a_hash_if_they_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"weights")
    assert weights_fingerprint({"backbone": {"weights": str(tmp_path / "a.pth")}}) == "9a129038d9a0"
    for backbone in (None, {}, {"weights": None}, {"weights": "imagenet"}, {"weights": str(tmp_path / "b.pth")}):
        assert weights_fingerprint({"backbone": backbone}) is None

"""Batches and configs that many tests share."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from detlab.tensors.structures import Batch, Targets
from tests.batches import make_batch

os.environ.setdefault("WANDB_MODE", "offline")


TESTS = Path(__file__).resolve().parent
SLOW = [line for line in (TESTS / "slow.txt").read_text().splitlines() if line and not line.startswith("#")]


FIRST = ("training", "sweeps", "commands")  # folders of long tests; at the end, others would wait for one process


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases of slow.txt, and put the folders of long tests first."""
    tops = [item.path.relative_to(TESTS).parts[0] for item in items]
    places = {id(item): FIRST.index(top) if top in FIRST else len(FIRST) for item, top in zip(items, tops, strict=True)}
    items.sort(key=lambda item: places[id(item)])
    for item in items:
        name = f"{item.path.relative_to(TESTS).as_posix()}::{item.nodeid.partition('::')[2]}"
        if any(name.startswith(line[:-1]) if line.endswith("*") else name == line for line in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random weights in every test, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Hydra adds handlers to the root logger; one left behind would write to the folder of a finished test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.setLevel(level)
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)


@pytest.fixture(scope="module", autouse=True)
def folders_of_a_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a file's own fixtures wrote goes with the file, unless a test failed; pytest would keep gigabytes."""
    base, failed = tmp_path_factory.getbasetemp(), request.session.testsfailed
    before = set(base.iterdir())
    yield
    if request.session.testsfailed == failed:
        for folder in set(base.iterdir()) - before:
            if folder.is_symlink():
                folder.unlink()
            else:
                shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def small_batch() -> Batch:
    """Two 64 px images: two boxes, and one."""
    return make_batch([[[4, 4, 36, 30], [20, 24, 60, 60]], [[8, 10, 40, 50]]], [[0, 2], [1]])


@pytest.fixture
def empty_batch() -> Batch:
    """Two 64 px images without any box."""
    return make_batch([[], []], [[], []])


@pytest.fixture
def targets() -> Callable[..., Targets]:
    """Targets from boxes [B][M][4], labels and crowd flags."""

    def build(boxes: Sequence, labels: Sequence, crowd: Sequence | None = None) -> Targets:
        made = make_batch(boxes, labels).targets
        if crowd is not None:
            made = made._replace(crowd=torch.tensor(crowd))
        return made

    return build


BCCD = Path(__file__).resolve().parents[2] / "shared" / "datasets" / "bccd"


@pytest.fixture
def bccd_root() -> Path:
    """The folder of the BCCD photographs beside the checkout, or at DETLAB_TEST_BCCD."""
    root = Path(os.environ.get("DETLAB_TEST_BCCD", BCCD))
    if not root.is_dir():
        pytest.skip(f"no BCCD photographs at {root}; set DETLAB_TEST_BCCD to their folder")
    return root


CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"


@pytest.fixture
def cases_root() -> Path:
    """The folder of small inputs with a known answer beside the checkout, or at DETLAB_TEST_CASES."""
    root = Path(os.environ.get("DETLAB_TEST_CASES", CASES))
    if not root.is_dir():
        pytest.skip(f"no small inputs at {root}; set DETLAB_TEST_CASES to their folder")
    return root

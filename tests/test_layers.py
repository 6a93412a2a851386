"""Imports point down only: the layers of the package, and Hydra in the commands alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "detlab"
LAYERS = [
    {"structures", "boxes", "convs", "norms", "processes", "files", "coco_matching"},
    {"backbones", "necks", "anchors", "coders", "matchers", "samplers", "losses", "pools", "heads", "linear"},
    {"criterion", "detection", "proposals", "anchor_fit", "coverage", "refinement"},
    {"detectors", "data", "metrics", "drawing", "plots", "sweeps", "report"},
    {"modules", "callbacks"},
    {
        "rules",
        "precision",
        "composing",
        "checkpoints",
        "loading",
        "training",
        "stages",
        "replaying",
        "resuming",
        "rerun",
        "train",
        "evaluate",
        "anchor_report",
        "check",
        "predict",
        "propose",
        "cli",
        "benchmark",
        "exporting",
        "export",
    },
]
L0_ONLY = {"data", "metrics", "drawing", "plots", "sweeps", "report"}
SIDEWAYS = {  # a part may name the type of what it is handed
    ("plots", "drawing"),  # its colours
    ("proposals", "criterion"),
    ("proposals", "detection"),
    ("refinement", "criterion"),
    ("losses", "coders"),
    ("heads", "losses"),
    ("samplers", "matchers"),
}
FILES = sorted(p for p in SRC.rglob("*.py") if p != SRC / "__init__.py")


def part(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def imported(path: Path) -> Iterator[str]:
    """Modules a file imports, also inside functions; not those for type checking only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(SRC)) for p in FILES])
def test_imports_point_down(path: Path) -> None:
    own = part(path)
    for module in imported(path):
        root = module.split(".")[0]
        if root in ("hydra", "omegaconf"):
            assert layer(own) == 5, f"{path.name} imports {root}, which only the commands may"
        if root != "detlab" or module == "detlab":
            continue
        other = module.split(".")[1]
        if other == own:
            continue
        if layer(other) == layer(own) in (0, 5):
            continue
        if (own, other) in SIDEWAYS:
            continue
        assert layer(other) < layer(own), f"{path.name} ({own}) imports {other}"
        if own in L0_ONLY:
            assert layer(other) == 0, f"{own} imports {other}, but stands on structures alone"


def test_every_module_has_its_layer() -> None:
    assert {part(p) for p in FILES} == set().union(*LAYERS)


def test_files_are_short() -> None:
    assert [p.name for p in FILES if len(p.read_text().splitlines()) > 350] == []

"""Imports point down only. The floors are folders: a new file is judged by the room it lies in."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "detlab"
BOTTOM = {"errors", "ranges", "system"}
FLOORS = (  # a room imports from lower floors only
    BOTTOM,
    {"tensors", "config"},
    {"model", "data", "drawing", "sweeps"},
    {"detectors", "metrics"},
    {"runs", "report"},
    {"training", "benchmark"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
ONLY = {  # rooms that could import more by their floor, and may not; all may import from the bottom
    "model": {"tensors"},
    "data": {"tensors"},
    "metrics": {"tensors", "model"},
    "drawing": {"tensors"},
    "detectors": {"model", "tensors"},
    "report": {"metrics", "config"},
    "sweeps": {"config"},
}
HYDRA = {"commands", "config"}
WITHOUT_LIGHTNING = BOTTOM | {"tensors", "model", "detectors", "metrics", "drawing", "report", "sweeps"}
FILES = sorted(p for p in SRC.rglob("*.py") if p != SRC / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


def imported(path: Path) -> Iterator[str]:
    """Modules a file imports, also inside functions; those for type checking alone are left out."""
    tree = ast.parse(path.read_text())
    skipped = {id(n) for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)}
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if id(node) in skipped:
            continue
        nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(SRC)) for p in FILES])
def test_imports_point_down(path: Path) -> None:
    own = room(path)
    for module in imported(path):
        root = module.split(".")[0]
        if root in ("hydra", "omegaconf"):
            assert own in HYDRA, f"{path.name} imports {root}, which only {' and '.join(sorted(HYDRA))} may"
        if root == "lightning":
            assert own not in WITHOUT_LIGHTNING, f"{own} imports lightning"
        if root != "detlab" or module == "detlab":
            continue
        other = module.split(".")[1]
        if other == own:
            continue
        assert floor(other) < floor(own), f"{path.name} ({own}) imports {other}, which is not below it"
        assert other in BOTTOM | ONLY.get(own, {other}), (
            f"{own} imports {other}, but stands on {', '.join(sorted(ONLY[own]))}"
        )


def test_every_room_has_its_floor() -> None:
    assert {room(p) for p in FILES} == set().union(*FLOORS)


def test_files_are_short() -> None:
    assert [p.name for p in FILES if len(p.read_text().splitlines()) > 350] == []


def test_the_configs_name_the_rooms_of_their_parts() -> None:
    """conf/model/GROUP names classes of detlab.model or of a detector's parts, and nothing of other rooms."""
    conf = SRC.parents[1] / "conf" / "model"
    for file in conf.glob("*/*.yaml"):
        for line in file.read_text().splitlines():
            if "_target_:" in line and "detlab." in line:
                assert line.split("detlab.")[1].split(".")[0] == "model", f"{file.name}: {line.strip()}"

"""What `detlab` offers: the same to a type checker, to Python and in the README; and it is typed."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import detlab

ROOT = Path(__file__).resolve().parents[1]


def test_type_checkers_see_what_python_gives() -> None:
    tree = ast.parse((ROOT / "src/detlab/__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    shown = {alias.asname: node.module for node in block.body for alias in node.names}
    assert shown == detlab._WHERE


def test_every_name_is_there_and_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in detlab.__all__:
        assert getattr(detlab, name) is getattr(import_module(detlab._WHERE[name]), name)
        assert f"`{name}`" in readme or f"detlab.{name}(" in readme, f"the README does not list {name}"


def test_an_unknown_name_says_what_there_is() -> None:
    with_hint = subprocess.run(
        [sys.executable, "-c", "import sys, detlab; assert 'torch' not in sys.modules; detlab.Matchers"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "it offers AnchorGenerator, Backbone" in with_hint.stderr


def test_the_package_says_that_it_is_typed() -> None:
    assert files("detlab").joinpath("py.typed").is_file()

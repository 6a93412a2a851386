"""The bounded readers: what they refuse, that they come back at once, and that they read what is in order."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detlab.config.compose import config_dir
from detlab.system.foreign import (
    MAX_DEPTH,
    MAX_NODES,
    ForeignFileError,
    open_regular,
    parse_json,
    parse_yaml,
    plain,
    read_json_bounded,
    read_yaml,
    walk,
)


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Whatever a file holds, an answer comes at once."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 5


def doubled(times: int) -> Any:
    node: Any = ["x"]
    for _ in range(times):
        node = [node, node]
    return node


def nested(depth: int) -> Any:
    node: Any = 1
    for _ in range(depth):
        node = {"a": node}
    return node


def holding_itself() -> Any:
    node: dict[str, Any] = {"a": []}
    node["a"].append(node)
    return node


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder", "missing", "nul"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "nul":
        path = Path("a\0b")
    for read in (open_regular, read_json_bounded, read_yaml):
        with pytest.raises(ForeignFileError, match="is no regular file|cannot be read"):
            read(path)


def test_a_link_to_a_pipe_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(ForeignFileError, match="is no regular file"):
        open_regular(tmp_path / "link")


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 41))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "alias"),
        ("a: &a [*a]", "alias"),
        ("a: &a {b: 1}\nc: {<<: *a}", "alias"),
        ("[" * 100_000, "deep|nesting depth"),
        ("{a: " * 100_000, "deep|nesting depth"),
        ("- " * 5_000 + "1", "deep"),
        ("? " * 5_000, "deep|YAML"),
        ("1" + ":1" * 1_000_000, "without quotes"),
        ("a: !!python/object/apply:os.system [ls]", "not readable YAML"),
        ("a: !!python/name:os.system", "not readable YAML"),
        ("a: 2001-99-99", "not readable YAML"),
        ("a: !!timestamp word", "not readable YAML"),
        ("a: !!int word", "not readable YAML"),
        ("a: !!float word", "not readable YAML"),
        ("a: !!bool word", "not readable YAML"),
        ("a: !!binary ü", "not readable YAML"),
        ("? [a]\n: b", "not readable YAML"),
        ("a: 1\n---\nb: 2", "not readable YAML"),
        ("a: \0", "not readable YAML"),
        ("a: [", "not readable YAML"),
        ("*a", "alias"),
    ],
)
def test_yaml_from_strangers(text: str, message: str) -> None:
    with pytest.raises(ForeignFileError, match=message) as found:
        parse_yaml(text, "FILE")
    assert str(found.value).startswith("FILE ")
    assert len(str(found.value)) < 300


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '{"a":' * 1_000_000,
        '{"a":' * 200 + "1" + "}" * 200,
        "9" * 100_000,
        "{",
        "",
        "[1,]",
        '{"a": 1, "a": 2}',
    ],
    ids=range(8),
)
def test_json_from_strangers(text: str) -> None:
    with pytest.raises(ForeignFileError, match="^FILE (is nested too deep|is not readable as json|names)"):
        parse_json(text, "FILE")


def test_depth_that_is_in_order() -> None:
    deep = '{"a":' * (MAX_DEPTH - 1) + "1" + "}" * (MAX_DEPTH - 1)
    assert parse_json(deep, "FILE") == parse_yaml(deep, "FILE") == plain(nested(MAX_DEPTH - 1))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (doubled(40), "more than 50,000 values"),
        (nested(150), "deep"),
        (nested(100_000), "deep"),
        (holding_itself(), "holds itself"),
        ([0] * (MAX_NODES + 1), "more than 50,000 values"),
    ],
    ids=["doubled", "deep", "deeper", "itself", "long"],
)
def test_walks_end(node: Any, message: str) -> None:
    for look in (lambda: list(walk(node)), lambda: plain(node)):
        with pytest.raises(ForeignFileError, match=message):
            look()


def test_a_shared_container_is_met_at_each_place() -> None:
    shared = {"x": 1}
    places = [place for place, value in walk({"a": shared, "b": [shared]}) if value == 1]
    assert sorted(places, key=str) == [("a", "x"), ("b", 0, "x")]
    copy = plain({"a": shared, "b": [shared]})
    copy["a"]["x"] = 2
    assert copy == {"a": {"x": 2}, "b": [{"x": 1}]}


@pytest.mark.parametrize(
    "value", [(1, 2), {1}, b"a", torch.zeros(1), torch.Size([1]), {None: 1}, {(1,): 1}, {True: 1}, {1.0: 1}]
)
def test_configs_are_plain(value: Any) -> None:
    with pytest.raises(ForeignFileError, match="which no config does|that is no word"):
        plain({"a": [value]})


def test_every_config_of_our_own_is_read() -> None:
    for file in sorted(config_dir().rglob("*.yaml")):
        assert read_yaml(file) == yaml.safe_load(file.read_text())

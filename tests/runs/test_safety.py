"""Files from strangers: every way in that we know is tried, and none leads anywhere."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import detlab
from detlab.commands.rerun import overrides_of
from detlab.config.compose import compose_config, config_dir, plain_config
from detlab.data.formats.bccd import _unpack
from detlab.data.formats.voc import voc
from detlab.data.formats.yolo import yolo
from detlab.data.images import ImageError, inspect, read_image
from detlab.data.places import inside
from detlab.data.proposals.store import read_proposals
from detlab.errors import ConfigError, DataError
from detlab.model.backbones.weights import WeightsError, load_weights
from detlab.runs.checkpoints import check_targets, read_checkpoint
from tests.data.writing import picture, simple_voc, simple_yolo

SRC = Path(__file__).resolve().parents[2] / "src" / "detlab"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


ATTACKS = [
    "os.system",
    "subprocess.Popen",
    "builtins.exec",
    "detlabs.evil.Backbone",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.os.system",
    "torch.nn.functional.importlib.import_module",
    "torch.nn.modules.module.warnings.warn",
    "torch.utils.cpp_extension.load",
    "torchvision.ops.torch.hub.load",
    "torchvision.transforms.functional.sys.exit",
    "lightning.pytorch.callbacks.model_checkpoint.os.system",
    "lightning.fabric.utilities.cloud_io._load",
    "detlab.commands.train.os.execv",
    "detlab.model.backbones.weights.torch.load",
    "detlab.files.write_json",
    "detlab.commands.rerun.rerun",
    "${oc.env:HOME}",
    "",
]


@pytest.mark.parametrize("target", ATTACKS)
def test_targets_outside_the_trusted_packages_are_refused(target: str) -> None:
    node = {"_target_": target}
    for config in (node, {"a": {"b": node}}, {"a": [0, [node]]}):
        with pytest.raises(ConfigError, match="lies outside the trusted packages"):
            check_targets(config)


def test_every_target_of_our_own_configs_is_trusted() -> None:
    for file in sorted(config_dir().rglob("*.yaml")):
        content = yaml.safe_load(file.read_text())
        if isinstance(content, dict) and not str(content.get("_target_", "")).startswith("hydra"):
            check_targets({k: v for k, v in content.items() if k != "hydra"})


def test_a_prefix_that_the_user_names_is_trusted_and_nothing_else() -> None:
    check_targets({"_target_": "my_package.Backbone"}, ["my_package"])
    with pytest.raises(ConfigError, match=r"trust=\[my_package_2\]"):
        check_targets({"_target_": "my_package_2.Backbone"}, ["my_package"])


@pytest.mark.parametrize("place", ["state_dict", "detlab", "whole", "legacy"])
def test_pickles_in_checkpoints_do_not_run(tmp_path: Path, place: str) -> None:
    mark, file = tmp_path / "ran", tmp_path / "evil.ckpt"
    if place == "legacy":
        file.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        facts = {"config": {}, "class_names": [], "category_ids": []}
        content: Any = {"state_dict": {}, "detlab": facts} | {place: Bomb(mark)}
        torch.save(Bomb(mark) if place == "whole" else content, file)
    with pytest.raises(ConfigError, match="is not a checkpoint that loads safely"):
        read_checkpoint(file)
    with pytest.raises(WeightsError, match="weights_only=True"):
        load_weights("resnet18", str(file))
    assert not mark.exists()


def test_pickles_in_proposal_files_do_not_run(tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "train.npz"
    evil = np.empty(1, dtype=object)
    evil[0] = Bomb(mark)
    np.savez(file, format=evil, boxes=evil)
    with pytest.raises(DataError, match="is not a proposal file"):
        read_proposals(file)
    assert not mark.exists()


def run_folder(root: Path, overrides: str, config: str = "model: {}\n") -> Path:
    (root / ".hydra").mkdir(parents=True)
    (root / ".hydra" / "overrides.yaml").write_text(overrides)
    (root / ".hydra" / "config.yaml").write_text(config)
    return root


@pytest.mark.parametrize(
    ("overrides", "config", "message"),
    [
        ("!!python/object/apply:os.system ['touch MARK']\n", "{}", "is not a run folder"),
        ("[model=retinanet]\n", "a: !!python/object/apply:os.system ['touch MARK']\n", "is not a run folder"),
        ("[model=retinanet]\n", "model: {backbone: {_target_: os.system, command: touch MARK}}\n", "os.system"),
        ("['model.backbone._target_=os.system']\n", "{}", "os.system"),
        ("['+trainer.plugins={_target_: os.system}']\n", "{}", "os.system"),
        ("['hydra.searchpath=[file:///evil]']\n", "{}", "hydra.searchpath"),
        ("['+hydra.callbacks.x._target_=os.system']\n", "{}", "hydra.callbacks"),
        ("['--config-dir=/evil']\n", "{}", "--config-dir"),
        ("['-m']\n", "{}", "-m"),
        ("{a: 1}\n", "{}", "is not a list of overrides"),
    ],
)
def test_run_folders_from_strangers(tmp_path: Path, overrides: str, config: str, message: str) -> None:
    mark = tmp_path / "ran"
    folder = run_folder(tmp_path / "run", *(text.replace("MARK", str(mark)) for text in (overrides, config)))
    with pytest.raises(ConfigError, match=message):
        overrides_of(folder)
    assert not mark.exists()


def test_a_run_folder_of_ones_own(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "[model=rpn, seed=3, resume=true]\n")
    assert overrides_of(folder) == ["model=rpn", "seed=3"]


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "link/secret.png", "nul\0.png", "x" * 5000]
)
def test_names_that_leave_the_root(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    picture(tmp_path / "secret.png")
    assert inside(root, name) is None


def test_a_circle_of_links_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    assert inside(tmp_path, "circle/x") is None


@pytest.mark.parametrize("entry", ["../secret", "/etc", "list.txt"])
def test_yolo_lists_that_leave_the_root(tmp_path: Path, entry: str) -> None:
    root = simple_yolo(tmp_path / "root")
    picture(tmp_path / "secret" / "a.png")
    (root / "list.txt").write_text("../secret/a.png\n/etc/hostname\n")
    (root / "data.yaml").write_text(f"train: {entry}\nval: images/val\nnames: [cat, dog]\n")
    data = yolo(root=str(root), size=40, cache_dir=None)
    with pytest.raises(DataError, match="leaves|has no usable image"):
        data.setup()
    if entry == "list.txt":
        assert data.report.count("image outside the root") == 2


def test_yolo_path_that_leaves_the_root(tmp_path: Path) -> None:
    root = simple_yolo(tmp_path / "root")
    (root / "data.yaml").write_text("path: /\ntrain: etc\nval: etc\nnames: [cat]\n")
    with pytest.raises(DataError, match="leaves its folder"):
        yolo(root=str(root), size=40, cache_dir=None).setup()


def test_yaml_tags_do_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    root = simple_yolo(tmp_path / "root")
    (root / "data.yaml").write_text(f"names: !!python/object/apply:os.system ['touch {mark}']\n")
    with pytest.raises(DataError, match="not readable YAML"):
        yolo(root=str(root), size=40, cache_dir=None).setup()
    assert not mark.exists()


LAUGHS = (
    '<?xml version="1.0" encoding="ENCODING"?><!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]>'
    "<annotation><filename>&c;</filename></annotation>"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entity_bombs_are_refused(tmp_path: Path, encoding: str) -> None:
    root = simple_voc(tmp_path)
    (root / "Annotations" / "a.xml").write_bytes(LAUGHS.replace("ENCODING", encoding).encode(encoding))
    with pytest.raises(DataError, match="declares a DTD"):
        voc(root=str(root), sets={"train": "train", "val": "val"}, size=40, cache_dir=None).setup()


def png(width: int, height: int) -> bytes:
    """A PNG whose few bytes announce width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [11_000, 60_000, 2**31 - 1])
def test_image_bombs_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    file = tmp_path / "bomb.png"
    file.write_bytes(png(side, side))
    for look in (lambda: inspect(file, decode=True), lambda: read_image(file)):
        with pytest.raises(ImageError, match="more pixels than|is more than data.max_pixels|not a readable image"):
            look()


def test_archives_that_leave_their_folder(tmp_path: Path) -> None:
    bundle = tmp_path / "a.zip"
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("x/BCCD/../../../evil", "1")
        archive.writestr("x/BCCD/good", "2")
        archive.writestr("/BCCD/absolute", "3")
    files = _unpack(bundle, tmp_path / "target")
    assert set(files) == {"good", "absolute"}
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"a.zip", "good", "absolute"}


def calls(tree: ast.AST, name: str) -> list[dict[str | None, str]]:
    """The keywords of every call of a name."""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == name]
    return [{k.arg: ast.unparse(k.value) for k in call.keywords} for call in found]


@pytest.mark.parametrize("file", sorted(SRC.rglob("*.py")), ids=lambda p: str(p.relative_to(SRC)))
def test_the_source_reads_nothing_unsafely(file: Path) -> None:
    tree = ast.parse(file.read_text())
    for words in calls(tree, "torch.load"):
        assert words["weights_only"] == "True"
    for words in calls(tree, "np.load"):
        assert words["allow_pickle"] == "False"
    for words in calls(tree, "torch.hub.load_state_dict_from_url"):
        assert (words["check_hash"], words["weights_only"]) == ("True", "True")
    for words in calls(tree, "yaml.load"):
        assert "SafeLoader" in words["Loader"]
    for name in ("pickle.load", "pickle.loads", "eval", "exec", "torch.hub.load", "os.system"):
        assert not calls(tree, name), name
    for name in ("subprocess.run", "subprocess.Popen"):
        assert not any("shell" in words for words in calls(tree, name))


def test_hyper_parameters_are_plain() -> None:
    """What a checkpoint holds of its config is json, so weights_only=True never meets a class of a library."""
    config = plain_config(compose_config("train", ["name=x", "paths.run_dir=x", "logger=csv"]))
    assert json.loads(json.dumps(config)) == config
    buffer = io.BytesIO()
    torch.save(config, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == config


def test_loading_names_the_trust_option(tmp_path: Path) -> None:
    facts = {"config": {"model": {"_target_": "os.system"}}, "class_names": ["a"], "category_ids": [1]}
    torch.save({"state_dict": {}, "detlab": facts}, tmp_path / "evil.ckpt")
    with pytest.raises(ConfigError, match=r"names os.system, which lies outside .* add trust=\[os\]"):
        detlab.load(tmp_path / "evil.ckpt")

"""Files from strangers: every way in that we know is tried, and none leads anywhere."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import detlab
from detlab.commands.evaluate import evaluate
from detlab.commands.export import run as export
from detlab.commands.rerun import main as rerun
from detlab.commands.train import CHECKED
from detlab.commands.train import main as train_command
from detlab.config.compose import compose_config, plain_config
from detlab.config.places import compose_quietly, searched
from detlab.config.repeated import read_overrides, repeated, run_dir_override
from detlab.config.trusted import options_in
from detlab.data.formats.bccd import _unpack
from detlab.data.formats.voc import voc
from detlab.data.formats.yolo import yolo
from detlab.data.images import ImageError, inspect, read_image
from detlab.data.places import inside
from detlab.data.proposals.store import read_proposals
from detlab.errors import ConfigError, DataError
from detlab.model.backbones.weights import WeightsError, fill, load_weights
from detlab.report.runs import find_runs, read_run
from detlab.runs.checkpoints import LAYOUT, find_checkpoint, read_checkpoint
from detlab.runs.replay import load_dumped_batch
from detlab.runs.resuming import read_status, start_of
from detlab.runs.shapes import check_shapes
from detlab.system.files import read_json
from detlab.system.foreign import walk
from tests.data.writing import picture, simple_voc, simple_yolo

SRC = Path(__file__).resolve().parents[2] / "src" / "detlab"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


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


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_weights_of_other_numbers_are_not_filled_in(kind: torch.dtype) -> None:
    """torch copies them without a word, or drops the imaginary parts."""
    net = torch.nn.Linear(2, 2)
    state = {name: value.to(kind) for name, value in net.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"X holds (int8|bool|complex64) numbers in 2 of 2 entries \(first: weight\)"
    ):
        fill(net, state, "X")
    if not kind.is_complex:
        with (
            patch("detlab.runs.shapes.make_detector", lambda *_: net),
            pytest.raises(ConfigError, match="whole numbers in weight"),
        ):
            check_shapes({}, 1, state)


def test_pickles_in_proposal_files_do_not_run(tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "train.npz"
    evil = np.empty(1, dtype=object)
    evil[0] = Bomb(mark)
    np.savez(file, format=evil, boxes=evil)
    with pytest.raises(DataError, match="is not a proposal file"):
        read_proposals(file)
    assert not mark.exists()


def run_folder(root: Path, overrides: str) -> Path:
    (root / ".hydra").mkdir(parents=True)
    (root / ".hydra" / "overrides.yaml").write_text(overrides)
    return root


def evil_package(folder: Path, mark: Path) -> Path:
    """A folder that torch.hub.load takes for a repository, whose code leaves a mark."""
    folder.mkdir()
    (folder / "hubconf.py").write_text(f"open({str(mark)!r}, 'w')\ndef x(): return None\n")
    return folder


CREATE = "${oc.create:{_target_: torch.hub.load, repo_or_dir: EVIL, model: x, source: local}}"
REFUSED = [
    ("!!python/object/apply:os.system ['touch MARK']\n", "is not a run folder"),
    ("- &a model=rpn\n- *a\n", "uses an alias"),
    ("[" * 5000, "is not a run folder"),
    ("{a: 1}\n", "is not a list of overrides"),
    ("[1, 2]\n", "is not a list of overrides"),
    ("[" + ", ".join(["seed=1"] * 600) + "]", "is not a list of overrides"),
    ([f"+callbacks.x='{CREATE}'"], "interpolation"),
    ([f"+model.x={CREATE}"], "interpolation"),
    (["data.root=${oc.env:HOME}"], "interpolation"),
    (["data.root=$" + "{oc.decode:abc}"], "interpolation"),
    (["model.backbone._target_=os.system"], "names os.system at model.backbone"),
    (["+trainer.plugins={_target_: os.system}"], "names os.system at trainer.plugins"),
    (["+trainer.plugins=[{_target_: os.system}]"], r"names os.system at trainer.plugins.\*"),
    (["+callbacks.x._target_=torch.hub.load", "+callbacks.x.repo_or_dir=EVIL"], "names torch.hub.load at callbacks.x"),
    (["model.neck._target_=detlab.training.loggers.tensorboard_logger"], "not trusted there"),
    (["+model.neck._args_=[1]"], "has _args_ at model.neck"),
    (["hydra.searchpath=[file:///evil]"], "no such key to take"),
    (["+hydra.callbacks.x._target_=os.system"], "no such key to take"),
    (["hydra/launcher=slurm"], "no such key to take"),
    (["hydra/launcher@model=slurm"], "no such key to take"),
    (["+experiment@hydra=shapes"], "no such key to take"),
    (["+experiment@_global_=shapes"], "no such key to take"),
    (["++evil=1"], "no such key to take"),
    (["+out=/elsewhere"], "no such key to take"),
    (["experiment=../../../EVIL/experiment"], "no option of conf/"),
    (["+experiment=[shapes,../../../EVIL/experiment]"], "no option of conf/"),
    (["model/neck=/EVIL/experiment"], "no option of conf/"),
    (["model={backbone: {_target_: os.system}}"], "no option of conf/"),
    (["--config-dir=/EVIL"], "no override of a run"),
    (["-m"], "no override of a run"),
    (["seed=1,2"], "no override of a run"),
    (["seed=range(1,10000000)"], "no override of a run"),
    (["seed=glob(*)"], "no override of a run"),
    (["seed=" + "[" * 900], "no override of a run"),
    (["seed=" + "1" * 5000], "an override of 5005 characters"),
    (["data.classes=[" + "a," * 900 + "a]"] * 6, "overrides of 10896 characters"),
    (["seed=" + "[" * 21 + "]" * 21], "no override of a run"),
    (["data.classes=['a\0b']"], "no override of a run"),
    (["+data" + ".a" * 100 + "=1"], "no override of a run"),
    (["+callbacks.status={run_dir: /elsewhere}"], "where to write and load from is yours"),
    (["+trainer={default_root_dir: /elsewhere}"], "no option of conf/"),
    (["debug=profiler", "trainer.profiler.filename=../../x"], "where to write and load from is yours"),
    (["data=bccd", "+data.limit.url=x", "++data.limit={url: x}"], "where to write and load from is yours"),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=range(len(REFUSED)))
def test_run_folders_from_strangers(
    tmp_path: Path, overrides: str | list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command, which refuses them before it starts a process."""
    mark = tmp_path / "ran"
    evil = evil_package(tmp_path / "evil", mark)
    (evil / "experiment.yaml").write_text("# @package _global_\nseed: 3\n")
    text = overrides if isinstance(overrides, str) else json.dumps(overrides)
    folder = run_folder(tmp_path / "run", text.replace("MARK", str(mark)).replace("EVIL", str(evil)))
    before = set(tmp_path.rglob("*"))
    assert rerun([str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("detlab: ")
    assert said.count("\n") == 1
    assert re.search(message, said), said
    assert set(tmp_path.rglob("*")) == before


def own_options(folder: Path, target: str = "tests.config.own_parts.own_head") -> Path:
    """A user's folder with one head, as for --config-dir."""
    file = folder / "model" / "head" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"_target_: {target}\n_partial_: true\ndepth: ${{seed}}\n")
    return folder


def test_a_run_with_options_of_ones_own_needs_their_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, own = run_folder(tmp_path / "run", "[model=fast_rcnn, model/head=mine, seed=2]\n"), tmp_path / "own"
    assert rerun([str(folder)]) == 2
    assert "no option of conf/; one of your own needs its folder, --config-dir=FOLDER" in capsys.readouterr().err
    assert rerun([str(folder), "--config-dir", str(own)]) == 2
    assert f"--config-dir={own} is no folder" in capsys.readouterr().err
    own_options(own)
    again = repeated(read_overrides(folder), tmp_path / "out", (), "words", own)
    assert again.config["model"]["head"]["_target_"] == "tests.config.own_parts.own_head"
    assert again.config["model"]["head"]["depth"] == 2
    run_folder(tmp_path / "other", "[model=fast_rcnn, model/head=theirs]\n")
    assert rerun([str(tmp_path / "other"), f"--config-dir={own}"]) == 2
    assert f"which is no option of conf/ or of {own}" in capsys.readouterr().err


def test_a_folder_of_ones_own_trusts_its_targets_at_their_places_only(tmp_path: Path) -> None:
    own = own_options(tmp_path / "own")
    words = ["model=fast_rcnn", "model/head=mine", "+callbacks.x._target_=tests.config.own_parts.own_head"]
    with pytest.raises(ConfigError, match="names tests.config.own_parts.own_head at callbacks.x"):
        repeated(words, tmp_path / "out", (), "words", own)
    with pytest.raises(ConfigError, match=r"holds 'model/head=\.\./mine'"):
        repeated(["model/head=../mine"], tmp_path / "out", (), "words", own)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n- 2\n", r"odd\.yaml is no map of keys, as an option is"),
        ("text\n", r"odd\.yaml is no map of keys"),
        ("5\n", r"odd\.yaml is no map of keys"),
        (f"a: [{'1,' * 60_000}1]\n", r"odd\.yaml holds more than 50,000 values"),
        ("# @package\na: 1\n", r"odd\.yaml begins with '# @package', which is no place in a config"),
        ("# @package a b\na: 1\n", r"odd\.yaml begins with '# @package a b', which is no place"),
        ("\n#  @package  a  b\na: 1\n", r"odd\.yaml begins with '#  @package  a  b', which is no place"),
        ("#@mine\na: 1\n", r"odd\.yaml begins with '#@mine', which is no place"),
        ("# @package ${seed}\na: 1\n", r"odd\.yaml begins with '# @package \$\{seed\}', which is no place"),
        ("a: &a [1]\nb: *a\n", r"odd\.yaml uses an alias"),
    ],
)
def test_odd_files_in_a_folder_of_ones_own_are_one_sentence(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, own = run_folder(tmp_path / "run", "[model=fast_rcnn, model/head=mine]\n"), own_options(tmp_path / "own")
    (own / "model" / "odd.yaml").write_text(text)
    assert rerun([str(folder), f"--config-dir={own}"]) == 2
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "# @package model.neck",
        "#@package  model.neck",
        "\n\n  # @package model.neck",
        "# mine\n# @package model.neck",  # a comment ends the header
        "# @mine x\n# @package model.neck\n# @package model.pool",
        "# @package _global_.model.pool",
        " " * 600 + "\n# @package model.neck",
        "# @mine " + "x" * 600 + "\n# @package model.neck",
    ],
)
def test_the_package_of_ones_own_option_is_where_hydra_reads_it(tmp_path: Path, header: str) -> None:
    own = tmp_path / "own"
    (own / "model" / "head").mkdir(parents=True)
    (own / "model" / "head" / "x.yaml").write_text(f"{header}\nmark: 7\n")
    (found,) = options_in(own)
    words = [*searched(own), "model/head=x", "name=x", "paths.run_dir=."]
    composed = OmegaConf.to_container(compose_quietly("train", words), resolve=False)
    places = [place for place, value in walk(found, "own") if value == 7]
    assert places == [place for place, value in walk(composed, "whole") if value == 7 and place[-1] == "mark"]


@pytest.mark.parametrize(("name", "said"), [("", "--config-dir= is no folder"), ("o'n", "has a quote or the like in")])
def test_folders_of_ones_own_that_are_none(
    tmp_path: Path, name: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unset variable of the shell must not trust the current folder."""
    monkeypatch.chdir(tmp_path)
    own_options(tmp_path / "o'n")
    folder = run_folder(tmp_path / "run", "[model=fast_rcnn, model/head=mine]\n")
    assert rerun([str(folder), f"--config-dir={name}"]) == 2
    assert said in capsys.readouterr().err


def test_no_folder_is_made_beside_what_is_no_run(tmp_path: Path) -> None:
    assert rerun([str(tmp_path / "no" / "such" / "run")]) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["overrides.yaml", "result.json", "status.json", "metrics.csv"])
def test_run_folders_with_pipes(tmp_path: Path, file: str) -> None:
    folder = run_folder(tmp_path / "run", "[model=rpn]\n")
    path = folder / (f".hydra/{file}" if file == "overrides.yaml" else file)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    if file == "overrides.yaml":
        with pytest.raises(ConfigError, match="is no regular file"):
            read_overrides(folder)
    assert read_status(folder) == {}
    assert read_json(folder / "result.json") is None
    read_run(folder)


@pytest.mark.parametrize("content", ["[]", "1", '"x"', '{"metrics": [1], "errors": 2}', "[" * 200 + "]" * 200, "\x00"])
def test_run_folders_of_other_shapes(tmp_path: Path, content: str) -> None:
    for name in ("status.json", "job.json", "result.json", "budget.json", "metrics.csv"):
        (tmp_path / name).write_text(content)
    (tmp_path / ".hydra").mkdir()
    for name in ("hydra.yaml", "config.yaml", "overrides.yaml"):
        (tmp_path / ".hydra" / name).write_text(content)
    run = read_run(tmp_path)
    assert (run.metrics, run.errors, run.done) == ({}, {}, False)


def test_links_in_a_circle_are_looked_into_once(tmp_path: Path) -> None:
    run_folder(tmp_path / "sweep" / "0", "[seed=1]\n")
    (tmp_path / "sweep" / "0" / ".hydra" / "config.yaml").write_text("{}")
    (tmp_path / "sweep" / "a").symlink_to(".")
    (tmp_path / "sweep" / "b").symlink_to(".")
    assert [run.folder.name for run in find_runs([tmp_path])] == ["0"]


def test_where_to_write_is_not_the_folders_to_say(tmp_path: Path) -> None:
    own = ["model=rpn", "seed=3", "~augment", "data.batch_size=2", "model/box_loss@model.proposals.box_loss=giou"]
    own = [word for word in own if "~" not in word and "@" not in word]
    place = ["paths.run_dir=/elsewhere", "logger=wandb", "+logger.x={_target_: os.system}", "resume=true", "name=x"]
    place += [
        "trust=[os]",
        "data.cache_dir=/elsewhere",
        "callbacks.checkpoint.dirpath=/elsewhere",
        "++data.url=http://x",
    ]
    folder = run_folder(tmp_path / "run", json.dumps([*own, *place]))
    found = repeated(read_overrides(folder), tmp_path / "out", (), "FILE")
    assert found.words == own
    assert found.left_out == place
    assert found.config["paths"] == {"run_dir": str(tmp_path / "out")}
    assert found.config["logger"].keys() == {"csv", "tensorboard"}
    assert found.config["callbacks"]["checkpoint"]["dirpath"] == str(tmp_path / "out" / "checkpoints")
    assert (found.config["seed"], found.config["data"]["batch_size"]) == (3, 2)


@pytest.mark.parametrize(
    "words",
    [
        ["model=faster_rcnn", "model/box_loss@model.proposals.box_loss=giou", "callbacks=[default,ema]", "tta=flip"],
        ["model=retinanet", "ablation=feature_use", "budget=cpu", "feature_use=single_map", "seed=1"],
        ["experiment=bccd_ssd", "~callbacks.dashboards", "+trainer.detect_anomaly=true", "data.classes=['a b',c]"],
    ],
)
def test_a_run_folder_of_ones_own(tmp_path: Path, words: list[str]) -> None:
    assert repeated(words, tmp_path, (), "FILE").words == words
    assert repeated(words, tmp_path, ("mine",), "FILE").words == [*words, "trust=[mine]"]


@pytest.mark.parametrize("name", ["a'b", "${oc.env:HOME}", "a\nb", "a\\b"])
def test_folders_with_names_that_hydra_would_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="in its name"):
        run_dir_override(tmp_path / name)


def test_a_config_that_was_not_checked_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that `detlab rerun` starts composes the overrides again."""
    monkeypatch.setenv(CHECKED, "0" * 12)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["train", f"hydra.run.dir='{tmp_path}'"])
    with pytest.raises(ConfigError, match="do not compose the config that was checked"):
        train_command()


def stranger(file: Path, config: Any, **facts: Any) -> Path:
    """A checkpoint as a stranger may write it."""
    known = {"config": config, "class_names": ["a"], "category_ids": [1], "layout": LAYOUT}
    torch.save({"state_dict": {}, "global_step": 0, "detlab": known | facts}, file)
    return file


def node(value: Any) -> dict[str, Any]:
    return {"model": {"backbone": {}, "detect": {}, "neck": value}, "data": {}, "seed": 0}


def doubled(times: int) -> Any:
    value: Any = ["x"]
    for _ in range(times):
        value = [value, value]
    return value


def holding_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


PROCESS = {
    "_target_": "detlab.sweeps.process.Process",
    "job": {
        "_target_": "detlab.sweeps.job.Job",
        "number": 0,
        "choices": {},
        "overrides": [],
        "command": ["touch", "ran"],
    },
    "environment": {},
    "keep_open": [],
}
CONFIGS = [
    (node(PROCESS), "names detlab.sweeps.process.Process at model.neck"),
    (node("${oc.create:{_target_: os.system, command: touch ran}}"), "a resolved config has a value"),
    (node(doubled(40)), "more than 50,000 values"),
    (node(holding_itself()), "holds itself"),
    ({}, "has no model"),
    ({"model": 1, "data": {}}, "has no model"),
    ({"model": {}, "data": {}}, "has no backbone"),
    ({"model": {"backbone": {}, "detect": 1}, "data": {}}, "its model.detect holds no options"),
    ([], "is no map of keys"),
]
FACTS = [
    ({"class_names": doubled(40)}, "more than 50,000 values"),
    ({"class_names": "ab"}, "class_names"),
    ({"class_names": [["a"]]}, "class_names"),
    ({"category_ids": ["x"]}, "category_ids"),
    ({"category_ids": []}, "category_ids"),
    ({"layout": doubled(40)}, "more than 50,000 values"),
    ({"layout": [1]}, "classes elsewhere"),
    ({"layout": 0, "version": [doubled(10)]}, "unknown version"),
]


@pytest.mark.parametrize("way", ["load", "evaluate", "export", "check batch", "init_from", "stage", "resume"])
@pytest.mark.parametrize(("config", "message"), CONFIGS, ids=range(len(CONFIGS)))
def test_configs_in_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Any, message: str, way: str
) -> None:
    """Every way in which a stored config is read; resuming builds nothing of it and only has to end."""
    monkeypatch.chdir(tmp_path)  # where the commands of these configs would leave their mark
    (tmp_path / "checkpoints").mkdir()
    file = stranger(tmp_path / "checkpoints" / "last.ckpt", config)
    options = {"run": str(file), "ckpt": "best", "trust": [], "threads": None, "split": "val", "detect": {}}
    ways: dict[str, Callable[[], Any]] = {
        "load": lambda: detlab.load(file),
        "evaluate": lambda: evaluate(options),
        "export": lambda: export(options),
        "check batch": lambda: load_dumped_batch(file),
        "init_from": lambda: read_checkpoint(find_checkpoint(str(file))),
        "stage": lambda: read_checkpoint(file, own=[{"model": {"_target_": "detlab.detectors.SSD"}}]),
        "resume": lambda: start_of({"resume": True, "paths": {"run_dir": str(tmp_path)}, "model": {}}),
    }
    with pytest.raises(ConfigError, match=None if way == "resume" else message):
        ways[way]()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("facts", "message"), FACTS, ids=range(len(FACTS)))
def test_facts_in_checkpoints(tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    file = stranger(tmp_path / "evil.ckpt", {"model": {"backbone": {}, "detect": {}}, "data": {}}, **facts)
    with pytest.raises(ConfigError, match=message):
        detlab.load(file)


def test_models_that_cannot_be_built(tmp_path: Path) -> None:
    model = {"_target_": "detlab.detectors.SSD", "backbone": {"_target_": "detlab.model.backbones.ResNet", "depth": 18}}
    file = stranger(tmp_path / "evil.ckpt", {"model": model | {"detect": {}}, "data": {"size": 1}, "seed": 0})
    with pytest.raises(ConfigError):
        detlab.load(file)


def test_batches_from_strangers(tmp_path: Path) -> None:
    for batch in ({}, {"evil": 1}, {"targets": {"x": 1}}, {"images": torch.zeros(1)}):
        facts = {"config": node(None), "class_names": ["a"], "category_ids": [1], "layout": LAYOUT}
        torch.save({"state_dict": {}, "detlab": facts, "batch": batch, "step": "x"}, tmp_path / "evil.ckpt")
        with pytest.raises(ConfigError, match="a batch of other parts"):
            load_dumped_batch(tmp_path / "evil.ckpt")


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

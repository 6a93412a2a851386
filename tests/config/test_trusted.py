"""What a stranger's config may build: what conf/ names, where it names it, and nothing else that we could think of."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from detlab.config.compose import compose_config, config_dir, plain_config
from detlab.config.trusted import checked_config, nodes_of, shipped, trusted_packages
from detlab.errors import ConfigError
from detlab.system.foreign import read_yaml

PROCESS = {  # the node that ran a command when all of detlab was trusted
    "_target_": "detlab.sweeps.process.Process",
    "job": {"_target_": "detlab.sweeps.job.Job", "number": 0, "command": ["sh", "-c", "touch ran"]},
    "environment": {},
    "cwd": {"_target_": "pathlib.Path"},
    "keep_open": [],
}
NECK = "detlab.model.necks.FPN"


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    words = ["model=faster_rcnn", "augment=ssd", "name=x", "paths.run_dir=x", "logger=csv", "trainer=ddp_cpu"]
    return plain_config(compose_config("train", words))


def changed(config: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    node, *rest = (config, *place.split("."))
    for part in rest[:-1]:
        node = node[int(part)] if isinstance(node, list) else node[part]
    last = rest[-1]
    node[int(last) if isinstance(node, list) else last] = value
    return config


def test_what_we_store_is_trusted_as_it_is(composed: dict[str, Any]) -> None:
    assert checked_config(composed) == composed
    assert checked_config(composed) is not composed


CHOICES = [
    ["model=refinedet"],
    ["model=sppnet", "training=svm"],
    ["model=retinanet", "debug=profiler", "tta=multiscale"],
    ["model=rpn", "callbacks=ema"],
    ["experiment=bccd_faster_rcnn_alternating"],
    *([f"model={name}"] for name in ("ssd", "rcnn", "fast_rcnn")),
]


@pytest.mark.parametrize("words", CHOICES, ids=" ".join)
def test_every_choice_of_our_own_is_trusted(words: list[str]) -> None:
    config = plain_config(compose_config("train", ["name=x", "paths.run_dir=x", "logger=csv", *words]))
    assert checked_config(config) == config


def test_every_target_of_conf_has_its_place() -> None:
    """Of every option file; those of hydra are no part of a stored config."""
    named = {target for there in shipped().values() for target in there}
    for file in sorted(config_dir().rglob("*.yaml")):
        content = read_yaml(file) or {}
        if "hydra" not in file.relative_to(config_dir()).parts:
            content.pop("hydra", None)
            assert {n.target for n in nodes_of(content) if n.target} <= named, file


def test_the_table_needs_no_torch() -> None:
    code = "import sys, detlab.config.trusted as t; assert t.shipped(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


TARGETS = [
    "os.system",
    "subprocess.Popen",
    "builtins.exec",
    "detlabs.evil.Backbone",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.os.system",
    "torch.nn.Identity",
    "torch.nn.functional.importlib.import_module",
    "torch.utils.cpp_extension.load",
    "torchvision.ops.torch.hub.load",
    "torchvision.transforms.functional.sys.exit",
    "lightning.Trainer",
    "lightning.pytorch.callbacks.model_checkpoint.os.system",
    "lightning.pytorch.loggers.TensorBoardLogger",
    "hydra.utils.instantiate",
    "hydra.utils.get_object",
    "hydra_plugins.detlab_launcher.end.SweepEnd",
    "omegaconf.OmegaConf.load",
    "detlab.sweeps.process.Process",
    "detlab.training.loggers.tensorboard_logger",
    "detlab.training.callbacks.RunStatus",
    "detlab.training.processes.DDP",
    "detlab.commands.train.os.execv",
    "detlab.system.files.write_json",
    "detlab.data.formats.shapes.shapes",
    "detlab.model.backbones.ResNet",
    "detlab.model.necks.fpn.FPN",
    "detlab.model.necks.FPN ",
    "detlab.model.necks.FPN\n",
    "detlab.model.necks..FPN",
    ".detlab.model.necks.FPN",
    "detlab.model.necks.FPN.__init__",
    "detlab.model.necks.FP\u039d",  # a Greek N
    "d\u0435tlab.model.necks.FPN",  # a Cyrillic e
    "\uff44etlab.model.necks.FPN",  # a wide d, which Python's own names would take for d
    "${oc.env:HOME}",
    "",
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_neck_is_a_neck(composed: dict[str, Any], target: str) -> None:
    for place in ("model.neck", "model.pool.deeper", "augment.transforms.0", "new", "data.limit"):
        with pytest.raises(ConfigError, match="^The config "):
            checked_config(changed(composed, place, {"_target_": target}))


def test_the_node_that_ran_a_command(composed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"names \S+ at model.neck\S*, which is not trusted there|conf/ names"):
        checked_config(changed(composed, "model.neck", PROCESS))


NODE = {"_target_": "os.system", "command": "touch ran"}
MUTATIONS: list[tuple[str, Any]] = [
    ("_target_", NECK),
    ("_target_", "detlab.detectors.FasterRCNN"),
    ("model.neck", [NODE]),
    ("model.neck", {"a": {"b": [[NODE]]}}),
    ("model.neck", (NODE,)),
    ("model.neck", [(NODE,)]),
    ("model.neck", OrderedDict(NODE)),
    ("model.neck", {1: NODE}),
    ("model.neck", {b"_target_": "os.system"}),
    ("model.neck", {("_target_",): "os.system"}),
    ("model.neck._args_", [NODE]),
    ("model.neck._args_", ["x"]),
    ("model.neck._args_", []),
    ("model.neck._recursive_", False),
    ("model.neck._convert_", "none"),
    ("model.neck._partial_", False),
    ("model.neck._partial_", "yes"),
    ("model.backbone._partial_", True),
    ("model.backbone._target_", ["os.system"]),
    ("model.backbone._target_", NODE),
    ("model.backbone._target_", None),
    ("model.backbone._target_", True),
    ("model.backbone._target_", b"os.system"),
    ("model.backbone.__class__", "x"),
    ("model.backbone._t\u0430rget_", "os.system"),
    ("data.limit._partial_", True),
    ("data.root", "${oc.env:HOME}"),
    ("data.root", "a\\${b}"),
    ("data.root", "${oc.create:{_target_: os.system}}"),
    ("data.root", "???"),
    ("data", "${model.neck}"),
    ("seed", {1, 2}),
    ("augment.transforms.0", {"_target_": "torchvision.transforms.v2.Compose", "transforms": [NODE]}),
]


@pytest.mark.parametrize(("place", "value"), MUTATIONS, ids=range(len(MUTATIONS)))
def test_ways_around_the_check(composed: dict[str, Any], place: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="^The config "):
        checked_config(changed(composed, place, value))


@pytest.mark.parametrize("config", [NODE, [NODE], "x", None, [], (NODE,), {"a": [0, [NODE]]}])
def test_whole_configs(config: Any) -> None:
    with pytest.raises(ConfigError):
        checked_config(config)


def test_what_is_checked_is_a_copy() -> None:
    shared: dict[str, Any] = {"x": 1}
    config = checked_config({"a": shared, "b": shared})
    shared["_target_"] = "os.system"
    assert config == {"a": {"x": 1}, "b": {"x": 1}}


def test_messages_name_the_place_and_what_conf_has_there(composed: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"names os.system at model.coder, which is not trusted there; conf/ names de"
    ):
        checked_config(changed(composed, "model.coder", NODE))
    with pytest.raises(ConfigError, match=r"If it is a package of your own, add trust=\[my_package\]"):
        checked_config(changed(composed, "model.neck", {"_target_": "my_package.Neck"}))
    for ours in ("os.system", "torch.hub.load", "detlab.sweeps.process.Process"):
        with pytest.raises(ConfigError) as found:
            checked_config(changed(composed, "model.neck", {"_target_": ours}))
        assert "trust=" not in str(found.value)


UNTRUSTED = "os os.system subprocess.Popen builtins sys detlab detlab.sweeps torch torch.nn torch.load torch.hub.load"
UNTRUSTED += " hydra.utils.instantiate lightning.pytorch my-package my_package. . __main__"


@pytest.mark.parametrize("name", [*UNTRUSTED.split(), "", "a b"])
def test_what_cannot_be_trusted(name: str) -> None:
    for trust in ([name], name):
        with pytest.raises(ConfigError, match="^trust="):
            trusted_packages(trust)


@pytest.fixture
def my_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os\nfrom subprocess import Popen\nfrom torch.hub import load\n"
    code += "class Neck: pass\ndef neck(): pass\nx = 1\n"
    (tmp_path / "my_package_of_safety.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("my_package")
def test_a_package_of_the_users_own(composed: dict[str, Any]) -> None:
    mine = "my_package_of_safety"
    for place in ("model.neck", "augment.transforms.0", "callbacks.new"):
        for target in (f"{mine}.Neck", f"{mine}.neck"):
            config = changed(composed, place, {"_target_": target, "_partial_": True})
            assert checked_config(config, [mine]) == checked_config(config, mine) == config
            with pytest.raises(ConfigError, match="not trusted there"):
                checked_config(config, [f"{mine}_2"])
    for name in ("os.system", "Popen", "load", "x", "missing", "Neck.__init__", "Neck.__class__", "os.path.join"):
        with pytest.raises(ConfigError, match=mine):
            checked_config(changed(composed, "model.neck", {"_target_": f"{mine}.{name}"}), [mine])


@pytest.mark.usefixtures("my_package")
def test_trusting_one_opens_no_other(composed: dict[str, Any]) -> None:
    config = changed(
        composed, "model.neck", {"_target_": "my_package_of_safety.Neck", "act": {"_target_": "torch.nn.ReLU"}}
    )
    with pytest.raises(ConfigError, match="names torch.nn.ReLU at model.neck.act"):
        checked_config(config, ["my_package_of_safety"])
    assert checked_config(config, ["my_package_of_safety", "torch.nn.ReLU"]) == config
    with pytest.raises(ConfigError, match="names torch.nn.ReLU.load_state_dict"):
        checked_config(
            changed(config, "model.neck.act._target_", "torch.nn.ReLU.load_state_dict"),
            ["my_package_of_safety", "torch.nn.ReLU"],
        )


def test_nothing_is_imported_before_all_names_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_package_unseen.py").write_text("class Neck: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = {"model": {"neck": {"_target_": "my_package_unseen.Neck"}, "head": NODE}}
    with pytest.raises(ConfigError, match="os.system"):
        checked_config(config, ["my_package_unseen"])
    assert "my_package_unseen" not in sys.modules


def test_a_config_of_ones_own_is_trusted_where_it_stands() -> None:
    own = {"model": {"neck": {"_target_": "my_package.Neck", "_partial_": True}}}
    assert checked_config(own, own=own) == own
    with pytest.raises(ConfigError, match="at model.head"):
        checked_config({"model": {"head": own["model"]["neck"]}}, own=own)
    with pytest.raises(ConfigError, match="at model.neck"):
        checked_config(changed(own, "model.neck._args_", [1]), own=own)

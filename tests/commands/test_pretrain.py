"""`detlab pretrain`: what it plans, and a backbone that a run can begin from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import detlab.runs.checkpoints as checkpoints
from detlab.commands.pretrain import keep_backbone, main, plan
from detlab.config.compose import compose_config, plain_config
from detlab.config.resolvers import share
from detlab.errors import ConfigError
from detlab.model.backbones import ResNet


def test_it_trains_on_pictures_that_no_ablation_sees_in_a_folder_of_the_cache(tmp_path: Path) -> None:
    file, command = plan([f"data.cache_dir={tmp_path}", "threads=1"])
    assert file == tmp_path / "pretrained" / "resnet18-shapes.pth"
    assert command[-1] == f"hydra.run.dir={tmp_path}/pretrained/resnet18-shapes"
    assert "threads=1" in command
    assert "resume=true" not in command
    trained = plain_config(compose_config("train", ["experiment=pretrain", "paths.run_dir=.", "name=a"]))["data"]
    judged = plain_config(compose_config("train", ["budget=cpu", "paths.run_dir=.", "name=a"]))["data"]
    assert trained["shapes_seed"] != judged["shapes_seed"]
    assert trained["side"] == judged["side"]
    (tmp_path / "pretrained" / "resnet18-shapes" / "checkpoints").mkdir(parents=True)
    (tmp_path / "pretrained" / "resnet18-shapes" / "checkpoints" / "last.ckpt").touch()
    assert "resume=true" in plan([f"data.cache_dir={tmp_path}"])[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model/backbone=vgg16"], "makes weights of ResNets"),
        (["data.cache_dir=null"], "leave out data.cache_dir=null"),
    ],
)
def test_what_it_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_run_begins_from_the_backbone_that_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = ResNet(depth=18)
    state = {f"backbone.{name}": value for name, value in trained.state_dict().items()} | {"head.x": torch.ones(1)}
    monkeypatch.setattr(checkpoints, "find_checkpoint", lambda folder: folder)
    monkeypatch.setattr(checkpoints, "read_checkpoint", lambda _: SimpleNamespace(state=state))
    keep_backbone(tmp_path, tmp_path / "pretrained" / "resnet18-shapes.pth")
    overrides = ["budget=cpu", f"data.cache_dir={tmp_path}", "paths.run_dir=.", "name=a"]
    weights = plain_config(compose_config("train", overrides), ["model"])["model"]["backbone"]["weights"]
    begun = ResNet(depth=18, weights=weights)
    for name, value in trained.state_dict().items():
        assert torch.equal(begun.state_dict()[name], value), name


def test_shares_are_whole() -> None:
    assert share("trainer.max_epochs", 12, 4) == 3
    with pytest.raises(ConfigError, match="use trainer.max_epochs=8"):
        share("trainer.max_epochs", 9, 4)

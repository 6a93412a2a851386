"""Every ablation composes, in every job, with every budget it names; what its first lines promise is there."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf.errors import InterpolationResolutionError

from detlab.commands import preview
from detlab.config.ablation import plan_ablation
from detlab.config.compose import compose_config, config_dir, config_hash, make_detector, plain_config
from detlab.config.rules import check
from detlab.report.results import Measured

ABLATIONS = sorted((config_dir() / "ablation").glob("*.yaml"))

ANSWERS = ("test/map", "test/map_small", "test/ar_300")  # keys of result.json that are judged


def values(text: str) -> list[str]:
    """The choices of a sweep: at commas outside brackets and quotes."""
    return re.findall(r"(?:\[[^\]]*\]|'[^']*'|[^,])+", str(text))


def jobs(path: Path) -> list[list[str]]:
    params = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
    swept = [[f"{key}={value}" for value in values(text)] for key, text in params.items() if key != "seed"]
    return [list(job) for job in itertools.product(*swept)]


@pytest.mark.parametrize("path", ABLATIONS, ids=[p.stem for p in ABLATIONS])
def test_every_job_composes_and_no_rule_refuses_it(path: Path) -> None:
    head = path.read_text().split("defaults:")[0]
    assert head.splitlines()[1].startswith(f"# detlab ablate {path.stem} budget=cpu")
    assert head.splitlines()[2].endswith("?")
    assert "table" in head or "section" in head
    assert yaml.safe_load(path.read_text())["answer"] in ANSWERS
    assert yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]["seed"] == "0,1,2"
    known = set()
    for job in jobs(path):
        plain = plain_config(
            compose_config("train", [f"ablation={path.stem}", "budget=cpu", "paths.run_dir=.", "name=a", *job])
        )
        check(plain)
        assert plain["data"]["side"] == 64
        known.add(config_hash(plain))
    assert len(known) == len(jobs(path))  # no row says what another says, because the budget takes its choice back


@pytest.mark.parametrize("path", ABLATIONS, ids=[p.stem for p in ABLATIONS])
def test_the_papers_budget_composes(path: Path) -> None:
    found = re.search(r"# As in the paper: detlab ablate \w+ (.*)", path.read_text())
    if found is None:  # its own data are the paper's
        return
    import shlex

    words = shlex.split(found[1])
    swept = {word.split("=")[0] for word in words}
    job = [o for o in jobs(path)[0] if o.split("=")[0] not in swept]
    words = [word if "],[" not in word else word.split("],[")[0] + "]" for word in words]
    plain = plain_config(compose_config("train", [f"ablation={path.stem}", "paths.run_dir=.", "name=a", *job, *words]))
    check(plain)
    assert plain["data"]["root"] == "PATH"


def config_of(*overrides: str) -> dict[str, Any]:
    return plain_config(compose_config("train", ["budget=cpu", "paths.run_dir=.", "name=a", *overrides]))


def test_alternating_and_joint_training_see_the_same_images() -> None:
    params = yaml.safe_load((config_dir() / "ablation" / "alternating_or_joint.yaml").read_text())["hydra"]["sweeper"]
    fixed = ["ablation=alternating_or_joint", f"trainer.max_epochs={params['params']['trainer.max_epochs']}"]
    joint = config_of(*fixed, "variant=schedule/joint")
    four = config_of(*fixed, "variant=schedule/alternating")
    assert joint["training"]["_target_"] != four["training"]["_target_"]
    spent = [stage["max_epochs"] for stage in four["training"]["stages"].values()]
    assert sum(spent) == joint["trainer"]["max_epochs"] == 4
    with pytest.raises(InterpolationResolutionError, match="trainer.max_epochs=6 cannot be shared equally by 4"):
        config_of("ablation=alternating_or_joint", "trainer.max_epochs=6", "variant=schedule/alternating")


def test_leaving_out_a_source_of_ssd_leaves_the_other_levels_boxes_where_they_are() -> None:
    found = {}
    for name in ("all", "no_c3", "lowest_three", "lowest_two"):
        model = config_of("ablation=ssd_layers", f"variant=ssd_layers/{name}")["model"]
        with torch.device("meta"):
            detector = make_detector(model, 3)
        levels = detector.neck.levels
        with torch.device("cpu"):
            boxes = detector.anchors.per_level(levels, (64, 64))
        found[name] = dict(zip([level.name for level in levels], boxes, strict=True))
    whole = found.pop("all")
    assert "C3" in whole
    assert "C3" not in found["no_c3"]
    for row in found.values():
        assert row
        for level, boxes in row.items():
            assert torch.equal(boxes, whole[level]), level


def test_backbones_of_unlike_depth_all_begin_from_random_weights(tmp_path: Path) -> None:
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "resnet18-shapes.pth").touch()
    cache = f"data.cache_dir={tmp_path}"
    assert config_of(cache)["model"]["backbone"]["weights"] == str(tmp_path / "pretrained" / "resnet18-shapes.pth")
    assert config_of(cache, "model/backbone=resnet34")["model"]["backbone"]["weights"] is None
    assert config_of("data.cache_dir=null")["model"]["backbone"]["weights"] is None
    params = yaml.safe_load((config_dir() / "ablation" / "backbone_depth.yaml").read_text())["hydra"]["sweeper"][
        "params"
    ]
    fixed = f"model.backbone.weights={params['model.backbone.weights']}"
    assert config_of(cache, "ablation=backbone_depth", fixed)["model"]["backbone"]["weights"] is None


def test_rows_of_the_loss_ablation_differ_in_what_they_say() -> None:
    rows = {name: config_of("ablation=focal_or_cross_entropy", f"variant=loss/{name}")["model"] for name in LOSSES}
    kinds = {name: _loss_of(model) for name, model in rows.items()}
    assert kinds == LOSSES


def _loss_of(model: dict[str, Any]) -> tuple[str, str, float, float | None, float | None]:
    loss, sampler = model["cls_loss"], model["sampler"]["_target_"]
    name = loss["_target_"].rpartition(".")[2]
    return name, sampler.rpartition(".")[2], model["head"]["prior"], loss.get("gamma"), loss.get("alpha")


LOSSES = {
    "cross_entropy": ("BCELoss", "AllSampler", 0.5, None, None),
    "prior": ("BCELoss", "AllSampler", 0.01, None, None),
    "balanced": ("FocalLoss", "AllSampler", 0.01, 0.0, 0.75),
    "hard_negatives": ("BCELoss", "HardNegativeSampler", 0.01, None, None),
    "ohem": ("BCELoss", "OHEMSampler", 0.01, None, None),
    "focal": ("FocalLoss", "AllSampler", 0.01, 2.0, 0.25),
}


@pytest.mark.parametrize(
    ("name", "words", "stay"),
    [
        ("roi_pool", ["model/head=tail", "model/neck=fpn_p2"], ["model.head.body=fc"]),
        ("roi_pool", ["model/head=tail", "model.head.body=tail"], []),
        ("roi_pool", ["model/pool=roi_pool,roi_align"], []),
        (
            "box_loss_apart",
            ["model/matcher=ssd,retinanet"],
            ["model.matcher.positive=0.1", "model.matcher.negative=0.05"],
        ),
        ("box_loss_apart", ["model/matcher=ssd", "model.matcher.positive=0.5"], ["model.matcher.negative=0.05"]),
        ("box_loss_apart", ["model/neck=fpn_small"], []),
        ("", ["model/neck=fpn_small,fpn"], []),
    ],
)
def test_keys_of_an_ablation_inside_a_part_that_the_command_chose_are_told(
    name: str, words: list[str], stay: list[str]
) -> None:
    ablation = plan_ablation(name, ["budget=cpu", *words])
    assert ablation.fixed() == stay
    told = preview.facts(ablation, [0, 1], [], Measured(np.full((len(ablation.rows), 2), np.nan), None, None), None)
    assert told.get("also sets", "").partition(": by ")[0] == ", ".join(stay)


def test_keys_inside_a_part_that_the_ablation_itself_sweeps_are_its_own_choice(tmp_path: Path) -> None:
    (tmp_path / "ablation").mkdir()
    hydra = {"mode": "MULTIRUN", "sweeper": {"params": {"model/matcher": "retinanet,ssd"}}}
    body = {"model": {"matcher": {"positive": 0.3}, "neck": {"width": 32}}, "hydra": hydra}
    (tmp_path / "ablation" / "mine.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(body)}")
    assert plan_ablation("mine", ["budget=cpu"], tmp_path).fixed() == []
    assert plan_ablation("mine", ["budget=cpu", "model/neck=fpn_small"], tmp_path).fixed() == ["model.neck.width=32"]

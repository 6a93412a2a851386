"""Every ablation composes, in every job, with every budget it names; what its first lines promise is there."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import yaml

from detlab.config.compose import compose_config, config_dir, plain_config
from detlab.config.rules import check

ABLATIONS = sorted((config_dir() / "ablation").glob("*.yaml"))


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
    assert f"detlab train ablation={path.stem}" in head
    assert "table" in head or "section" in head
    assert yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]["seed"] == "0,1,2"
    for job in jobs(path):
        plain = plain_config(
            compose_config("train", [f"ablation={path.stem}", "budget=cpu", "paths.run_dir=.", "name=a", *job])
        )
        check(plain)
        assert plain["data"]["side"] == 64


@pytest.mark.parametrize("path", ABLATIONS, ids=[p.stem for p in ABLATIONS])
def test_the_papers_budget_composes(path: Path) -> None:
    found = re.search(r"# As in the paper: ablation=\w+ (.*)", path.read_text())
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

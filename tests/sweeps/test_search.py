"""Search by Optuna on the toy application: values, pruning, a storage that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.sweeps.test_launcher import facts, folder_of, jobs, sweep

optuna = pytest.importorskip("optuna", reason="the extra 'search' is not installed")


def study_of(cwd: Path) -> optuna.Study:
    return optuna.load_study(study_name="detlab", storage=f"sqlite:///{folder_of(cwd) / 'optuna.db'}")


def test_trials_are_jobs_with_the_metric_as_value_and_the_same_command_goes_on(tmp_path: Path) -> None:
    command = ["hydra/sweeper=optuna", "x=range(1,9)", "seed=3", "hydra.launcher.n_jobs=2"]
    code, said = sweep(tmp_path, *command, "hydra.sweeper.n_trials=3", "hydra.sweeper.sampler=random")
    assert code == 0, said
    trials = study_of(tmp_path).trials
    assert [t.state.name for t in trials] == ["COMPLETE"] * 3
    assert [t.value for t in trials] == [float(f"0.{t.params['x']}2") for t in trials]
    assert all(1 <= t.params["x"] <= 8 for t in trials)
    assert trials[0].intermediate_values == {0: trials[0].value - 0.01, 1: trials[0].value}
    known = {j["number"]: facts(Path(j["folder"]))["pid"] for j in jobs(tmp_path)}
    code, _ = sweep(tmp_path, *command, "hydra.sweeper.n_trials=5", "hydra.sweeper.sampler=tpe")
    assert code == 0
    assert len(study_of(tmp_path).trials) == 5
    assert {n: facts(folder_of(tmp_path) / str(n))["pid"] for n in known} == known


def test_a_trial_that_falls_behind_is_ended(tmp_path: Path) -> None:
    """Job 0 is good and ends; a poor one that would go on for ever is pruned by its evaluations."""
    good, poor = {"x": "9", "do": "finish"}, {"x": "1", "do": "sleep"}
    (tmp_path / "out").mkdir()
    name = tmp_path / "out" / "study"
    name.mkdir()
    study = optuna.create_study(storage=f"sqlite:///{name / 'optuna.db'}", study_name="detlab", direction="maximize")
    study.enqueue_trial(good)
    study.enqueue_trial(poor)
    code, said = sweep(
        tmp_path, "hydra/sweeper=optuna", "x=1,9", "do=finish,sleep", f"hydra.sweep.dir={name}",
        "hydra.sweeper.n_trials=2", "hydra.sweeper.startup_trials=1", "hydra.sweeper.pruner=median",
        "hydra.launcher.grace=3",
    )  # fmt: skip
    assert code == 0, said
    states = {t.params["x"]: t.state.name for t in study_of(tmp_path).trials}
    assert states == {"9": "COMPLETE", "1": "PRUNED"}
    assert [j["state"] for j in jobs(tmp_path)] == ["done", "pruned"]


def test_trials_of_a_killed_command_are_taken_up_again(tmp_path: Path) -> None:
    name = tmp_path / "out" / "study"
    name.mkdir(parents=True)
    storage = f"sqlite:///{name / 'optuna.db'}"
    study = optuna.create_study(storage=storage, study_name="detlab", direction="maximize")
    left = study.ask({"x": optuna.distributions.CategoricalDistribution(["4", "5"])})
    code, said = sweep(tmp_path, "hydra/sweeper=optuna", "x=4,5", f"hydra.sweep.dir={name}", "hydra.sweeper.n_trials=1")
    assert code == 0, said
    trials = study_of(tmp_path).trials
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE"]
    assert trials[1].params == left.params


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x=1"], "has nothing to search"),
        (["x=1,2", "hydra/launcher=basic"], "needs hydra/launcher=processes"),
        (["x=1,2", "hydra.sweeper.sampler=grid"], "hydra.sweeper.sampler=grid is not known"),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path) -> None:
    code, said = sweep(tmp_path, "hydra/sweeper=optuna", *arguments)
    assert code == 2
    assert message in said


def test_spaces() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from hydra_plugins.detlab_launcher._search import distribution
    from hydra_plugins.detlab_launcher.optuna import bounds

    def of(text: str) -> dict:
        (override,) = OverridesParser.create().parse_overrides([text])
        return json.loads(optuna.distributions.distribution_to_json(distribution(bounds(override))))["attributes"]

    assert of("a=interval(1,2)") == {"low": 1.0, "high": 2.0, "step": None, "log": False}
    assert of("a=tag(log,interval(1e-4,1e-2))") == {"low": 1e-4, "high": 1e-2, "step": None, "log": True}
    assert of("a=range(2,9,2)")["low"] == 2
    assert of("a=range(2,9,2)")["step"] == 2
    assert of("a/b=x,y")["choices"] == ["x", "y"]

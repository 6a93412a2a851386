"""Search by Optuna on the toy application: values, pruning, a storage that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import HydraException

from detlab.errors import ConfigError
from detlab.sweeps.job import Job, read_value
from detlab.sweeps.table import print_front
from hydra_plugins.detlab_launcher.optuna import OptunaSweeper, bounds
from tests.sweeps.test_launcher import facts, folder_of, jobs, sweep

optuna = pytest.importorskip("optuna", reason="the extra 'search' is not installed")
from hydra_plugins.detlab_launcher._search import TrialFeed, distribution, front_of, make_study  # noqa: E402


def study_of(cwd: Path) -> optuna.Study:
    return optuna.load_study(study_name="detlab", storage=f"sqlite:///{folder_of(cwd) / 'optuna.db'}")


def test_trials_are_jobs_with_the_metric_as_value_and_the_same_command_goes_on(tmp_path: Path) -> None:
    command = ["hydra/sweeper=optuna", "x=range(1,9)", "seed=3", "hydra.launcher.n_jobs=2"]
    code, said = sweep(tmp_path, *command, "hydra.sweeper.n_trials=3", "hydra.sweeper.sampler=random")
    assert code == 0, said
    assert "sweep folder" in said
    assert "0 to run" not in said  # the jobs are drawn later
    trials = study_of(tmp_path).trials
    trials = [t for t in trials if t.state.name == "COMPLETE"]  # a config drawn again is no trial
    assert len({t.params["x"] for t in trials}) == len(trials) == 3
    assert [t.value for t in trials] == [float(f"0.{t.params['x']}2") for t in trials]
    assert all(1 <= t.params["x"] <= 8 for t in trials)
    assert trials[0].intermediate_values == {0: trials[0].value - 0.01, 1: trials[0].value}
    known = {j["number"]: facts(Path(j["folder"]))["pid"] for j in jobs(tmp_path)}
    code, _ = sweep(tmp_path, *command, "hydra.sweeper.n_trials=5", "hydra.sweeper.sampler=tpe")
    assert code == 0
    done = [t.params["x"] for t in study_of(tmp_path).trials if t.state.name == "COMPLETE"]
    assert len(done) == len(set(done)) == 5  # the draws of the first command are not repeated
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
        (["x=1,2", "hydra.sweeper.n_trials=abc"], "hydra.sweeper.n_trials=abc must be a whole number from 1 on"),
        (["x=interval(2,1)"], "x=interval(2,1) must rise"),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path) -> None:
    code, said = sweep(tmp_path, "hydra/sweeper=optuna", *arguments)
    assert code == 2
    assert message in said


def feed_of(study: optuna.Study, space: dict[str, Any], n_trials: int, folder: Path, seen: list[Job]) -> TrialFeed:
    def plan(overrides: list[str], choices: dict[str, str]) -> Job:
        job = Job(number=len(seen), folder=folder / str(len(seen)), overrides=overrides, choices=choices, hash="")
        seen.append(job)
        return job

    return TrialFeed(study, space, [], n_trials, plan)


def run_all(feed: TrialFeed) -> None:
    while (job := feed.take()) is not None:
        job.state, job.value = "done", 0.5
        feed.ended(job)


def test_a_config_is_tried_once_and_a_search_ends_where_there_is_no_other(tmp_path: Path) -> None:
    space = {"x": optuna.distributions.CategoricalDistribution(["1", "2", "3"])}
    study, seen = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)), []
    feed = feed_of(study, space, 10, tmp_path, seen)
    run_all(feed)
    assert feed.over()
    assert sorted(job.choices["x"] for job in seen) == ["1", "2", "3"]
    again = feed_of(study, space, 10, tmp_path, seen)
    assert again.take() is None
    assert len(seen) == 3


def options(**changed: Any) -> OptunaSweeper:
    usual: dict[str, Any] = {
        "n_trials": 3, "sampler": "random", "pruner": None, "seed": 0, "startup_trials": 1, "storage": None,
        "study_name": "detlab", "objectives": None, "direction": "maximize", "params": None,
    }  # fmt: skip
    return OptunaSweeper(**usual | changed)


def test_a_longer_search_draws_others_and_a_wider_space_keeps_what_was_found(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    space = {"lr": optuna.distributions.FloatDistribution(0.0, 1.0)}
    for count in (3, 6):
        run_all(feed_of(make_study(options(), storage, space), space, count, tmp_path, []))
    drawn = [t.params["lr"] for t in make_study(options(), storage, space).trials]
    assert len(drawn) == len(set(drawn)) == 6
    for choices in (["1", "2"], ["1", "2", "3"]):
        space = {"x": optuna.distributions.CategoricalDistribution(choices)}
        study = make_study(options(study_name="words"), storage, space)
        run_all(feed_of(study, space, 9, tmp_path, []))
    assert sorted(t.params["x"] for t in study.trials if t.state.name == "COMPLETE") == ["1", "2", "3"]
    with pytest.raises(HydraException, match="holds a search for the monitored metric"):
        make_study(options(objectives=["val/map"], direction="maximize"), storage, space)


def first_cells(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]


def test_several_objectives_give_a_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"1": (0.5, 9.0), "2": (0.4, 3.0), "3": (0.3, 5.0)}  # map, latency: the third loses to the second in both
    for i, (value, latency) in enumerate(rows.values()):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "status.json").write_text('{"epoch": 1, "step": 20, "monitor": "val/map"}')
        (folder / "metrics.csv").write_text(f"epoch,step,val/map\n0,10,{value}\n1,20,0.1\n")
        (folder / "budget.json").write_text(json.dumps({"latency_ms": latency}))
    space = {"x": optuna.distributions.CategoricalDistribution(list(rows))}
    names = ["val/map", "latency_ms"]
    study = make_study(
        options(objectives=names, direction=["maximize", "minimize"]), f"sqlite:///{tmp_path / 'o.db'}", space
    )
    study.enqueue_trial({"x": "1"})
    study.enqueue_trial({"x": "2"})
    seen: list[Job] = []
    feed = feed_of(study, space, 3, tmp_path, seen)
    told: list[int] = []
    feed.objectives, feed.told = names, lambda: told.append(len(front_of(study, names)["trials"]))
    run_all(feed)
    assert told == [1, 2, 3]  # a search that is interrupted has the front of its trials, too
    found = front_of(study, names)
    print_front(found)
    assert first_cells(capsys) == ["0.5", "0.4"]
    latency_first = [t | {"values": dict(reversed(t["values"].items()))} for t in found["trials"]]
    print_front({"objectives": {"latency_ms": "minimize", "val/map": "maximize"}, "trials": latency_first})
    assert first_cells(capsys) == ["3", "9"]
    values = {t["choices"]["x"]: (tuple(t["values"].values()), t["front"]) for t in found["trials"]}
    assert values == {"1": ((0.5, 9.0), True), "2": ((0.4, 3.0), True), "3": ((0.3, 5.0), False)}
    (tmp_path / "1" / "budget.json").unlink()
    assert read_value(tmp_path / "1", "latency_ms") is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_trials": 0}, "n_trials=0 must be a whole number from 1 on"),
        ({"objectives": "val/map"}, "must be a list"),
        ({"objectives": ["val/map", "latency_ms"]}, r"direction=\[maximize,minimize\]"),
        ({"objectives": ["a", "b"], "direction": ["maximize", "up"]}, "direction=up is not known"),
        ({"objectives": ["a", "b"], "direction": ["maximize"] * 2, "pruner": "median"}, "cannot judge several"),
    ],
)
def test_options_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(**changed)


def test_spaces() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    def of(text: str) -> dict:
        (override,) = OverridesParser.create().parse_overrides([text])
        return json.loads(optuna.distributions.distribution_to_json(distribution(bounds(override))))["attributes"]

    assert of("a=interval(1,2)") == {"low": 1.0, "high": 2.0, "step": None, "log": False}
    assert of("a=tag(log,interval(1e-4,1e-2))") == {"low": 1e-4, "high": 1e-2, "step": None, "log": True}
    assert of("a=range(2,9,2)")["low"] == 2
    assert of("a=range(2,9,2)")["step"] == 2
    assert of("a/b=x,y")["choices"] == ["x", "y"]

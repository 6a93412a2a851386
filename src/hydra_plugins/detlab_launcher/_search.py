"""The Optuna part of a search: the study, and its trials as a feed of jobs."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial, TrialState

from detlab.sweeps import Job
from detlab.sweeps.job import Progress, read_progress, read_value

if TYPE_CHECKING:
    from hydra_plugins.detlab_launcher.optuna import OptunaSweeper

REPEATS = 20  # repeated draws in a row after which an untried config is queued instead
MANY = 10_000  # largest finite space that is searched for untried configs; refused draws in a row before giving up
STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


def distribution(bounds: Mapping[str, Any], text: str = "The range") -> BaseDistribution:
    """Optuna's distribution for a key's bounds.

    Raises:
        HydraException: the bounds do not increase, or are not above 0 on a log scale; `text` is the override.
    """
    if "choices" in bounds:
        return CategoricalDistribution(bounds["choices"])
    low, high, step, log = bounds["low"], bounds["high"], bounds["step"], bounds["log"]
    if not low < high and not (low == high and bounds["int"]):
        raise HydraException(f"{text} must rise: its least value first, as in interval(1e-4,1e-2).")
    if log and low <= 0:
        raise HydraException(f"{text} must begin above 0 on a log scale.")
    if bounds["int"]:
        return IntDistribution(low, high, log=log, step=1 if log else step)
    return FloatDistribution(low, high, log=log, step=step)


def make_study(options: OptunaSweeper, storage: str, space: Mapping[str, BaseDistribution]) -> optuna.Study:
    """Create the study of an OptunaSweeper, or load it from the storage to continue it.

    The sampler's seed grows with the number of trials; with the original seed it would draw the same trials again.
    If the choices of a key have changed, a new study is created and takes over the trials that fit.

    Raises:
        HydraException: the storage holds a study with other objectives.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions: list[Any] = list(options.directions)  # "maximize" or "minimize", checked by `_objectives`
    study = optuna.create_study(
        storage=storage, study_name=options.study_name, directions=directions, load_if_exists=True
    )
    _same_objectives(study, options)
    if not _fits(study, space):
        text = json.dumps({key: optuna.distributions.distribution_to_json(d) for key, d in sorted(space.items())})
        name = f"{options.study_name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
        older, study = (
            study,
            optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True),
        )
        if not study.trials:
            _take_over(older, study, space)
        _same_objectives(study, options)
    seed = None if options.seed is None else options.seed + len(study.trials)
    start = options.startup_trials
    study.sampler = (
        optuna.samplers.RandomSampler(seed=seed)
        if options.sampler == "random"
        else optuna.samplers.TPESampler(seed=seed, n_startup_trials=start, constant_liar=True)
    )
    pruners = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=start),
        "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(),
        "none": lambda: optuna.pruners.NopPruner(),
    }
    study.pruner = pruners[options.pruner]()
    return study


def _same_objectives(study: optuna.Study, options: OptunaSweeper) -> None:
    known = study.user_attrs.get("objectives")
    wanted = [list(options.objectives), [d.lower() for d in options.directions]]
    if known is None and not study.trials:
        study.set_user_attr("objectives", wanted)
    elif [d.name.lower() for d in study.directions] != wanted[1] or (known is not None and known != wanted):
        raise HydraException(
            f"The storage holds a search for {', '.join(known[0]) if known else 'another objective'}; give "
            f"hydra.sweeper.study_name another name, or hydra.sweep.dir another folder."
        )


def _fits(study: optuna.Study, space: Mapping[str, BaseDistribution]) -> bool:
    """Whether Optuna can continue the study; it refuses a key whose choices have changed."""
    for trial in study.get_trials(deepcopy=False):
        for key, old in trial.distributions.items():
            if key in space and (type(old) is not type(space[key]) or (_is_choice(old) and old != space[key])):
                return False
    return True


def _is_choice(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, CategoricalDistribution)


def _take_over(older: optuna.Study, study: optuna.Study, space: Mapping[str, BaseDistribution]) -> None:
    """Copy the finished trials that lie within the new space."""
    for trial in older.get_trials(states=tuple(STATES.values())):
        same = trial.params.keys() == space.keys()
        if same and all(_within(value, space[key]) for key, value in trial.params.items()):
            study.add_trial(
                optuna.trial.create_trial(
                    params=trial.params,
                    distributions=dict(space),
                    values=trial.values,
                    state=trial.state,
                    user_attrs=trial.user_attrs,
                    intermediate_values=trial.intermediate_values,
                )
            )


def _within(value: Any, distribution: BaseDistribution) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:  # not one of the choices
        return False


class TrialFeed:
    """Trials as jobs: one is asked for when there is room, and its result is told to the study when it ends.

    Each config counts as one trial. If the sampler draws a config that was tried before, that draw is discarded. After
    REPEATS such draws in a row an untried config is queued, if there is one.

    Trials that a killed command left running are queued again with their values. The launcher then finds their folders
    by config hash and resumes them.

    Args:
        study: Optuna's study.
        space: {searched key: its distribution}.
        fixed: overrides that all trials share.
        n_trials: number of trials to finish, including those of earlier commands.
        plan: makes a job from overrides and choices.
        objectives: names of the values told to the study; None stands for the best value of the monitored metric.
        told: called after each result that was told to the study.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Mapping[str, BaseDistribution],
        fixed: Sequence[str],
        n_trials: int,
        plan: Callable[[list[str], dict[str, str]], Job],
        objectives: Sequence[str | None] = (None,),
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self.study, self.space, self.fixed, self.plan = study, dict(space), list(fixed), plan
        self.objectives, self.told = list(objectives), told
        self._trials: dict[str, Trial] = {}
        self._reported: dict[str, int] = {}
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
        ended = study.get_trials(deepcopy=False, states=tuple(STATES.values()))
        self._tried = {_identity(trial.params) for trial in ended}
        self._left = n_trials - len(self._tried)

    def take(self) -> Job | None:
        """The job of the next trial; None if there are enough trials or every config was tried."""
        repeats = 0
        while self._left > 0:
            trial = self.study.ask(self.space)
            if _identity(trial.params) in self._tried:
                self.study.tell(trial, state=TrialState.FAIL)
                repeats += 1
                if repeats >= REPEATS and not self._hand_over_another():
                    self._left = 0
                continue
            job = self._job(trial)
            if job.state == "refused":  # a rule would always refuse this config
                self.ended(job)
                repeats += 1
                self._left = 0 if repeats > MANY else self._left
                continue
            self._left -= 1
            if not job.earlier:
                return job
            self.ended(job)
        return None

    def _job(self, trial: Trial) -> Job:
        self._tried.add(_identity(trial.params))
        choices = {key: as_value(value) for key, value in trial.params.items()}
        job = self.plan([*self.fixed, *(f"{key}={value}" for key, value in choices.items())], choices)
        self._trials[str(job.folder)] = trial
        trial.set_user_attr("folder", str(job.folder))
        return job

    def _hand_over_another(self) -> bool:
        """Queue an untried config; False if the space is known to have none."""
        sizes = [_values(distribution) for distribution in self.space.values()]
        if any(values is None for values in sizes):
            return True  # a continuous space has always more, and the sampler will find one
        untried = [
            found
            for values in itertools.islice(itertools.product(*(v for v in sizes if v is not None)), MANY)
            if _identity(found := dict(zip(self.space, values, strict=True))) not in self._tried
        ]
        if untried:
            self.study.enqueue_trial(random.Random(len(self._tried)).choice(untried))
        return bool(untried)

    def over(self) -> bool:
        """Whether there are enough trials."""
        return self._left <= 0

    def seen(self, job: Job, progress: Progress) -> bool:
        """Report all new evaluations; True if the pruner ends the trial."""
        return self._report(job, progress) and self._trials[str(job.folder)].should_prune()

    def ended(self, job: Job) -> None:
        """Tell the study the result of a trial."""
        self._report(job, read_progress(job.folder))
        trial = self._trials.pop(str(job.folder))
        state = STATES.get(job.state, TrialState.FAIL)
        values = [job.value if key is None else read_value(job.folder, key) for key in self.objectives]
        known = [value for value in values if value is not None and math.isfinite(value)]
        if state is TrialState.COMPLETE and len(known) < len(values):
            state = TrialState.FAIL
            missing = [key or "the monitored metric" for key, value in zip(self.objectives, values, strict=True)
                       if value is None or not math.isfinite(value)]  # fmt: skip
            job.reason = f"its run has no finite {', '.join(missing)}, which the search needs"
        self.study.tell(trial, known if state is TrialState.COMPLETE else None, state=state)
        self.told()

    def _report(self, job: Job, progress: Progress) -> bool:
        """Report new evaluations; returns whether there were any. Optuna can prune with one objective only."""
        if len(self.objectives) > 1:
            return False
        key = str(job.folder)
        start = self._reported.get(key, 0)
        for epoch, value in progress.history[start:]:
            self._trials[key].report(value, epoch)
        self._reported[key] = len(progress.history)
        return len(progress.history) > start


def front_of(study: optuna.Study, objectives: Sequence[str]) -> dict[str, Any]:
    """Trials of a search, with its Pareto front (no other trial is as good in all objectives and better in one)."""
    best = {trial.number for trial in study.best_trials}
    trials = [
        {
            "folder": trial.user_attrs.get("folder"),
            "choices": {key: as_value(value) for key, value in trial.params.items()},
            "values": dict(zip(objectives, trial.values, strict=True)),
            "front": trial.number in best,
        }
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ]
    directions = {key: d.name.lower() for key, d in zip(objectives, study.directions, strict=True)}
    return {"objectives": directions, "trials": trials}


def _identity(params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, as_value(value)) for key, value in params.items()))


def _values(distribution: BaseDistribution) -> list[Any] | None:
    """All values of a finite distribution; None for real numbers."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    return None


def as_value(value: Any) -> str:
    """A parameter as Hydra writes it."""
    return repr(value) if isinstance(value, float) else str(value)

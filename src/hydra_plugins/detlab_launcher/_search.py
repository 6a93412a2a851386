"""Optuna's side of the search: the study, and trials as a feed of jobs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial, TrialState

from detlab.sweeps import Job
from detlab.sweeps.job import Progress, read_progress

STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


def distribution(bounds: Mapping[str, Any]) -> BaseDistribution:
    """Optuna's distribution of a key's bounds."""
    if "choices" in bounds:
        return CategoricalDistribution(bounds["choices"])
    low, high, step, log = bounds["low"], bounds["high"], bounds["step"], bounds["log"]
    if bounds["int"]:
        return IntDistribution(low, high, log=log, step=1 if log else step)
    return FloatDistribution(low, high, log=log, step=step)


def make_study(options: Any, storage: str) -> optuna.Study:
    """The study of an OptunaSweeper's options, gone on with where the storage has it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(
            seed=options.seed, n_startup_trials=options.startup_trials, constant_liar=True
        ),
        "random": lambda: optuna.samplers.RandomSampler(seed=options.seed),
    }
    pruners = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=options.startup_trials),
        "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(),
        "none": lambda: optuna.pruners.NopPruner(),
    }
    for key, chosen, known in (("sampler", options.sampler, samplers), ("pruner", options.pruner, pruners)):
        if chosen not in known:
            raise HydraException(f"hydra.sweeper.{key}={chosen} is not known; use one of {', '.join(known)}.")
    return optuna.create_study(
        storage=storage,
        study_name=options.study_name,
        direction=options.direction,
        sampler=samplers[options.sampler](),
        pruner=pruners[options.pruner](),
        load_if_exists=True,
    )


class TrialFeed:
    """Trials as jobs, asked one at a time when there is room, and told as they end.

    Trials that a killed command left running are asked for again with their own values, so that the launcher finds
    their folders by their configs and goes on where they were.

    Args:
        study: to ask and tell.
        space: distribution of each searched key.
        fixed: overrides that all trials share.
        n_trials: to come to an end, those of earlier commands counted.
        plan: makes a job of overrides and choices.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Mapping[str, BaseDistribution],
        fixed: Sequence[str],
        n_trials: int,
        plan: Callable[[list[str], dict[str, str]], Job],
    ) -> None:
        self.study, self.space, self.fixed, self.plan = study, dict(space), list(fixed), plan
        self._trials: dict[str, Trial] = {}
        self._reported: dict[str, int] = {}
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
        ended = study.get_trials(deepcopy=False, states=tuple(STATES.values()))
        self._left = n_trials - len(ended)

    def take(self) -> Job | None:
        """The next trial's job; a trial whose job an earlier command finished is told at once."""
        while self._left > 0:
            self._left -= 1
            trial = self.study.ask(self.space)
            choices = {key: as_value(value) for key, value in trial.params.items()}
            job = self.plan([*self.fixed, *(f"{key}={value}" for key, value in choices.items())], choices)
            self._trials[str(job.folder)] = trial
            trial.set_user_attr("folder", str(job.folder))
            if not job.earlier and job.state != "refused":
                return job
            self.ended(job)
        return None

    def over(self) -> bool:
        """Whether enough trials were asked for."""
        return self._left <= 0

    def seen(self, job: Job, progress: Progress) -> bool:
        """Report every new evaluation; True where the pruner has seen enough."""
        return self._report(job, progress) and self._trials[str(job.folder)].should_prune()

    def ended(self, job: Job) -> None:
        """Tell the study."""
        self._report(job, read_progress(job.folder))
        trial = self._trials.pop(str(job.folder))
        state = STATES.get(job.state, TrialState.FAIL)
        if state is TrialState.COMPLETE and (job.value is None or not math.isfinite(job.value)):
            state = TrialState.FAIL
        self.study.tell(trial, job.value if state is TrialState.COMPLETE else None, state=state)

    def _report(self, job: Job, progress: Progress) -> bool:
        """Report what is new; whether anything was."""
        key = str(job.folder)
        start = self._reported.get(key, 0)
        for epoch, value in progress.history[start:]:
            self._trials[key].report(value, epoch)
        self._reported[key] = len(progress.history)
        return len(progress.history) > start


def as_value(value: Any) -> str:
    """A parameter as Hydra writes it."""
    return repr(value) if isinstance(value, float) else str(value)

"""`hydra/sweeper=optuna`: hyperparameter search by Optuna's ask and tell (extra `search`), with any detlab launcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Transformer,
)
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from detlab.errors import ConfigError
from detlab.sweeps.options import one_of, whole
from detlab.sweeps.record import CONFIG
from detlab.system.files import write_json
from hydra_plugins.detlab_launcher._checking import check_choices, check_folder
from hydra_plugins.detlab_launcher.launcher import ProcessLauncher

if TYPE_CHECKING:
    from detlab.sweeps import Feed

FRONT = "search.json"  # trials of a search with several objectives, and its Pareto front


class OptunaSweeper(Sweeper):
    """Searches the space given on the command line; see conf/hydra/sweeper/optuna.yaml for the options.

    `a,b,c` is a categorical choice, `range(1,9)` integers, `interval(1e-4,1e-2)` real numbers, `tag(log, interval(..))`
    real numbers on a log scale. The value of a trial is the best value of the monitored validation metric.

    Args:
        n_trials: number of trials to finish (done or pruned), including those of earlier commands.
        sampler: tpe | random.
        pruner: median | halving | none; ends trials by the metric at each evaluation; None: median, or none with
            several objectives, for which Optuna cannot prune.
        seed: seed of the sampler.
        startup_trials: number of random trials before TPE, and of trials without pruning.
        storage: address of the study's storage; None: optuna.db in the sweep's folder.
        study_name: name of the study in the storage.
        objectives: such as ["val/map", "latency_ms"]: columns of metrics.csv at the best epoch, or keys of budget.json;
            None: only the monitored metric.
        direction: maximize | minimize, or one for each objective.
        params: {key: range} of the search space, for keys that are not on the command line.
    """

    hydra_context: HydraContext  # Optional in Hydra's class, since `setup` sets it
    config: DictConfig

    def __init__(
        self,
        *,
        n_trials: int,
        sampler: str,
        pruner: str | None,
        seed: int | None,
        startup_trials: int,
        storage: str | None,
        study_name: str,
        objectives: Sequence[str] | None,
        direction: str | Sequence[str],
        params: DictConfig | None,
    ) -> None:
        at = "hydra.sweeper."
        self.n_trials = whole(f"{at}n_trials", n_trials, least=1) or 1
        self.seed = whole(f"{at}seed", seed, least=0, none="another one every time")
        self.startup_trials = whole(f"{at}startup_trials", startup_trials, least=0) or 0
        self.sampler = one_of(f"{at}sampler", sampler, ("tpe", "random"))
        self.objectives, self.directions = _objectives(objectives, direction)
        usual = "median" if len(self.objectives) == 1 else "none"
        self.pruner = one_of(f"{at}pruner", usual if pruner is None else pruner, ("median", "halving", "none"))
        if len(self.objectives) > 1 and self.pruner != "none":
            raise ConfigError(f"{at}pruner={pruner} cannot judge several objectives; use {at}pruner=null.")
        self.storage, self.study_name = storage, study_name
        self.params: Mapping[Any, Any] = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search; the results are optuna.db and sweep.json in the sweep's folder.

        Raises:
            HydraException: the launcher or an option is not supported.
        """
        from detlab.sweeps.table import print_front

        launcher = self.launcher
        if not isinstance(launcher, ProcessLauncher):
            raise HydraException("hydra/sweeper=optuna needs hydra/launcher=processes or hydra/launcher=slurm.")
        try:
            from hydra_plugins.detlab_launcher._search import TrialFeed, front_of, make_study
        except ImportError as error:
            raise HydraException("hydra/sweeper=optuna needs optuna; pip install 'detlab[search]'.") from error
        fixed, space = self._space(arguments)
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        check_folder(folder, self.config.hydra.launcher)
        sweep = launcher.sweep()
        studies = []

        def feed() -> Feed:
            OmegaConf.save(self.config, folder / CONFIG)
            study = make_study(self, self.storage or f"sqlite:///{folder / 'optuna.db'}", space)
            studies.append(study)
            keys = self.objectives if len(self.objectives) > 1 else [None]
            return TrialFeed(study, space, fixed, self.n_trials, lambda o, c: launcher.plan(sweep, o, c), keys, told)

        def told() -> None:
            if len(self.objectives) > 1:  # after each trial, for a report of a search that runs or was interrupted
                write_json(folder / FRONT, front_of(studies[0], self.objectives))

        launcher.serve(sweep, feed)
        told()
        if len(self.objectives) > 1:
            print_front(front_of(studies[0], self.objectives))

    def _space(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        """(overrides that all trials share, {searched key: its distribution})."""
        from hydra_plugins.detlab_launcher._search import distribution

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        written = [f"{key!s}={value}" for key, value in self.params.items()]
        overrides = {o.get_key_element(): o for o in parser.parse_overrides([*written, *arguments])}
        check_choices(list(overrides.values()), self.hydra_context.config_loader)
        space = {
            key: distribution(bounds(o), str(o.input_line)) for key, o in overrides.items() if o.is_sweep_override()
        }
        if not space:
            raise HydraException("hydra/sweeper=optuna has nothing to search; give a key a choice, range or interval.")
        fixed = [f"{k}={o.get_value_element_as_str()}" for k, o in overrides.items() if not o.is_sweep_override()]
        return fixed, space


def _objectives(objectives: Any, direction: Any) -> tuple[list[str], list[str]]:
    """(names, directions) of the objectives, two lists of equal length.

    Raises:
        ConfigError: the types are wrong or the lengths differ.
    """
    at = "hydra.sweeper."
    if isinstance(objectives, str) or not isinstance(objectives, Sequence | None):
        raise ConfigError(f"{at}objectives={objectives} must be a list such as [val/map,latency_ms], or null.")
    names = [str(name) for name in objectives or ["the monitored metric"]]
    directions = [direction] if isinstance(direction, str) else list(direction or ())
    for word in directions:
        one_of(f"{at}direction", word, ("maximize", "minimize"))
    if len(directions) != len(names):
        raise ConfigError(
            f"{at}direction={direction} must have one word for each of {', '.join(names)}; for instance "
            f"{at}direction=[{','.join(_usual(name) for name in names)}]."
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"{at}objectives={list(names)} names one twice; leave it out.")
    return names, directions


def _usual(name: str) -> str:
    return "minimize" if "loss" in name or name in ("latency_ms", "flops", "parameters", "seconds") else "maximize"


def bounds(override: Override) -> dict[str, Any]:
    """A sweep in Hydra's grammar as {choices}, or as {low, high, step, log, int}."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return {"choices": list(override.sweep_iterator(transformer=Transformer.str))}
    log = isinstance(value, RangeSweep | IntervalSweep) and "log" in value.tags
    if isinstance(value, RangeSweep):
        step = value.step
        ints = all(isinstance(x, int) for x in (value.start, value.stop, step))
        last = list(value.range())[-1] if ints else value.stop  # Hydra's range excludes its end
        return {"low": value.start, "high": last, "step": None if log else step, "log": log, "int": ints}
    if isinstance(value, IntervalSweep):
        return {"low": value.start, "high": value.end, "step": None, "log": log, "int": False}
    raise HydraException(f"hydra/sweeper=optuna cannot search {override.input_line}; use a choice, range or interval.")

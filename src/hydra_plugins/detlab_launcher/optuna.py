"""`hydra/sweeper=optuna`: search by ask and tell (extra `search`), the jobs run by whatever launcher is chosen."""

from __future__ import annotations

from collections.abc import Sequence
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

if TYPE_CHECKING:
    from detlab.sweeps import Feed


class OptunaSweeper(Sweeper):
    """Searches the space that a command line spans; see conf/hydra/sweeper/optuna.yaml for the options.

    `a,b,c` is a categorical choice, `range(1,9)` integers, `interval(1e-4,1e-2)` real numbers, `tag(log, interval(..))`
    real numbers on a log scale. The value of a trial is the best the monitored validation metric reached.

    Args:
        n_trials: to come to an end (done or pruned), those of earlier commands counted.
        sampler: tpe | random.
        pruner: median | halving | none; ends trials by the metric at each evaluation.
        seed: of the sampler.
        startup_trials: random trials before TPE, and trials without pruning.
        storage: of the study; None: optuna.db in the sweep's folder.
        study_name: in the storage.
        direction: maximize | minimize.
        params: of the search space, where it is not on the command line.
    """

    def __init__(
        self,
        *,
        n_trials: int,
        sampler: str,
        pruner: str,
        seed: int | None,
        startup_trials: int,
        storage: str | None,
        study_name: str,
        direction: str,
        params: DictConfig | None,
    ) -> None:
        self.n_trials, self.sampler, self.pruner = n_trials, sampler, pruner
        self.seed, self.startup_trials = seed, startup_trials
        self.storage, self.study_name, self.direction = storage, study_name, direction
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's."""
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search; its result lies in the sweep's folder, in optuna.db and sweep.json.

        Raises:
            HydraException: a launcher or an option that does not fit.
        """
        if not hasattr(self.launcher, "serve"):
            raise HydraException("hydra/sweeper=optuna needs hydra/launcher=processes or hydra/launcher=slurm.")
        try:
            from hydra_plugins.detlab_launcher._search import TrialFeed, make_study
        except ImportError as error:
            raise HydraException("hydra/sweeper=optuna needs optuna; pip install 'detlab[search]'.") from error
        fixed, space = self._space(arguments)
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        sweep = self.launcher.sweep()

        def feed() -> Feed:
            study = make_study(self, self.storage or f"sqlite:///{folder / 'optuna.db'}")
            return TrialFeed(study, space, fixed, self.n_trials, lambda o, c: self.launcher.plan(sweep, o, c))

        self.launcher.serve(sweep, feed)

    def _space(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        """(overrides that all trials share, distribution of each searched key)."""
        from hydra_plugins.detlab_launcher._search import distribution

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        written = [f"{key}={value}" for key, value in self.params.items()]
        overrides = {o.get_key_element(): o for o in parser.parse_overrides([*written, *arguments])}
        space = {key: distribution(bounds(o)) for key, o in overrides.items() if o.is_sweep_override()}
        if not space:
            raise HydraException("hydra/sweeper=optuna has nothing to search; give a key a choice, range or interval.")
        fixed = [f"{k}={o.get_value_element_as_str()}" for k, o in overrides.items() if not o.is_sweep_override()]
        return fixed, space


def bounds(override: Override) -> dict[str, Any]:
    """A sweep of Hydra's grammar as choices, or as low, high, step and log."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return {"choices": list(override.sweep_iterator(transformer=Transformer.str))}
    log = "log" in value.tags
    if isinstance(value, RangeSweep):
        step = value.step
        ints = all(isinstance(x, int) for x in (value.start, value.stop, step))
        last = list(value.range())[-1] if ints else value.stop  # Hydra's range leaves out its end
        return {"low": value.start, "high": last, "step": None if log else step, "log": log, "int": ints}
    if isinstance(value, IntervalSweep):
        return {"low": value.start, "high": value.end, "step": None, "log": log, "int": False}
    raise HydraException(f"hydra/sweeper=optuna cannot search {override.input_line}; use a choice, range or interval.")

"""Plan a sweep: its configurations (rows), its seeds and its metric, composed exactly as `detlab train` does."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detlab.config.compose import compose_config, config_dir, plain_config
from detlab.config.explaining import explain
from detlab.config.places import searched
from detlab.config.sweep_name import sweep_name
from detlab.config.typed import check_overrides
from detlab.errors import ConfigError

KNOWN = {  # beginnings of the targets that detlab ablate can use
    "hydra/sweeper": "hydra_plugins.detlab_launcher.grid.",
    "hydra/launcher": "hydra_plugins.detlab_launcher.",
}
USUAL = "test/map"  # the metric of a sweep that sets no `answer`


@dataclass(frozen=True)
class Ablation:
    """A planned sweep.

    Attributes:
        name: file name in conf/ablation; "" if the sweep is given on the command line alone.
        shared: overrides common to all jobs, including `ablation`.
        launching: overrides of Hydra's own settings, for the launcher.
        axes: {swept key: its levels}, without the seed; the first level of every key is the baseline.
        seeds: the seeds given.
        answer: metric that the sweep compares, such as test/map_small.
        noise: {run, image}: standard deviations measured at this budget; empty if not measured.
        folder: folder of the sweep.
        n_jobs: jobs that run at once, passed to the launcher; None for one per GPU.
        threads: CPU threads of a job, passed to the launcher; None for an equal share of the cores.
        own: the user's folder of own options (--config-dir); None without one.
    """

    name: str
    shared: tuple[str, ...]
    launching: tuple[str, ...]
    axes: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    answer: str
    noise: Mapping[str, float]
    folder: Path
    n_jobs: int | None
    threads: int | None
    own: Path | None = None

    @property
    def rows(self) -> list[dict[str, str]]:
        """All combinations of levels; the baseline comes first."""
        return [dict(zip(self.axes, levels, strict=True)) for levels in itertools.product(*self.axes.values())]

    @property
    def metric(self) -> str:
        """The metric's key in result.json."""
        return self.answer.removeprefix("test/")

    def seeds_up_to(self, count: int) -> tuple[int, ...]:
        """`count` seeds: those given, then the smallest unused numbers from 0 on."""
        more = (seed for seed in itertools.count() if seed not in self.seeds)
        return tuple(itertools.islice(itertools.chain(self.seeds, more), count))

    def job(self, row: Mapping[str, str], seed: int) -> list[str]:
        """Overrides that distinguish a job from the sweep's other jobs."""
        return [*(f"{key}={level}" for key, level in row.items()), f"seed={seed}"]

    def fixed(self) -> list[str]:
        """Keys with values that the ablation's file sets inside a part that the command chose, and that stay."""
        folders = [folder for folder in (self.own, config_dir()) if folder is not None]
        file = next((f for folder in folders if (f := folder / "ablation" / f"{self.name}.yaml").is_file()), None)
        body: dict[Any, Any] = {}
        if file is not None and isinstance(read := OmegaConf.to_container(OmegaConf.load(file)), dict):
            body = read
        hydra = body.get("hydra") or {}
        own = {*((hydra.get("sweeper") or {}).get("params") or {})}
        given = {word.partition("=")[0].lstrip("+") for word in self.shared} | {*self.axes}
        told = []
        for key in sorted(given - own):
            group, _, package = key.partition("@")
            path = package or group.replace("/", ".")
            part: Any = body if "/" in group else None
            for name in path.split("."):
                part = part.get(name) if isinstance(part, dict) else None
            if isinstance(part, dict):
                told += [f"{path}.{name}={value}" for name, value in part.items() if f"{path}.{name}" not in given]
        return told

    def config(self, row: Mapping[str, str], seed: int = 0) -> dict[str, Any]:
        """A job's config, composed and resolved, for inspection.

        Raises:
            ConfigError: the options are not compatible.
        """
        return plain_config(self.composed(row, seed))

    def composed(self, row: Mapping[str, str], seed: int = 0) -> DictConfig:
        """A job's config with its interpolations.

        Raises:
            ConfigError: the options are not compatible.
        """
        place = ["paths.run_dir=.", f"name={self.name or 'sweep'}"]
        return compose_config("train", [*searched(self.own), *self.shared, *self.job(row, seed), *place])


def plan_ablation(name: str, overrides: Sequence[str], own: Path | None = None) -> Ablation:
    """The sweep that `detlab train ablation=NAME OVERRIDES` would run, with `own` as its --config-dir.

    Raises:
        ConfigError: an ablation, key or option does not exist, several ablations are given, no key is swept, a value
            is repeated, or Hydra's sweeper or launcher is one that keeps no rows.
    """
    named = [text.partition("=")[2] for text in overrides if text.startswith("ablation=")]
    given = list(dict.fromkeys([*([name] if name else []), *named]))
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are several ablations; give one, and one command to each.")
    if given:
        name, overrides = given[0], [text for text in overrides if not text.startswith("ablation=")]
    if "," in name:
        raise ConfigError(
            f"{name} names several ablations, each with rows of its own; give one, and one command to each."
        )
    check_overrides(overrides)
    try:
        parsed = OverridesParser.create().parse_overrides([*([f"ablation={name}"] if name else []), *overrides])
        settings, task, params = _compose(parsed, own)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides=overrides)) from error
    swept = {key: str(levels) for key, levels in params.items()}
    swept |= {_key(o): _text(o).partition("=")[2] for o in task if o.is_sweep_override() or _key(o) in swept}
    axes = {key: _levels(key, text) for key, text in swept.items()}
    given_seeds: tuple[Any, ...] = axes.pop("seed", ()) or tuple(o.value() for o in task if _key(o) == "seed") or (0,)
    seeds = tuple(_seed(seed) for seed in given_seeds)
    for key, values in {**axes, "seed": seeds}.items():
        refuse_repeated(key, [str(value) for value in values])
    if not axes:
        raise ConfigError(
            "Nothing is swept: name an ablation, or give a key several choices, as in model/neck=fpn,none."
        )
    shared = tuple(_text(o) for o in task if _key(o) not in swept and _key(o) != "seed")
    hydra = settings["hydra"]
    _refuse_foreign(hydra)
    folder = _folder(hydra, [_text(o) for o in task], params, parsed)
    return Ablation(
        name=name,
        shared=shared,
        launching=tuple(_text(o) for o in parsed if o not in task and _key(o) != "hydra.sweep.dir"),
        axes=axes,
        seeds=seeds,
        answer=str(settings.get("answer") or USUAL),
        noise=settings["noise"],
        folder=folder,
        n_jobs=hydra.launcher.get("n_jobs"),
        threads=hydra.launcher.get("threads"),
        own=own,
    )


def refuse_repeated(key: str, values: Sequence[str]) -> None:
    """Refuse a swept value that is given twice: its jobs would be the same, and their results no second measurement.

    Raises:
        ConfigError: the message names the value.
    """
    seen = set[str]()
    for value in values:
        if value in seen:
            raise ConfigError(f"{key} is swept over {value} twice; give each value once.")
        seen.add(value)


def _refuse_foreign(hydra: Any) -> None:
    """Refuse a sweeper that draws its own jobs, and a launcher that keeps no record of them (detlab's own do).

    Raises:
        ConfigError: the message names the command that runs them.
    """
    for group, known in KNOWN.items():
        if not str(hydra[group.partition("/")[2]].get("_target_")).startswith(known):
            raise ConfigError(
                f"{group}={hydra.runtime.choices[group]} is no choice of detlab ablate, which runs given rows and "
                f"reads their records; leave it out, or use detlab train -m."
            )


def _text(override: Override) -> str:
    """An override as the user wrote it."""
    return override.input_line or ""


def _compose(parsed: Sequence[Override], own: Path | None) -> tuple[Mapping[str, Any], list[Override], dict[str, str]]:
    """Compose the config without its swept keys.

    Returns:
        (`answer`, `noise` and `hydra` of the config; overrides of keys outside `hydra`; {key: levels} swept by the
        ablation's file).
    """
    GlobalHydra.instance().clear()
    single = [*searched(own), *(_text(o) for o in parsed if not o.is_sweep_override())]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=single, return_hydra_config=True)
    task = [o for o in parsed if not _key(o).startswith(("hydra.", "hydra/"))]
    params: Any = OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create({}), resolve=True)
    assert isinstance(params, dict)
    noise = plain_config(config, ["measured_noise"])["measured_noise"] or {}
    return (
        {"answer": config.answer, "noise": noise, "hydra": config.hydra},
        task,
        {str(k): v for k, v in params.items()},
    )


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+")


def _levels(key: str, text: str) -> tuple[str, ...]:
    """Values of a swept key, as text for the overrides of the jobs.

    Raises:
        ConfigError: the range is infinite or empty.
    """
    override = OverridesParser.create().parse_override(f"{key}={text}")
    if not override.is_sweep_override():
        return (str(override.get_value_element_as_str()),)
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{key}={text} has no end of values; use choices, or hydra/sweeper=optuna with detlab train -m."
        )
    try:
        levels = tuple(str(level) for level in override.sweep_string_iterator())
    except HydraException:
        raise ConfigError(f"{key}={text} needs its options written out here, as in {key}=a,b.") from None
    if not levels:
        raise ConfigError(f"{key}={text} has no value; a range leaves out its end.")
    return levels


def _seed(text: Any) -> int:
    if not str(text).lstrip("-").isdecimal():
        raise ConfigError(f"seed={text} must be a whole number, or several, as in seed=0,1,2.")
    return int(text)


def _folder(hydra: Any, task: list[str], params: Mapping[str, Any], parsed: Sequence[Override]) -> Path:
    given = [o.value() for o in parsed if _key(o) == "hydra.sweep.dir"]
    if given:
        return Path(str(given[-1])).absolute()
    outputs = os.environ.get("DETLAB_OUTPUTS", "outputs")  # as conf/train.yaml has it
    return (Path(outputs) / "sweeps" / sweep_name(task, params)).absolute()

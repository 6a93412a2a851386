"""Resume an interrupted run: its folder, its checkpoint, and the log rows that its loggers keep."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_only

from detlab.config.compose import config_hash
from detlab.errors import ConfigError
from detlab.runs.checkpoints import CHECKPOINT_KEY, LAST, PREVIOUS, read_content
from detlab.runs.folder import in_use
from detlab.runs.seal import SEAL, seal_of
from detlab.system.files import read_json
from detlab.system.printing import say

CANDIDATES = (LAST, PREVIOUS, "best.ckpt")  # tried in this order; a run can resume from each of them
FINISHED = "finished"
PROGRESS = (  # counts at the top of a checkpoint, each with the path of the same count in Lightning's fit loop
    ("global_step", "epoch_loop.automatic_optimization.optim_progress", "optimizer", "step", "total", "completed"),
    ("epoch", "epoch_progress", "current", "completed"),
)


class Start(NamedTuple):
    """Where training starts from."""

    checkpoint: Path | None = None  # None: start at the first step
    keep_steps: int | None = None  # log rows of earlier steps are kept; None for a run that is not resumed
    class_names: tuple[str, ...] = ()  # of the checkpoint
    data: str | None = None  # fingerprint of the data of before; None if the run left none


NEW = Start()


def start_of(config: Mapping[str, Any]) -> Start:
    """The newest intact checkpoint of the run's folder; the first step if there is no checkpoint yet.

    Raises:
        ConfigError: there are checkpoints, but this run cannot resume from any of them.
    """
    if not config["resume"]:
        return NEW
    folder = Path(config["paths"]["run_dir"]) / "checkpoints"
    refused = []
    for file in (folder / name for name in CANDIDATES):
        if not file.is_file():
            continue
        try:
            content = read_content(file)
            _check(file, content, config)
        except ConfigError as error:
            refused.append(str(error))
            _say(f"resume      {error} It is left out.")
            continue
        _check_length(file, content, config)
        _say(f"resume      {file}, step {content['global_step']}")
        names = tuple(map(str, content[CHECKPOINT_KEY]["class_names"]))
        return Start(file, _kept_steps(content), names, read_status(folder.parent).get("data_fingerprint"))
    if refused:
        raise ConfigError(
            f"resume=true found no checkpoint to go on from in {folder}: {refused[0]} Start afresh in another folder, "
            f"hydra.run.dir=FOLDER, without resume."
        )
    _say(f"resume      no checkpoint in {folder} yet; the run starts at its first step")
    return Start(None, 0)


def finished_score(config: Mapping[str, Any]) -> tuple[bool, float | None]:
    """(Whether resume=true was given for a finished run, the score of that run)."""
    if not config["resume"]:
        return False, None
    run_dir = Path(config["paths"]["run_dir"])
    status = read_status(run_dir)
    if status.get("state") == FINISHED and status.get("config_hash") == config_hash(config):
        _say(f"{run_dir} is finished: nothing to resume. Its metrics lie in result.json.")
        return True, status.get("score")
    return False, None


def find_run(config: Mapping[str, Any], root: Path) -> Path:
    """The newest unfinished run of the same config under root that no process holds, else the newest finished one.

    Raises:
        ConfigError: there is no such run.
    """
    wanted = config_hash(config)
    found = list(_runs(root))
    same = [(f, s) for f, s in found if s.get("config_hash") == wanted]
    held = [folder for folder, _ in same if in_use(folder)]
    same = [(f, s) for f, s in same if f not in held]
    same.sort(key=lambda pair: (pair[1].get("state") != FINISHED, str(pair[1].get("started"))))
    if held and not same:
        raise ConfigError(
            f"resume=true found {held[-1]}, which is held by another detlab command; wait for its end, or leave resume "
            f"out to start another run."
        )
    if not same:
        raise ConfigError(
            f"resume=true found no unfinished run of this config ({wanted}) under {root}, among {len(found)} runs; "
            f"give its folder, hydra.run.dir=FOLDER, or leave resume out."
        )
    return same[-1][0]


def logger_facts(node: Mapping[str, Any], start: Start) -> dict[str, Any]:
    """Extra arguments of a logger in a resumed run: detlab's own loggers continue, others start new files."""
    ours = str(node.get("_target_", "")).startswith("detlab.")
    return {"keep_steps": start.keep_steps} if ours and start.keep_steps is not None else {}


def read_status(run_dir: Path) -> dict[str, Any]:
    """The content of status.json; empty if it is missing or cannot be read."""
    status = read_json(run_dir / "status.json")
    return status if isinstance(status, dict) else {}


def _runs(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(run folder, its status), at most three levels deep (date / sweep / job)."""
    for depth in range(1, 4):
        for file in root.glob("/".join(["*"] * depth) + "/status.json"):
            yield file.parent.resolve(), read_status(file.parent)


def _check(file: Path, content: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that this run cannot go on from.

    Raises:
        ConfigError: it holds weights only, is damaged or was changed, or is of another model.
    """
    loops = content.get("loops")
    placed = isinstance(loops, Mapping) and isinstance(loops.get("fit_loop"), Mapping)
    if not content.get("optimizer_states") or not placed:
        raise ConfigError(f"{file} holds weights only, nothing to go on from.")
    there, here = (
        json.dumps(c["model"], sort_keys=True, default=str) for c in (content[CHECKPOINT_KEY]["config"], config)
    )
    if there != here:
        raise ConfigError(f"{file} is of another model than this config's.")
    if damaged := _damage(content):
        raise ConfigError(f"{file} is damaged: {damaged}.")


def _damage(content: Mapping[str, Any]) -> str | None:
    """What contradicts itself in a checkpoint's training state; Lightning would take it, or fail in its own words."""
    seal = content[CHECKPOINT_KEY].get(SEAL)  # without one, only the checks below apply
    if seal is not None and seal != seal_of(content, CHECKPOINT_KEY):
        return "it was changed after detlab wrote it; its weights alone can be taken, by init_from="
    for key in ("optimizer_states", "lr_schedulers"):
        states = content.get(key, [])
        if not isinstance(states, list) or not all(isinstance(state, Mapping) for state in states):
            return f"its {key} are no list of states"
    if any(_whole(state.get("last_epoch", 0)) is None for state in content.get("lr_schedulers", [])):
        return "a last_epoch of its lr_schedulers is no number of steps"
    if len(content["optimizer_states"]) != len(content.get("lr_schedulers", [])):
        return "it has not as many lr_schedulers as optimizer_states"
    loop = content["loops"]["fit_loop"]
    for key, *path in PROGRESS:
        told, counted = content.get(key), loop
        for name in path:
            counted = counted.get(name) if isinstance(counted, Mapping) else None
        if _whole(told) is None or counted != told:
            return f"its {key} is {str(told)[:40]}, but its loops counted {str(counted)[:40]}"
    return None


def _check_length(file: Path, content: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse a run that is shorter than what was trained.

    Raises:
        ConfigError: names the option.
    """
    most = config.get("trainer", {}).get("max_epochs")
    progress = content["loops"]["fit_loop"]["epoch_progress"]["current"]
    done = _whole(progress.get("processed"))  # `epoch` is one less in a checkpoint of an epoch's end
    if type(most) is int and done is not None and 0 <= most < done:
        raise ConfigError(
            f"resume=true found {file} after {done} epochs, and trainer.max_epochs={most} is less; use "
            f"trainer.max_epochs={done} or more."
        )


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _kept_steps(content: Mapping[str, Any]) -> int:
    """Number of steps whose log rows are complete; the last row may be missing after a stop."""
    states = content.get("callbacks")
    found = states.values() if isinstance(states, Mapping) else ()
    owed = any(isinstance(state, Mapping) and state.get("row") for state in found)
    return int(content["global_step"]) - int(owed)


@rank_zero_only
def _say(text: str) -> None:
    say(text)

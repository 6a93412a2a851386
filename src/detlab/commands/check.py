"""detlab check: test a config before a long run: data, anchors, steps, an evaluation, a checkpoint, time and memory."""

from __future__ import annotations

import itertools
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from rich.table import Table
from rich.text import Text

from detlab.commands.anchors import anchors_of, placement_of
from detlab.commands.app import on_plain_config, run_app
from detlab.commands.proposing import propose
from detlab.config.compose import compose_config, config_dir, valid_config
from detlab.config.explaining import one_line
from detlab.config.rules import check
from detlab.data import DetectionData
from detlab.errors import ConfigError, DataError
from detlab.metrics.anchor_coverage import coverage, coverage_report
from detlab.runs.checkpoints import read_checkpoint
from detlab.runs.loading import detector_of
from detlab.runs.replay import repeat_step
from detlab.system.printing import say, show
from detlab.system.text import duration
from detlab.training.build import build
from detlab.training.environment import set_up_torch
from detlab.training.machine import check_machine
from detlab.training.run import Run
from detlab.training.step_clock import StepClock
from detlab.training.trainers import callbacks_of

USAGE = "detlab check data=... minutes=10"

COVERED_IMAGES = 200
LOW_RECALL = 0.5  # the check warns if fewer boxes have an anchor above the matcher's upper IoU threshold
PASS, WARN, FAIL, SKIPPED = "PASS", "WARN", "FAIL", "skipped"
STYLES = {PASS: "green", WARN: "yellow", FAIL: "bold red", SKIPPED: "dim"}
jobs = 1  # jobs of the sweep on the command line; the first one is checked


class Preflight:
    """The steps of a check, one line each in the final table; steps that depend on a failed one are skipped."""

    def __init__(self, config: dict[str, Any], jobs: int = 1) -> None:
        self.config, self.jobs = config, jobs
        self.rows: list[tuple[str, str, str, float]] = []  # (name, verdict, findings, seconds)
        self.clock = StepClock()
        self._built: Run | None = None

    @property
    def run(self) -> Run:
        """The objects that the step `build` has built; later steps are skipped if it fails."""
        assert self._built is not None
        return self._built

    @property
    def passed(self) -> bool:
        """Whether no step failed."""
        return all(verdict != FAIL for _, verdict, _, _ in self.rows)

    def go(self) -> None:
        """Run all steps in order."""
        steps: dict[str, Callable[[], tuple[str, str]]] = {
            "options": self.options,
            "data and model": self.build,
            "anchors": self.anchors,
            "training steps": self.train,
            "evaluation": self.evaluate,
            "checkpoint": self.checkpoint,
            "cost": self.cost,
        }
        for name, step in steps.items():
            if not self.passed:
                self.rows.append((name, SKIPPED, "", 0.0))
                continue
            start = time.perf_counter()
            try:
                verdict, seen = step()
            except Exception as error:  # any error becomes a line of the table
                known = isinstance(error, ConfigError | DataError)
                verdict, seen = FAIL, str(error) if known else f"{type(error).__name__}: {one_line(error)}"
            self.rows.append((name, verdict, seen, time.perf_counter() - start))

    def options(self) -> tuple[str, str]:
        """Check the rules about combinations of options."""
        check(self.config)
        check_machine(self.config)
        return PASS, f"no rule refuses them; seed {self.config['seed']}"

    def build(self) -> tuple[str, str]:
        """Build data (with audit), detector, optimiser and trainer."""
        set_up_torch(self.config)
        self._built = build(short_run(self.config))
        callbacks_of(self.run.trainer).append(self.clock)
        dirt = [row for row in self.run.data.report.as_rows() if "dropped" in row[3]]
        counts = ", ".join(f"{s} {len(self.run.data.records(s))}" for s in ("train", "val", "test"))
        seen = f"{counts} images, {self.run.data.num_classes} classes"
        if dirt:
            return WARN, f"{seen}; " + "; ".join(f"{row[2]} x {row[1]} in {row[0]}" for row in dirt[:3])
        return PASS, f"{seen}; nothing had to be dropped"

    def anchors(self) -> tuple[str, str]:
        """Coverage of the training boxes by the anchors."""
        data = self.run.data
        try:
            stage = anchors_of(self.run.module.detector)
        except ConfigError as error:
            return PASS, str(error).split(";")[0]
        truth = data.ground_truth("train")
        covered = coverage(stage, truth, placement_of(data), COVERED_IMAGES)
        report = coverage_report(covered, stage, truth.crowd.numpy())
        row, high = report["all"], max(report["thresholds"])
        if not row["boxes"]:
            return WARN, "no box in the images looked at"
        recall = row[f"recall_{high:g}"]
        seen = (
            f"{recall:.1%} of {row['boxes']} boxes have an anchor from IoU {high:g} on; {row['positives']:.1f} "
            f"positives per box, {row['without_positive']:.1%} without"
        )
        return (PASS, seen) if recall >= LOW_RECALL else (WARN, f"{seen}; detlab anchors suggests better ones")

    def train(self) -> tuple[str, str]:
        """Train a few steps with the real trainer."""
        self.run.trainer.fit(self.run.module, datamodule=self.run.data)
        loss = self.run.trainer.callback_metrics.get("train/loss")
        if loss is None or not torch.isfinite(loss):
            return FAIL, f"the loss is {loss}, not a finite number"
        return PASS, f"{len(self.clock.steps)} steps, loss {float(loss):.3f}, {self.clock.step:.2f} s a step"

    def evaluate(self) -> tuple[str, str]:
        """Result of the evaluation at the end of `train`."""
        results = self.run.module.results.get("val")
        monitor = self.config["monitor"] or self.run.module.monitor
        if not results or monitor.removeprefix("val/") not in results:
            return FAIL, f"the evaluation gave no {monitor}; it gave {', '.join(results or ()) or 'nothing'}"
        value = results[monitor.removeprefix("val/")]
        return PASS, f"{monitor} {value:.3f} after these steps, {self.clock.image * 1e3:.0f} ms an image"

    def checkpoint(self) -> tuple[str, str]:
        """Save a checkpoint, read it with weights_only=True, rebuild the detector, compare all tensors."""
        path = Path(self.config["paths"]["run_dir"]) / "check.ckpt"
        self.run.trainer.save_checkpoint(path, weights_only=False)
        read = read_checkpoint(path, self.config["trust"], own=self.config)
        again = detector_of(read).state_dict()
        own = self.run.module.detector.state_dict()
        differing = [k for k, v in own.items() if not torch.equal(again[k].cpu(), v.cpu())]
        size = path.stat().st_size / 1e6
        path.unlink()
        if differing:
            return FAIL, f"{len(differing)} tensors differ after loading, first {differing[0]}"
        return PASS, f"{size:.0f} MB, loads with weights_only=True, {len(own)} tensors equal"

    def cost(self) -> tuple[str, str]:
        """Estimate time and memory of the whole run or sweep on this device."""
        seconds, parts = estimate(self.config, self.run.data, self.clock.step, self.clock.image)
        memory = f"{_memory(self.run.module.device) / 1e9:.1f} GB"
        seen = f"about {duration(seconds)} a run ({parts}), {memory} at the peak of these steps"
        return PASS, seen + (
            f"; {self.jobs} jobs one after another {duration(self.jobs * seconds)}" if self.jobs > 1 else ""
        )


def estimate(config: Mapping[str, Any], data: DetectionData, step: float, image: float) -> tuple[float, str]:
    """(seconds of a run, the calculation in words), from measured seconds per `step` and per evaluated `image`."""
    trainer = config["trainer"]
    world = _processes(trainer)
    per_epoch = len(data.train_dataloader()) / world
    epochs = trainer.get("max_epochs") or 1000  # Lightning's own default
    steps = per_epoch * epochs
    if (trainer.get("max_steps") or -1) > 0:
        steps = min(steps, trainer["max_steps"] * (trainer.get("accumulate_grad_batches") or 1))
    evaluations = steps / per_epoch / (trainer.get("check_val_every_n_epoch") or 1)
    judging = evaluations * len(data.records("val")) * image / world
    tested = len(data.records("test")) * bool(config["test"]) * image / world
    limit = _time_limit(trainer.get("max_time"))
    seconds = min(steps * step + judging, limit) + tested
    judged = duration(judging + tested)
    parts = f"{steps:.0f} steps of {step:.2f} s, {evaluations:.0f} evaluations and the test {judged}"
    parts += ", which trainer.max_time ends" if steps * step + judging > limit else ""
    return seconds, parts + (f", on {world} processes if they scale" if world > 1 else "")


def _time_limit(text: Any) -> float:
    """Seconds of Lightning's time limit DD:HH:MM:SS; infinite without a limit."""
    if not isinstance(text, str):
        return math.inf
    days, hours, minutes, seconds = (int(part) for part in text.split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def _processes(trainer: Mapping[str, Any]) -> int:
    devices = trainer.get("devices", 1)
    if devices in (-1, "-1", "auto"):
        devices = max(1, torch.cuda.device_count()) if trainer.get("accelerator") != "cpu" else 1
    count = len(devices) if isinstance(devices, Sequence) and not isinstance(devices, str) else int(devices)
    return count * int(trainer.get("num_nodes", 1) or 1)


def short_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config for a few steps and batches on one device, without loggers and callbacks except the loss guard."""
    trainer = {
        k: v for k, v in config["trainer"].items() if k not in ("strategy", "num_nodes", "max_steps", "max_time")
    }
    trainer |= {
        "devices": 1,
        "max_epochs": 1,
        "limit_train_batches": config["steps"],
        "limit_val_batches": config["batches"],
        "check_val_every_n_epoch": 1,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
        "log_every_n_steps": 1,
    }
    guard = {k: v for k, v in config["callbacks"].items() if k == "nonfinite"}
    return dict(config) | {"trainer": trainer, "logger": {}, "callbacks": guard}


def _memory(device: torch.device) -> float:
    """Peak memory in bytes, of the GPU or (on a CPU) of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux


def first_of_sweep(arguments: Sequence[str]) -> tuple[list[str], int]:
    """(arguments of a sweep's first job, number of jobs): the first of all comma-separated values, without -m."""
    single, count = [], 1
    for argument in arguments:
        if argument in ("-m", "--multirun"):
            continue
        if "=" not in argument or argument.startswith("-"):
            single.append(argument)
            continue
        first, choices = _first(argument)
        single.append(first)
        count *= choices
    return single, count


def _first(override: str) -> tuple[str, int]:
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return override, 1  # Hydra will report the error
    if not parsed.is_sweep_override() or not parsed.is_discrete_sweep():
        return override, 1
    choices = list(itertools.islice(parsed.sweep_string_iterator(), 100_000))
    return f"{override.partition('=')[0]}={choices[0]}", len(choices)


def print_table(preflight: Preflight) -> None:
    """Print the verdicts."""
    table = Table("check", "verdict", "seconds", "what was seen", title="detlab check")
    for name, verdict, seen, seconds in preflight.rows:
        table.add_row(name, Text(verdict, style=STYLES[verdict]), f"{seconds:.1f}", seen)
    show(table, width=130)
    say("ready to run" if preflight.passed else "not ready", style="bold")


def measured(config: dict[str, Any]) -> tuple[float, float] | None:
    """Seconds of a training step and of an evaluated image, after all checks; None where one fails."""
    preflight = Preflight(config)
    preflight.go()
    print_table(preflight)
    return (preflight.clock.step, preflight.clock.image) if preflight.passed else None


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="check")
@on_plain_config("check")
def main(config: dict[str, Any]) -> None:
    """Run all steps, or repeat one dumped batch; exit status 1 if anything fails."""
    if config["batch"]:
        sys.exit(0 if repeat_step(config["batch"], tuple(config["trust"])) else 1)
    facts = HydraConfig.get()
    axes = [_first(f"{key}={choices}") for key, choices in (facts.sweeper.get("params") or {}).items()]
    if config["minutes"]:
        sys.exit(0 if propose(config, list(facts.overrides.task), measured) else 1)
    if axes:  # an ablation; check its first job
        words = [*facts.overrides.task, *(first for first, _ in axes)]
        config = valid_config(compose_config("check", words), "check", words)
    preflight = Preflight(config, jobs * math.prod(count for _, count in axes))
    preflight.go()
    print_table(preflight)
    if not preflight.passed:
        sys.exit(1)


if __name__ == "__main__":
    sys.argv[1:], jobs = first_of_sweep(sys.argv[1:])
    if not any(a in ("--help", "-h", "--cfg") for a in sys.argv):
        sys.argv.append("hydra.mode=RUN")  # an ablation's config sets MULTIRUN, which would start the sweep
    run_app(main, "check")

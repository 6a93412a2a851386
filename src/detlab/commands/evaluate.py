"""detlab evaluate: metrics of a trained detector, from a run folder or a checkpoint file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import lightning as L  # noqa: N812 - Lightning's own convention
import torch
from lightning.pytorch.callbacks import ProgressBar

from detlab.commands.app import on_plain_config, run_app
from detlab.config.compose import config_dir
from detlab.config.keys import PRECISIONS
from detlab.config.parts import build_part
from detlab.config.validate import validate_node
from detlab.data import DetectionData
from detlab.data.audit import MANY
from detlab.data.audit import names as listed
from detlab.data.values import words
from detlab.errors import ConfigError
from detlab.runs.checkpoints import Checkpoint, find_checkpoint, read_checkpoint
from detlab.runs.loading import detector_of
from detlab.system.printing import say
from detlab.training.build import check_memory, make_data, measures_of
from detlab.training.callbacks import ResultWriter, ValidationPictures, WorstImages, progress_bar
from detlab.training.console import overflow_notes, print_results, say_audit, split_notes
from detlab.training.environment import quieten
from detlab.training.lightning_module import DetectionModule
from detlab.training.precision import resolve_precision
from detlab.training.trainers import give_data

USAGE = "detlab evaluate run=outputs/... ckpt=best"


PLACES = ("cache_dir", "url")  # keys of the run's data that are ignored: where to write, and where to download from


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="evaluate")
@on_plain_config("evaluate")
def main(config: dict[str, Any]) -> None:
    """Evaluate and write result.json, detections.json, ground_truth.json, plots/, pictures/ and worst/."""
    evaluate(config)


def evaluate(config: dict[str, Any]) -> dict[str, float]:
    """Metrics of a run's checkpoint on a split.

    Raises:
        ConfigError: an option is unknown.
        DataError: the data set lacks the split, or shares no class with the model.
    """
    quieten()
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    checkpoint = read_checkpoint(find_checkpoint(config["run"], config["ckpt"]), config["trust"])
    checkpoint = _with_selection(checkpoint, config["detect"])
    run = checkpoint.config
    maps = all(type(run.get(key)) is dict for key in ("trainer", "metrics"))
    if not maps or not {"augment", "seed", "monitor"} <= run.keys():
        raise ConfigError(f"{checkpoint.path} holds a config without trainer, metrics, augment, seed or monitor.")
    unknown = sorted(set(config["data"]) - set(run["data"]) - {"_target_", "voc_ap", "max_detections"})
    if unknown:
        raise ConfigError(f"There is no option data.{unknown[0]}; the run's data has {', '.join(run['data'])}.")
    precision = str(config["trainer"].get("precision") or run["trainer"].get("precision"))
    if precision not in PRECISIONS:
        raise ConfigError(
            f"{checkpoint.path} was trained with trainer.precision={words(precision)}, which is none; use "
            f"trainer.precision=auto."
        )
    data_config = {k: v for k, v in run["data"].items() if k not in PLACES} | config["data"]
    validate_node(data_config, "data")
    if config["split"] == "train":
        data_config |= {"same_images": True}
    if "classes" not in config["data"]:
        data_config["classes"] = None  # match_classes below selects the model's classes that this data set has
    data = make_data(run | {"data": data_config}, (config["split"],))
    check_memory(data, (config["split"],))
    say_audit(data)
    for note in match_classes(data, checkpoint.class_names):
        say(f"classes     {note}")
    detector = detector_of(checkpoint)
    tta = config.get("tta") or run.get("tta")
    module = DetectionModule(
        detector=detector,
        optim=torch.optim.SGD,
        lr_schedule=torch.optim.lr_scheduler.ConstantLR,
        class_names=data.class_names,
        category_ids=data.category_ids,
        config=run,
        measures=measures_of(run["metrics"], detector, data),
        seed=run["seed"],
        monitor=run["monitor"],
        tta=build_part(tta) if tta else None,
        divisor=data_config["size_divisor"],
        evaluation_loss=run.get("evaluation_loss", True),
    )
    run_dir = Path(config["paths"]["run_dir"])
    threshold = config["score_threshold"]
    writers = [
        ValidationPictures(str(run_dir), score_threshold=0.5 if threshold is None else threshold),
        ResultWriter(str(run_dir), score_threshold=threshold),
        WorstImages(str(run_dir), config["worst"], threshold),
    ]
    options = dict(config["trainer"])
    options["precision"] = resolve_precision(precision, options["accelerator"])
    bar = progress_bar()
    trainer = L.Trainer(
        **options,
        enable_progress_bar=isinstance(bar, ProgressBar),
        logger=False,
        callbacks=[*writers, bar],
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=str(run_dir),
    )
    loader = data.val_dataloader() if config["split"] == "val" else data.test_dataloader()
    give_data(trainer, data)
    module.test_split = config["split"] if data.has(config["split"]) else "val"
    trainer.test(module, dataloaders=loader, verbose=False)
    results = module.results["test"]
    print_results(results, f"{module.test_split} split, {checkpoint.path.name}")
    for note in split_notes(data, module.test_split, config["split"]):
        say(f"note        {note}")
    for note in overflow_notes(module, "test", str(checkpoint.path)):
        say(f"note        {note}", stderr=True)
    say(f"results     {run_dir}")
    return results


def match_classes(data: DetectionData, names: Sequence[str]) -> list[str]:
    """Renumber a data set's classes to match the model's.

    Returns:
        Sentences about classes that only one of both has.

    Raises:
        DataError: the data set and the model have no class in common.
    """
    missing, left_out = data.match_classes(names)
    notes = []
    if missing:
        notes.append(f"the data set lacks {listed(missing, MANY)}: no AP of theirs, and none in the mean")
    if left_out:
        named = listed((f"{name} ({count} boxes)" for name, count in left_out.items()), MANY)
        notes.append(f"the model does not know {named}: left out, their images are judged by the other classes")
    return notes


def _with_selection(checkpoint: Checkpoint, options: dict[str, Any]) -> Checkpoint:
    """A checkpoint whose `detect` options (selection of final boxes) are changed."""
    model = checkpoint.config["model"]
    if not options:
        return checkpoint
    if "detect" not in model:
        raise ConfigError("The run's model selects its boxes without model.detect; leave out detect.KEY=VALUE.")
    known = [key for key in model["detect"] if not key.startswith("_")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(f"There is no option detect.{unknown[0]}; the run's model has {', '.join(known)}.")
    detect = model["detect"] | options
    validate_node(detect, "detect")
    return checkpoint._replace(config=checkpoint.config | {"model": model | {"detect": detect}})


if __name__ == "__main__":
    run_app(main, "evaluate")

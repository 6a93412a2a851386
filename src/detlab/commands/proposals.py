"""detlab proposals: write region proposals of a data set, one file per split, and measure the recall of such files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from detlab.commands.app import on_plain_config, run_app
from detlab.config.compose import config_dir
from detlab.config.parts import build_part
from detlab.data import DetectionData
from detlab.data.formats.source import Source
from detlab.data.proposals.selective_search import check_opencv, selective_search
from detlab.data.proposals.store import (
    Boxes,
    ProposalFile,
    StoredProposals,
    fingerprint,
    grid_proposals,
    open_proposals,
    proposal_file,
    read_proposals,
    write_proposals,
)
from detlab.data.records import Record
from detlab.data.unlabelled import batches_of_images
from detlab.errors import ConfigError, DataError
from detlab.metrics.collected import Found
from detlab.metrics.matching import THRESHOLDS
from detlab.metrics.proposal_recall import recall_by_iou
from detlab.model.proposals import RPN
from detlab.runs.loading import Loaded, load
from detlab.system.files import write_json
from detlab.system.printing import say, show
from detlab.system.workers import spawned_workers
from detlab.tensors.boxes import clip

USAGE = "detlab proposals data=... method=selective_search"

METHODS = ("grid", "selective_search", "rpn")
PART = 16  # images per part; a killed command loses at most one part per process
RECALL_AT = (100, 300, 1000, 2000)  # numbers of proposals per image


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="proposals")
@on_plain_config("proposals")
def main(config: dict[str, Any]) -> None:
    """Write proposals, or measure the recall of a file."""
    propose(config)


def propose(config: dict[str, Any]) -> Path:
    """Write the proposals of the chosen splits and print their recall; returns their folder.

    Finished parts of an interrupted command are reused; a split whose file exists is only evaluated.

    Raises:
        ConfigError, DataError: before any proposal is made, if options or data are wrong.
    """
    _check(config)
    data = build_part(config["data"], seed=config["seed"])
    data.prepare_data()
    data.setup()
    folder = Path(config["paths"]["run_dir"])
    splits = [split for split in config["splits"] if data.has(split)]
    if config["recall"] is None:
        makes = _maker(config, data.source)
        for split in splits:
            _write_split(data.records(split), split, folder, _settings(config), makes, config["workers"])
    judge(data, splits, config["recall"] or str(folder), folder)
    return folder


def judge(data: DetectionData, splits: Sequence[str], source: str, folder: Path) -> dict[str, Any]:
    """Print the recall of proposals by IoU and number, and write it to recall.json.

    Raises:
        DataError: the proposals belong to none of the splits.
    """
    stored = open_proposals(source, max(RECALL_AT))
    results, refusal = {}, None
    for split in splits:
        try:
            stored.check(data.records(split), split, source)
        except DataError as error:  # expected for the other splits, since a file holds one split
            refusal = error
            continue
        results[split] = _recall(data, split, stored)
        _print_recall(split, results[split])
    if not results and refusal is not None:
        raise refusal
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "recall.json", results)
    say(f"proposals   {source}  use data.proposals={source}")
    return results


def _check(config: dict[str, Any]) -> None:
    if config["recall"] is None and config["method"] == "rpn" and config["run"] is None:
        raise ConfigError("method=rpn needs run=FOLDER|FILE, a trained model=rpn or model=faster_rcnn.")
    if config["recall"] is None and config["method"] == "selective_search":
        check_opencv()
    if config["threads"]:
        torch.set_num_threads(config["threads"])


def _settings(config: dict[str, Any]) -> str:
    """The settings that the boxes depend on, as text stored in the files."""
    texts = {
        "grid": "grid",
        "selective_search": f"selective_search {config['mode']}, side {config['side']}, seed {config['seed']}",
        "rpn": f"rpn {config['run']} {config['ckpt']}",
    }
    return f"{texts[config['method']]}, at most {config['count']}"


def _maker(config: dict[str, Any], source: Source) -> Any:
    """A function from records to their boxes; picklable, except for an RPN, which runs in this process."""
    if config["method"] == "grid":
        return partial(_grids, count=config["count"])
    if config["method"] == "selective_search":
        options = {"mode": config["mode"], "side": config["side"], "seed": config["seed"]}
        return partial(_searched, source=source, count=config["count"], options=options)
    loaded = load(config["run"], ckpt=config["ckpt"], trust=config["trust"], device=_device(config["device"]))
    rpn = getattr(loaded.detector, "rpn", None)
    if not isinstance(rpn, RPN):
        raise ConfigError(
            f"run={config['run']} is a {type(loaded.detector).__name__}, which has no RPN; use a run of model=rpn or "
            f"model=faster_rcnn."
        )
    rpn.detect.keep_in_testing(config["count"])
    return _RPNProposals(loaded, rpn, source, config["batch_size"])


def _grids(records: Sequence[Record], count: int) -> list[Boxes]:
    return [grid_proposals(item.size, count) for item in records]


def _searched(records: Sequence[Record], source: Source, count: int, options: dict[str, Any]) -> list[Boxes]:
    seed = options["seed"]
    found = []
    for item in records:
        boxes, scores = selective_search(source.image(item), **options | {"seed": seed + item.id})
        found.append((boxes[:count], scores[:count]))
    return found


class _RPNProposals:
    """Proposals of a trained RPN; images are resized as in its run."""

    def __init__(self, loaded: Loaded, rpn: RPN, source: Source, batch_size: int) -> None:
        self.loaded, self.rpn, self.source, self.batch_size = loaded, rpn, source, batch_size

    @torch.inference_mode()
    def __call__(self, records: Sequence[Record]) -> list[Boxes]:
        found: list[Boxes] = []
        for batch in batches_of_images(
            (self.source.image(item) for item in records),
            resize=self.loaded.resize,
            collate=self.loaded.collate,
            batch_size=self.batch_size,
        ):
            batch = batch.to(self.loaded.device)
            prediction = self.rpn(self.loaded.detector.features(batch))
            proposals = self.rpn.propose(prediction, batch, for_training=False)
            scale = (batch.original_sizes / batch.sizes).flip(-1).repeat(1, 2)[:, None]
            boxes = clip(proposals.boxes * scale, batch.original_sizes)
            usable = proposals.real & (boxes[..., 2:] > boxes[..., :2]).all(-1)
            found += [
                (box[use].cpu().numpy(), score[use].float().cpu().numpy())
                for box, score, use in zip(boxes, proposals.scores, usable, strict=True)
            ]
        return found


def _write_split(
    records: list[Record], split: str, folder: Path, settings: str, makes: Any, workers: int | None
) -> None:
    """Write the file of a split from its parts; existing parts are reused."""
    target, parts = folder / f"{split}.npz", folder / f"{split}.parts"
    pieces = [records[i : i + PART] for i in range(0, len(records), PART)]
    if target.is_file():
        _refuse_other(read_proposals(target), settings, records, target)
        return
    missing = []
    for number, piece in enumerate(pieces):
        file = parts / f"{number:06d}.npz"
        if file.is_file():
            _refuse_other(read_proposals(file), settings, piece, file)
        else:
            missing.append(number)
    with _bar() as bar:
        task = bar.add_task(split, total=len(records), completed=sum(len(p) for p in pieces) - _total(pieces, missing))
        for number, found in _made(pieces, missing, makes, workers):
            write_proposals(parts / f"{number:06d}.npz", proposal_file(settings, pieces[number], found))
            bar.advance(task, len(found))
    files = [read_proposals(parts / f"{number:06d}.npz") for number in range(len(pieces))]
    found = [(file.boxes[a:b], file.scores[a:b]) for file in files for a, b in _spans(file)]
    write_proposals(target, proposal_file(settings, records, found))
    shutil.rmtree(parts, ignore_errors=True)


def _made(
    pieces: list[list[Record]], missing: list[int], makes: Any, workers: int | None
) -> Iterator[tuple[int, list[Boxes]]]:
    """(number, boxes) of the missing parts as they finish; selective search, the slow method, uses all cores."""
    count = min(workers or os.cpu_count() or 1, len(missing))
    if count <= 1 or not isinstance(makes, partial) or makes.func is not _searched:
        yield from ((number, makes(pieces[number])) for number in missing)
        return
    with spawned_workers(count) as pool:
        numbers = {pool.submit(makes, pieces[number]): number for number in missing}
        try:
            for done in as_completed(numbers):
                yield numbers[done], done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _refuse_other(file: ProposalFile, settings: str, records: Sequence[Record], path: Path) -> None:
    if file.method != settings or file.fingerprint != fingerprint(records):
        what = f"was made with {file.method}" if file.method != settings else "is of other images"
        raise ConfigError(
            f"{path} {what}, and this command would mix it with {settings}; give another folder, "
            f"hydra.run.dir=FOLDER, or remove that one."
        )


def _recall(data: DetectionData, split: str, stored: StoredProposals) -> dict[str, Any]:
    """Recall by IoU and number of proposals, and the mean number of proposals."""
    records = data.records(split)
    found = [stored(item) for item in records]
    counts = [len(scores) for _, scores in found]
    rows = [np.c_[boxes, scores, np.zeros(len(scores))] for boxes, scores in found]
    flat = np.concatenate([np.zeros((0, 6)), *rows]).astype(np.float64)
    images = np.repeat(np.array([r.id for r in records], np.int64), counts)
    order = np.argsort(images, kind="stable")
    recall = recall_by_iou(Found(data.ground_truth(split), flat[order], images[order]), RECALL_AT)
    by_number = {f"ar_{k}": float(recall[:, i].mean()) for i, k in enumerate(RECALL_AT)}
    by_threshold = zip(THRESHOLDS, recall, strict=True)
    by_iou = {f"{t:.2f}": dict(zip(map(str, RECALL_AT), row.tolist(), strict=True)) for t, row in by_threshold}
    return by_number | {"recall": by_iou, "per_image": float(np.mean(counts))}


def _print_recall(split: str, result: dict[str, Any]) -> None:
    table = Table(title=f"recall of the {split} split, {result['per_image']:.0f} proposals per image")
    for title in ("IoU", *(f"@{k}" for k in RECALL_AT)):
        table.add_column(title, justify="right")
    for threshold, row in result["recall"].items():
        table.add_row(threshold, *(f"{value:.3f}" for value in row.values()))
    table.add_section()
    table.add_row("AR", *(f"{result[f'ar_{k}']:.3f}" for k in RECALL_AT), style="bold")
    show(table)


def _total(pieces: list[list[Record]], numbers: list[int]) -> int:
    return sum(len(pieces[number]) for number in numbers)


def _spans(file: ProposalFile) -> Iterator[tuple[int, int]]:
    return zip(file.starts[:-1], file.starts[1:], strict=True)


def _bar() -> Progress:
    columns = (TextColumn("proposals   {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns)


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


if __name__ == "__main__":
    run_app(main, "proposals")

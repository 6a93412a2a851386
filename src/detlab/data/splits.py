"""Splits and class filters of records, and their boxes as the ground truth of metrics."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from detlab.data.audit import MANY
from detlab.data.audit import names as listed
from detlab.data.flat import LABEL, Records
from detlab.data.records import Classes, Record
from detlab.errors import DataError
from detlab.tensors.structures import GroundTruth


def of_classes(records: Records, renumber: Mapping[int, int]) -> Records:
    """All records, but only with boxes whose label is in `renumber` (old label -> new label), renumbered."""
    new = np.full(max([-1, int(records.labels.max(initial=-1)), *renumber]) + 1, -1, LABEL)
    new[list(renumber)] = list(renumber.values())
    kept = records.keep_boxes(new[records.labels] >= 0)
    return replace(kept, labels=new[kept.labels])


def ground_truth(records: Records, classes: Classes) -> GroundTruth:
    """Flat tensors of a split, for metrics."""
    ids = torch.tensor(records.ids)
    return GroundTruth(
        image_ids=ids,
        sizes=torch.tensor(records.sizes, dtype=torch.int64),
        box_image=ids.repeat_interleave(torch.tensor(records.counts)),
        boxes=torch.tensor(records.boxes),
        labels=torch.tensor(records.labels, dtype=torch.int64),
        area=torch.tensor(records.area),
        crowd=torch.tensor(records.crowd),
        difficult=torch.tensor(records.difficult),
        class_names=classes.names,
        category_ids=classes.ids,
        file_names=tuple(records.names),
    )


def renamed(
    classes: Classes, splits: Mapping[str, Records], names: Sequence[str]
) -> tuple[Classes, dict[str, Records], list[str], dict[str, int]]:
    """Classes and splits with the class numbers of a model, matched by name.

    Args:
        names: the model's classes in label order.

    Returns:
        Classes, splits, the names that the data set lacks, and the names that the model lacks with their box counts.

    Raises:
        DataError: no name in common.
    """
    places = {name: i for i, name in enumerate(classes.names)}
    common = {name: i for i, name in enumerate(names) if name in places}
    if not common:
        raise DataError(
            f"The data's classes ({listed(classes.names, MANY)}) and the model's ({listed(names, MANY)}) have no name "
            f"in common; rename them in the data set, or evaluate on another one."
        )
    boxes: Counter[str] = Counter()
    for part in {id(part): part for part in splits.values()}.values():
        counts = np.bincount(part.labels, minlength=len(classes.names)).tolist()
        boxes.update(dict(zip(classes.names, counts, strict=True)))
    left_out = {name: boxes[name] for name in classes.names if name not in common}
    renumber = {i: common[name] for i, name in enumerate(classes.names) if name in common}
    taken = set(classes.ids)
    free = (i for i in itertools.count(1) if i not in taken)
    ids = tuple(classes.ids[places[name]] if name in common else next(free) for name in names)
    chosen = {split: of_classes(part, renumber) for split, part in splits.items()}
    return Classes(tuple(names), ids), chosen, [name for name in names if name not in common], left_out


def with_shares(
    splits: dict[str, Records], *, val: float, test: float, seed: int, required: Collection[str] = ()
) -> dict[str, Records]:
    """Splits with val and test: the data set's own, else seeded shares of train, stratified by class where possible.

    Args:
        val, test: shares of the source's train split; 0 draws none.
        required: splits that must not be empty.

    Raises:
        DataError: a share is not in [0, 1), or leaves train or a required split empty.
    """
    for option, share in (("val", val), ("test", test)):
        if not 0 <= share < 1:
            raise DataError(f"data.{option}_fraction={share} is no share of train; give a number from 0 to below 1.")
    train = splits.get("train")
    if not train:
        return splits
    missing = {name: share for name, share in (("val", val), ("test", test)) if name not in splits}
    counts = {name: round(len(train) * share) for name, share in missing.items()}
    for name, count in counts.items():
        if (name in required and not count) or sum(counts.values()) >= len(train):
            given = " and ".join(f"data.{option}_fraction={share}" for option, share in missing.items())
            raise DataError(
                f"{given} of {len(train)} training images leaves {'train' if count else name} empty; the data set has "
                f"no {name} split of its own, so give {'smaller' if count else 'larger'} fractions, or more images."
            )
    drawn = {name: count for name, count in counts.items() if count}
    if not drawn:
        return splits
    parts = stratified(train, [len(train) - sum(drawn.values()), *drawn.values()], seed)
    return splits | {n: train.take(np.array(rows)) for n, rows in zip(("train", *drawn), parts, strict=True)}


def stratified(records: Sequence[Record], counts: Sequence[int], seed: int) -> list[list[int]]:
    """Divide records into parts of given sizes, so that each has about its share of every class's images; row indices.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML 2011): the rarest class first; each of its images
    goes to the part that lacks most images of that class.
    """
    rng = np.random.default_rng(seed)
    room = np.array(counts, np.int64)
    flat = Records.of(records)
    labels, starts = flat.labels.tolist(), flat.starts.tolist()
    classes = [frozenset(labels[a:b]) for a, b in itertools.pairwise(starts)]
    left = {name: {i for i, own in enumerate(classes) if name in own} for name in set().union(*classes)}
    wish = {name: len(rows) * room / room.sum() for name, rows in left.items()}
    order = rng.permutation(len(records))
    part = np.full(len(records), -1)

    def put(row: int, lack: np.ndarray) -> None:
        open_parts = np.nonzero(room > 0)[0]
        best = max(open_parts, key=lambda j: (round(float(lack[j]), 9), room[j], -j))
        part[row] = best
        room[best] -= 1
        for name in classes[row]:
            wish[name][best] -= 1
            left[name].discard(row)

    while any(left.values()):
        rarest = min((name for name in left if left[name]), key=lambda name: (len(left[name]), name))
        for row in [int(i) for i in order if i in left[rarest]]:
            put(row, wish[rarest])
    for row in order:
        if part[row] < 0:
            put(int(row), room.astype(float))
    return [np.nonzero(part == j)[0].tolist() for j in range(len(counts))]

"""Mutated annotation files: the boxes that are right, or a sentence; see `tests/data/mutations.py`.

The default run takes a few dozen cases of each format, `-m many` 3,000.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detlab.data import checks
from detlab.data.audit import AuditReport
from detlab.data.flat import Records
from detlab.data.formats import coco_rows, csv_boxes, yolo_folders
from tests.data import mutations
from tests.data.mutated import refusals, shared

FORMATS = tuple(mutations.FORMATS)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("count", "seed"), [(30, 1), pytest.param(3000, 0, marks=pytest.mark.many)])
@pytest.mark.timeout(1800)
def test_every_box_is_right_or_counted(tmp_path: Path, kind: str, count: int, seed: int) -> None:
    result = mutations.main(tmp_path, kind, count, seed)
    assert result["failed"] == []
    outcomes = result["outcomes"]
    assert sum(outcomes.values()) == count
    assert min(outcomes[name] for name in ("unchanged", "reduced", "refused")) >= count // 20
    if count >= 3000:
        own = mutations.OWN[kind]
        known = [*shared.HARMLESS, *shared.REDUCING, *own.HARMLESS, *own.REDUCING, *refusals.OF[kind]]
        assert {m.__name__ for m in known} | {"strict"} == set(result["mutations"])


def _without_borders(*args: Any, **options: Any) -> Any:
    return Records.of(args[0])


def _moved_boxes(*args: Any) -> Any:
    found = REAL_PLAIN(*args)
    return None if found is None else replace(found, box=found.box + np.array([0.01, 0, 0, 0]))


def _lost_rows(report: AuditReport, split: str, rule: str, example: str) -> None:
    if rule != "malformed box":
        REAL_ADD(report, split, rule, example)


def _moved_corners(*args: Any) -> Any:
    found = REAL_CORNERS(*args)
    return None if found is None else [found[0] + 0.01, *found[1:]]


REAL_CORNERS = csv_boxes.corners
REAL_PLAIN, REAL_ADD = coco_rows._plain, AuditReport.add


@pytest.mark.parametrize(
    ("kind", "place", "name", "fault"),
    [
        ("coco", coco_rows, "_plain", _moved_boxes),
        ("coco", AuditReport, "add", _lost_rows),
        ("voc", AuditReport, "add", _lost_rows),
        ("voc", checks, "check_boxes", _without_borders),
        ("yolo", checks, "check_boxes", _without_borders),
        ("csv", AuditReport, "add", _lost_rows),
        ("csv", csv_boxes, "corners", _moved_corners),
        ("yolo", yolo_folders, "_count_unused", _without_borders),
    ],
)
def test_silent_faults_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, place: Any, name: str, fault: Any
) -> None:
    """Readers that move boxes by a hundredth of a pixel, or lose them without a word, do not pass."""
    monkeypatch.setattr(place, name, fault)
    for number in range(60):
        root = tmp_path / str(number)
        root.mkdir()
        if mutations.judge(kind, number, 1, root).outcome == "failed":
            return
    pytest.fail("60 cases passed")


def test_messages_are_single_sentences() -> None:
    assert mutations.of_message("data.root=x is not a folder.", "not a folder") == []
    assert mutations.of_message("data.root=x is not a folder.", "no list") != []
    assert mutations.of_message("data.root=x is not a folder.", None) != []
    assert mutations.of_message("Traceback:\n  data.root=x is not a folder.", "not a folder") != []

"""Data sets with known mutations, read as `detlab data` does, and compared with what is right box by box.

    python -m tests.data.mutations OUT [format=coco] [count=3000] [seed=0]

Each case is a small data set of drawn facts, written with one to three mutations: other ways to write the same, faults
that must lose exactly these boxes under exactly these findings, and faults that must be refused in one sentence. Prints
one JSON line with the number of cases by outcome and the uses of each mutation; failed cases stay in OUT/failed.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from detlab.config.compose import compose_config, plain_config
from detlab.config.parts import build_part
from detlab.data.contents import contents
from detlab.data.datamodule import TRAINING, DetectionData
from detlab.errors import ConfigError, DataError
from tests.data.mutated import (
    coco,
    coco_mutations,
    csv_mutations,
    csv_tables,
    oracle,
    refusals,
    shared,
    voc,
    voc_mutations,
    yolo,
    yolo_mutations,
)
from tests.data.mutated.facts import Facts, draw_facts, put

FORMATS: dict[str, ModuleType] = {"coco": coco, "voc": voc, "yolo": yolo, "csv": csv_tables}
OWN = {"coco": coco_mutations, "voc": voc_mutations, "yolo": yolo_mutations, "csv": csv_mutations}
LONGEST = 1500  # characters of a message


class Case(NamedTuple):
    """One data set on disk."""

    facts: Facts
    classes: list[str]
    options: dict[str, Any]


class Verdict(NamedTuple):
    """What came of a case."""

    outcome: str  # unchanged, reduced, refused or failed
    done: list[str]  # its mutations
    reasons: list[str]  # of a failure


def make(kind: str, number: int, seed: int, root: Path) -> Case:
    """Draw a case and write it below `root`."""
    draw = random.Random(f"{kind} {seed} {number}")
    form = FORMATS[kind]
    facts = draw_facts(draw, whole=kind == "voc" and draw.random() < 0.7, difficult=0.2 if kind == "voc" else 0.0)
    form.lay_out(facts, draw)
    pool = {
        "harmless": [*shared.HARMLESS, *OWN[kind].HARMLESS],
        "reducing": [*shared.REDUCING, *OWN[kind].REDUCING],
    }
    count = draw.randint(1, 3)
    kinds = [draw.choice(("harmless", "reducing")) for _ in range(count)]
    for name in ("harmless", "reducing"):  # ways of writing first, since faults depend on them
        for mutation in draw.sample(pool[name], len(pool[name])):
            if kinds.count(name) and mutation(facts, draw):
                kinds.remove(name)
                facts.done.append(mutation.__name__)
    chance = draw.random()
    if chance < 0.1:
        refusal = draw.choice(refusals.OF[kind])
        facts.done += [refusal.__name__] if refusal(facts, draw) else []
    elif chance < 0.2:
        facts.options["on_error"] = "raise"
        facts.done.append("strict")
    files = form.write(facts, draw)
    put(root, {name: content for name, content in (files | facts.files).items() if name not in facts.removed})
    for folder in facts.folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in facts.links:
        (root / folder).rename(root / f"kept {folder}")
        (root / folder).symlink_to(f"kept {folder}")
    classes = form.classes(facts)
    if facts.options.get("on_error") == "raise" and facts.refused is None:
        counted = oracle.findings(facts, classes)
        wrong = sum(n for part in counted.values() for rule, n in part.items() if rule not in oracle.NOTES)
        facts.refused = rf"^The data has {wrong} error" if wrong else None
    return Case(facts, classes, facts.options)


def judge(kind: str, number: int, seed: int, root: Path) -> Verdict:
    """Write a case, read it, and compare."""
    case = make(kind, number, seed, root)
    facts = case.facts
    try:
        found = _read(kind, root, case)
    except (ConfigError, DataError) as error:
        reasons = of_message(str(error), facts.refused)
        return Verdict("failed" if reasons else "refused", facts.done, reasons)
    except Exception:
        return Verdict("failed", facts.done, [traceback.format_exc()])
    if facts.refused is not None:
        return Verdict("failed", facts.done, [f"not refused: {facts.refused}"])
    reasons = oracle.differences(facts, case.classes, found)
    return Verdict("failed" if reasons else "reduced" if oracle.reduced(facts) else "unchanged", facts.done, reasons)


def of_message(text: str, wanted: str | None) -> list[str]:
    """What is wrong with a refusal: not wanted (None), another one than the pattern wants, or no single sentence."""
    if wanted is None:
        return [f"refused: {text}"]
    out = [] if re.search(wanted, text) else [f"refused as {text!r}, not as {wanted!r}"]
    if "\n" in text or len(text) > LONGEST or not text.rstrip().endswith((".", "?")):
        out.append(f"is no sentence: {text!r}")
    return out


@cache
def defaults(kind: str) -> dict[str, Any]:
    """The options of `detlab data data=KIND`."""
    composed = compose_config("data", [f"data={kind}", "data.cache_dir=null", "name=x", "paths.run_dir=."])
    return plain_config(composed, ("data",))["data"]


def _read(kind: str, root: Path, case: Case) -> dict[str, Any]:
    """The contents as `detlab data json=FILE` writes them, with the flags of each box."""
    options = dict(case.options)
    place = str(root / options.pop("root", ""))
    data: DetectionData = build_part(defaults(kind) | {"root": place} | options, seed=0)
    data.required = TRAINING if case.facts.training else ()
    data.setup()
    str(data.report).encode()
    found = json.loads(json.dumps(contents(data)))
    for split, part in found["splits"].items():
        records = data.records(split) if data.has(split) else []
        part["items"] = [
            [
                item["file"],
                item["width"],
                item["height"],
                [
                    [*row, bool(crowd), bool(difficult)]
                    for row, crowd, difficult in zip(item["boxes"], r.crowd, r.difficult, strict=True)
                ],
            ]
            for item, r in zip(part["items"], records, strict=True)
        ]
    return found


def main(out: Path, kind: str = "coco", count: int = 3000, seed: int = 0, first: int = 0) -> dict[str, Any]:
    """Judge `count` cases.

    Returns:
        format, seed, count, outcomes (cases by outcome), mutations (uses by name) and failed (case numbers).
    """
    outcomes: Counter[str] = Counter({"unchanged": 0, "reduced": 0, "refused": 0, "failed": 0})
    uses: Counter[str] = Counter()
    failed = []
    out.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        with tempfile.TemporaryDirectory(dir=out) as folder:
            root = Path(folder) / "set"
            root.mkdir()
            verdict = judge(kind, number, seed, root)
            outcomes[verdict.outcome] += 1
            uses.update(set(verdict.done))
            if verdict.outcome == "failed":
                failed.append(number)
                keep = out / "failed" / f"{kind}-{seed}-{number}"
                shutil.rmtree(keep, ignore_errors=True)
                shutil.copytree(root, keep, symlinks=True)
                text = "\n".join([", ".join(verdict.done), *verdict.reasons])
                (keep / "REASONS").write_text(text, errors="backslashreplace")
                print(f"{kind} {number}: {text}", file=sys.stderr)
    return {
        "format": kind,
        "seed": seed,
        "count": count,
        "outcomes": dict(outcomes),
        "mutations": dict(sorted(uses.items())),
        "failed": failed,
    }


if __name__ == "__main__":
    words = dict(word.split("=") for word in sys.argv[2:])
    numbers = {key: int(words[key]) for key in ("count", "seed", "first") if key in words}
    result = main(Path(sys.argv[1]), words.get("format", "coco"), **numbers)
    print(json.dumps(result))
    sys.exit(1 if result["failed"] else 0)

"""Audit of a data set before training: every kind of problem has a rule, a count and names of examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from detlab.errors import DataError

EXAMPLES = 5  # names kept per rule
MANY = 100  # class names that a message lists; COCO has 80


class Rule(NamedTuple):
    """The action for one kind of problem."""

    action: str
    error: bool  # an error with data.on_error=raise


RULES: dict[str, Rule] = {
    "missing image": Rule("image dropped", True),
    "unreadable image": Rule("image dropped", True),
    "image outside the root": Rule("image dropped; data.outside_root=true reads it", True),
    "image size differs from annotation": Rule("image dropped", True),
    "duplicate image id": Rule("later image dropped", True),
    "image id of two files": Rule("images dropped; their boxes cannot be told apart", True),
    "image listed twice": Rule("later image dropped", True),
    "annotation without image": Rule("box dropped", True),
    "malformed box": Rule("box dropped", True),
    "degenerate box": Rule("box dropped", True),
    "duplicate box": Rule("later box dropped", True),
    "box outside the image": Rule("box dropped", True),
    "box across the border": Rule("box clipped", True),
    "unknown class": Rule("box dropped", True),
    "missing annotation": Rule("image dropped", True),
    "broken annotation": Rule("image dropped", True),
    "unclear flag": Rule("taken as not set", True),
    "missing label file": Rule("image kept, as one without boxes", False),
    "polygons like key points": Rule(
        "read as polygons; for key points, write kpt_shape: [COUNT, 2] into the data.yaml", False
    ),
    "label without image": Rule("not used", False),
    "image without a row": Rule("not used; data.unlisted=empty takes it as an image without boxes", False),
    "unlisted image": Rule("taken as an image without boxes (data.unlisted=empty)", False),
    "file that is no image": Rule("not used", False),
    "image at another path": Rule("found by the end of its path, or in other case", False),
    "image file in two entries": Rule("both kept, each with its own boxes", False),
    "image also in train": Rule("kept; its result says little about new images", False),
    "image also in val": Rule("kept; val chose the weights, so its result says little about new images", False),
    "text not in UTF-8": Rule("read as Windows-1252", False),
    "class without boxes": Rule("kept; data.classes leaves it out", False),
    "class that heads others": Rule("left out: no box has it, and other categories name it as theirs", False),
    "corner at 0": Rule("clipped; corners count from 1, or set data.one_based=false", False),
    "crowd box": Rule("kept; never a target, never a false positive", False),
    "image without boxes": Rule("kept (data.empty=keep)", False),
    "empty image dropped": Rule("image dropped (data.empty=drop)", False),
    "grayscale image": Rule("converted to RGB", False),
    "alpha image": Rule("laid on black, or on white where black hides it", False),
    "16-bit image": Rule("scaled to 8 bits", False),
    "float or 32-bit image": Rule("scaled to 8 bits by its own range", False),
    "image of several frames": Rule("the first is used", False),
    "EXIF-rotated image": Rule("rotated; boxes are taken in the displayed frame", False),
    "EXIF ignored": Rule("not rotated; the annotation has the raw size", False),
}

EMPTY = ("missing label file", "crowd box", "image without boxes")  # nothing is dropped, but nothing can be learned


@dataclass
class Finding:
    """Number of cases of one rule in one split, with examples."""

    split: str
    rule: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class AuditReport:
    """Findings of the audit by split and rule."""

    def __init__(self) -> None:
        self.findings: dict[tuple[str, str], Finding] = {}
        self.by_file: dict[Path, dict[str, int]] = {}  # cases by rule of each image file

    def add(self, split: str, rule: str, example: str, file: Path | None = None) -> None:
        """Count one case; `rule` must be one of RULES, `file` is the image that it belongs to, if that is known."""
        finding = self.findings.setdefault((split, rule), Finding(split, rule))
        assert rule in RULES, rule
        finding.count += 1
        if file is not None:
            of_file = self.by_file.setdefault(file, {})
            of_file[rule] = of_file.get(rule, 0) + 1
        if len(finding.examples) < EXAMPLES:
            finding.examples.append(printable(example))

    def count(self, rule: str) -> int:
        """Cases of a rule over all splits."""
        return sum(f.count for f in self.findings.values() if f.rule == rule)

    def as_rows(self) -> list[tuple[str, str, str, str, str]]:
        """(split, rule, count, action, examples), errors first."""
        ordered = sorted(self.findings.values(), key=lambda f: (not RULES[f.rule].error, f.rule, f.split))
        return [
            (
                f.split,
                f.rule,
                str(f.count),
                RULES[f.rule].action,
                ", ".join(f.examples) + (" ..." if f.count > len(f.examples) else ""),
            )
            for f in ordered
        ]

    def __str__(self) -> str:
        return "\n".join(" | ".join(row) for row in self.as_rows()) or "no dirt found"

    def counts(self, split: str) -> dict[str, int]:
        """Cases in a split by rule."""
        return {f.rule: f.count for f in self.findings.values() if f.split == split}

    def worst(self, split: str | None = None) -> str:
        """The rule that dropped most images or boxes, with its count and examples; empty if none dropped any."""
        most = self._largest_loss(split)
        if most is None:
            return ""
        return f"'{most.rule}' ({most.count} in {most.split}, such as {', '.join(most.examples[:2])})"

    def largest_loss(self, split: str) -> str:
        """End of a sentence about an empty split: the rule that dropped most, and its action; empty if none did."""
        most = self._largest_loss(split)
        if most is None:
            return ""
        return f"; the audit's largest loss is {self.worst(split)}: {RULES[most.rule].action}"

    def _largest_loss(self, split: str | None) -> Finding | None:
        lost = [f for f in self.findings.values() if "dropped" in RULES[f.rule].action and split in (None, f.split)]
        without = [f for f in self.findings.values() if f.rule in EMPTY and split in (None, f.split)]
        return max(lost or without, key=lambda f: f.count, default=None)

    def refuse(self) -> None:
        """Raise if any finding is an error (data.on_error=raise).

        Raises:
            DataError: names the worst rule, its examples and the option.
        """
        errors = [f for f in self.findings.values() if RULES[f.rule].error]
        if errors:
            worst = max(errors, key=lambda f: f.count)
            total = sum(f.count for f in errors)
            raise DataError(
                f"The data has {total} error{'s, most of them' if total > 1 else ','} '{worst.rule}' ({worst.count}, "
                f"such as {', '.join(worst.examples)}); mend the files, or set data.on_error=drop to go on without "
                f"them."
            )


def printable(text: str) -> str:
    """Text that is safe to print and write: lone surrogates and control characters become escapes."""
    if text.isprintable():
        return text
    whole = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)


def names(items: Iterable[str], most: int = EXAMPLES) -> str:
    """Up to `most` names, separated by commas."""
    listed = list(items)
    return ", ".join(listed[:most]) + (" ..." if len(listed) > most else "")

"""detlab anchors: how well a model's anchors cover a data set's boxes, and which anchors would cover them better."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import numpy as np
import torch
from rich.table import Table

from detlab.commands.app import on_plain_config, run_app
from detlab.config.compose import config_dir, make_detector
from detlab.config.rules import check
from detlab.data import DetectionData
from detlab.detectors import Detector
from detlab.errors import ConfigError
from detlab.metrics.anchor_coverage import AnchorStage, Coverage, Placement, anchor_stage, coverage, coverage_report
from detlab.metrics.anchor_fit import fit_pairs, fit_shapes
from detlab.model.anchors import AnchorGenerator, Anchors, DefaultBoxes, Shapes
from detlab.runs.checkpoints import model_without_download
from detlab.system.files import write_json
from detlab.system.printing import say, show
from detlab.tensors.structures import GroundTruth
from detlab.training.build import make_data
from detlab.training.console import say_audit

USAGE = "detlab anchors model=retinanet data=..."

MOST_POSITIVES = 100.0  # per box; with more, far-off anchors of a box fill its share of the loss
WIDTH = 130  # smallest width of the tables in characters, also without a terminal


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="anchors")
@on_plain_config("anchors")
def main(config: dict[str, Any]) -> None:
    """Match anchors with ground truth and write anchors.json and anchors.png."""
    report(config)


def report(config: dict[str, Any]) -> dict[str, Any]:
    """Coverage of a split's boxes by the composed model's anchors, with suggestions of better anchors.

    Raises:
        ConfigError: the model has no anchors, or the split no boxes.
    """
    check(config)
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    data = make_data(config)
    say_audit(data)
    stage = stage_of(config, data)
    truth = data.ground_truth(config["split"])
    crowd = truth.crowd.numpy()
    place = placement_of(data)
    covered = coverage(stage, truth, place, config["most_images"])
    if not (~crowd & (covered.iou >= 0)).any():
        raise ConfigError(f"split={config['split']} has no boxes to cover; use another split.")
    result: dict[str, Any] = {"now": coverage_report(covered, stage, crowd)}
    result["suggestions"] = suggestions(stage, truth, place, covered, config["most_images"])
    print_report(result, stage)
    out = Path(config["paths"]["run_dir"])
    write_json(out / "anchors.json", result)
    plot(result, stage, covered.of(~crowd & (covered.iou >= 0)), out / "anchors.png")
    say(f"results     {out}")
    return result


def stage_of(config: Mapping[str, Any], data: DetectionData) -> AnchorStage:
    """The anchors of the composed model, built with random weights.

    Raises:
        ConfigError: the model has no anchors.
    """
    return anchors_of(make_detector(model_without_download(config), data.num_classes))


def anchors_of(detector: Detector) -> AnchorStage:
    """A detector's anchors.

    Raises:
        ConfigError: the detector has no anchors.
    """
    stage = anchor_stage(detector)
    if stage is None:
        name = type(detector).__name__
        raise ConfigError(f"{name} has no anchors: its boxes come from data.proposals; use a model with anchors.")
    return stage


def placement_of(data: DetectionData) -> Placement:
    """Size and position of the data set's images on the canvas."""
    return Placement(data.resize.target, data.collate.divisor, data.collate.canvas)


class Suggestion(NamedTuple):
    """Anchors to try, with their command-line overrides."""

    name: str
    anchors: AnchorGenerator
    overrides: str


def suggestions(
    stage: AnchorStage, truth: GroundTruth, place: Placement, covered: Coverage, most_images: int | None
) -> list[dict[str, Any]]:
    """Anchors fitted to the boxes, with the coverage of their tiling; better ones first, then by mean IoU."""
    crowd = truth.crowd.numpy()
    now = coverage_report(covered, stage, crowd)
    highest = max(now["thresholds"])
    sides = covered.sides[~crowd & (covered.iou >= 0)]
    height, width = truth.sizes[0].tolist()
    canvas = place.canvas_of(place.target((height, width)))
    rows = []
    for suggestion in _fitted(stage, sides, canvas):
        changed = stage._replace(anchors=suggestion.anchors)
        found = coverage_report(coverage(changed, truth, place, most_images), changed, crowd)["all"]
        against = objections(now["all"], found, highest)
        rows.append(
            {"name": suggestion.name, "overrides": suggestion.overrides, "all": found, "better": not against}
            | ({"why_not": against} if against else {})
        )
    return sorted(rows, key=lambda row: (not row["better"], -row["all"]["iou"]))


def objections(now: Mapping[str, float], then: Mapping[str, float], threshold: float) -> list[str]:
    """Why anchors are no better than those that there are; empty where they are better.

    Args:
        now, then: rows of a coverage report.
        threshold: IoU from which the matcher takes an anchor as positive.
    """
    against = []
    recall = f"recall_{threshold:g}"
    if then["iou"] <= now["iou"]:
        against.append(f"the best IoU is not higher ({then['iou']:.3f}, now {now['iou']:.3f})")
    if then[recall] < now[recall]:
        against.append(
            f"fewer boxes have an anchor from IoU {threshold:g} on ({then[recall]:.1%}, now {now[recall]:.1%})"
        )
    most, least = max(MOST_POSITIVES, now["positives"]), min(1.0, now["positives"])
    if not least <= then["positives"] <= most:
        against.append(
            f"{then['positives']:.1f} positives per box (now {now['positives']:.1f}) are "
            + (f"more than {most:.0f}" if then["positives"] > most else f"fewer than {least:.1f}")
        )
    return against


def _fitted(stage: AnchorStage, sides: np.ndarray, canvas: tuple[int, int]) -> list[Suggestion]:
    """Fitted options of the model's kind of anchors: sizes and ratios, shapes, or scales; empty for other kinds."""
    anchors = stage.anchors
    if isinstance(anchors, Shapes):
        fitted, _ = fit_pairs(sides, len(anchors.shapes))
        return [_changed("k-means of shapes", anchors, shapes=[(round(w, 1), round(h, 1)) for w, h in fitted])]
    if isinstance(anchors, Anchors):
        fit = fit_shapes(sides, len(anchors.sizes), len(anchors.ratios), anchors.octaves)
        sizes, ratios = [round(s, 1) for s in fit.sizes], [round(r, 2) for r in fit.ratios]
        spaced = _spaced(sides, len(anchors.sizes))
        return [
            _changed("k-means of sizes and ratios", anchors, sizes=sizes, ratios=ratios),
            _changed("k-means of ratios", anchors, ratios=ratios),
            _changed("even sizes, k-means of ratios", anchors, sizes=spaced, ratios=ratios),
        ]
    if isinstance(anchors, DefaultBoxes):
        fit = fit_shapes(sides, len(stage.levels), 1)
        scales = [s / min(canvas) for s in fit.sizes]
        scales.append(scales[-1] * scales[-1] / scales[-2] if len(scales) > 1 else 1.5 * scales[-1])
        return [_changed("k-means of scales", anchors, scales=[round(s, 3) for s in scales])]
    return []


def _spaced(sides: np.ndarray, count: int) -> list[float]:
    """Sizes in geometric steps between the 5th and 95th percentile of the boxes, in the order of the strides."""
    extent = np.sqrt(sides.prod(1))
    low, high = np.quantile(extent, [0.05, 0.95])
    return [round(float(s), 1) for s in np.geomspace(low, max(high, low * 1.01), count)]


def _changed(name: str, anchors: AnchorGenerator, **values: Sequence[float | tuple[float, float]]) -> Suggestion:
    changed = copy.deepcopy(anchors)
    for key, value in values.items():
        setattr(changed, key, value)
    shown = {key: _listed(value) for key, value in values.items()}
    return Suggestion(name, changed, " ".join(f"'model.anchors.{key}={text}'" for key, text in shown.items()))


def _listed(value: Any) -> str:
    """A number, or nested lists of numbers, in command-line syntax."""
    return f"{value:g}" if isinstance(value, float) else "[" + ",".join(map(_listed, value)) + "]"


def print_report(result: Mapping[str, Any], stage: AnchorStage) -> None:
    """Print the tables."""
    now = result["now"]
    recalls = [f"recall_{t:g}" for t in now["thresholds"]]
    titles = ["boxes", "best IoU", "lowest tenth", *(f"IoU from {t:g}" for t in now["thresholds"])]
    titles += ["positives per box", "no positive"]
    keys = ["boxes", "iou", "iou_lowest_tenth", *recalls, "positives", "without_positive"]
    table = Table("", *titles, title=f"coverage by {sum(stage.anchors.num_anchors(stage.levels))} anchors a location")
    table.add_row("all", *_cells(now["all"], keys), end_section=True)
    for row in now["by_size"]:
        table.add_row(f"{row['from']:g} to {row['to'] or '..'} px", *_cells(row, keys))
    table.add_section()
    for row in now["by_level"]:
        table.add_row(f"best on {row['level']}, stride {row['stride']}", *_cells(row, keys))
    show(table, WIDTH)
    shares = ", ".join(f"{share:.3%} {name}" for name, share in now["anchors"].items())
    say(f"of all anchors {shares}")
    if result["suggestions"]:
        table = Table("anchors", *titles, title="suggestions, measured where they would lie")
        table.add_row("as they are", *_cells(now["all"], keys))
        for row in result["suggestions"]:
            table.add_row(row["name"], *_cells(row["all"], keys))
        show(table, WIDTH)
        for row in result["suggestions"]:
            say(f"{row['name']} ({'better' if row['better'] else 'no better: ' + '; '.join(row['why_not'])}):")
            say(f"  {row['overrides']}")


def plot(result: Mapping[str, Any], stage: AnchorStage, covered: Coverage, path: Path) -> None:
    """Write anchors.png: best IoU, coverage by size, and the shapes of boxes and anchors."""
    from detlab.drawing.plots import anchor_coverage

    side = max(level.stride for level in stage.levels)
    boxes, counts = stage.anchors.per_level(stage.levels, (side, side)), stage.anchors.num_anchors(stage.levels)
    corners = [level[: max(1, n)] for level, n in zip(boxes, counts, strict=True)]
    shapes = torch.cat([c[:, 2:] - c[:, :2] for c in corners]).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    anchor_coverage(result["now"], covered.sides, shapes).savefig(path, dpi=100)


def _cells(row: Mapping[str, float], keys: list[str]) -> list[str]:
    if not row["boxes"]:
        return ["0", *[""] * (len(keys) - 1)]
    return [
        str(row["boxes"]),
        *(f"{row[key]:.3f}" for key in keys[1:-2]),
        f"{row[keys[-2]]:.1f}",
        f"{row[keys[-1]]:.1%}",
    ]


if __name__ == "__main__":
    run_app(main, "anchors")

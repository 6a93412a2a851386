"""The benchmark's targets on small sizes, and without anything but torch, torchvision and lightning."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detlab.benchmark import data, loader
from detlab.benchmark.inference import agreement
from detlab.benchmark.measuring import interleave, peak_bytes, ratio
from detlab.benchmark.options import OptionError
from detlab.benchmark.pairs import copy_weights, make_images, make_pair, set_selection, spread_scores
from detlab.benchmark.scaling import growth

WITHOUT = ["hydra", "omegaconf", "torchmetrics", "faster_coco_eval", "rich", "wandb", "tensorboard", "matplotlib"]
CPU = torch.device("cpu")


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `detlab benchmark` where the rest of the dependencies cannot be imported."""
    block = f"import sys, runpy; sys.modules.update(dict.fromkeys({WITHOUT!r}))"
    run = "runpy.run_module('detlab.commands.benchmark', run_name='__main__')"
    code = f"{block}; sys.argv[1:] = {list(arguments)!r}; {run}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=500)


def test_a_step_with_torch_torchvision_and_lightning_alone(tmp_path: Path) -> None:
    into = tmp_path / "step.json"
    sizes = ["side=64", "batch=1", "boxes=2", "classes=4", "repeats=1", "threads=1", "clock=cpu"]
    found = bare("target=step", "model=retinanet_r18", *sizes, f"json={into}")
    assert found.returncode == 0, found.stderr
    name, value = found.stdout.strip().splitlines()[-1].split()
    assert name == "ratio"
    assert 0 < float(value) < 10
    written = json.loads(into.read_text())
    assert written["target"] == "step"
    assert 0 < written["profile"]["ours"][0] < 1
    assert written["times"]["ours"]["median_ms"] > 0


def test_mistakes_are_one_sentence() -> None:
    found = bare("target=step", "model=yolo")
    assert found.returncode == 2
    assert "model=yolo is not known; use one of faster_rcnn_r18" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("model", ["faster_rcnn_r18", "retinanet_r18"])
def test_both_sides_detect_the_same(model: str) -> None:
    pair = make_pair(model, classes=6, side=128, device=CPU, norm="frozen_bn")
    spread_scores(pair.theirs)
    pair = copy_weights(pair, model, 6)
    set_selection(pair, {"score_threshold": 0.1})
    pair.ours.eval()
    pair.theirs.eval()
    found = agreement(pair, make_images(2, 128, 1, 6, CPU))
    assert found["equal"]
    assert found["found"] >= 10


def test_both_pipelines_load_the_same_images(tmp_path: Path) -> None:
    records = loader.write_images(tmp_path, 2, (48, 64), 3)
    batch = loader.our_pipeline(records, 48, 64, False)()
    images, targets = loader.their_pipeline(records, 48, 64)()
    assert batch.images.shape == images.tensors.shape == (2, 3, 64, 64)
    assert batch.images.dtype == torch.uint8
    assert [len(t["boxes"]) for t in targets] == batch.targets.real.sum(1).tolist() == [3, 3]


@pytest.mark.slow
def test_a_data_set_is_opened_read_and_watched(capsys: pytest.CaptureFixture[str]) -> None:
    sizes: dict[str, int] = {"images": 40, "boxes": 3, "points": 6, "classes": 5, "width": 64, "height": 48, "size": 64}
    found = data.run(**sizes, ssd_size=32, files=2, batch=2, repeats=1, workers=1)
    first, second = found["starts"]
    assert min(start["cpu_s"] for start in found["starts"]) > 0
    assert first["workers"] == []
    assert len(second["workers"]) == 1
    assert min(found["milliseconds"]["read, resize"].values()) > 0
    assert "second start" in capsys.readouterr().out


def test_sides_are_called_in_turn() -> None:
    calls = []
    times = interleave(
        {"ours": lambda: calls.append("a"), "theirs": lambda: calls.append("b")}, repeats=3, warm_up=1, device=CPU
    )
    assert calls == ["a", "b"] * 4
    assert [len(v) for v in times.values()] == [3, 3]


def test_the_ratio_is_the_median_of_neighbours() -> None:
    assert ratio({"ours": [1.0, 4.0, 9.0], "theirs": [2.0, 2.0, 3.0]}) == (2.0, 0.5, 3.0)


def test_peak_memory_counts_what_is_held_at_once() -> None:
    def call() -> None:
        for _ in range(3):
            torch.ones(2**18)  # 1 MB, freed at once
        kept = [torch.ones(2**18), torch.ones(2**18)]
        del kept

    assert 2 * 2**20 <= peak_bytes(call, CPU) < 2.1 * 2**20


def test_growth_over_the_range_of_a_factor() -> None:
    sides = [("boxes", 1, 10.0, 20.0, 5.0, 5.0), ("boxes", 9, 13.0, 26.0, 7.0, 5.0)]
    rows = [
        dict(zip(("factor", "value", "ours_ms", "theirs_ms", "ours_mb", "theirs_mb"), s, strict=True)) for s in sides
    ]
    assert growth(rows) == {"boxes": {"ms": 0.5, "mb": None}}


def test_ssd300_takes_one_canvas() -> None:
    with pytest.raises(OptionError, match="use side=300"):
        make_pair("ssd300", classes=4, side=320, device=CPU)

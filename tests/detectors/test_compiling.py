"""Compiled losses equal the eager ones, and batches of one canvas do not compile again."""

from __future__ import annotations

import pytest
import torch

from detlab.config.compose import build_detector
from detlab.detectors.compiling import Compiled, graphs
from detlab.model.cell_matchers import CellMatcher
from detlab.tensors.structures import Batch
from tests.batches import make_batch

SMALL = {
    "retinanet": ["model.neck.width=32", "model.head.width=32", "model.head.depth=1"],
    "faster_rcnn": ["model.neck.width=32", "model.head.width=32", "model.sampler.size=16"],
    "yolo": ["model.neck.widths=[16, 16, 16]", "model.neck.norm=gn", "model.head.norm=gn"],
}


def batches(count: int) -> list[Batch]:
    """Batches of one canvas with 1, 2, 3, ... boxes an image."""
    boxes = [[4.0 * i, 4, 24 + 4 * i, 30] for i in range(count)]
    return [make_batch([boxes[:n], boxes[:1]], [[i % 3 for i in range(n)], [0]], seed=n) for n in range(1, count + 1)]


@pytest.mark.parametrize(
    ("family", "backend"),
    [
        ("retinanet", "aot_eager"),
        ("faster_rcnn", "aot_eager"),
        ("yolo", "aot_eager"),
        pytest.param("retinanet", "inductor", marks=pytest.mark.many),
        pytest.param("faster_rcnn", "inductor", marks=pytest.mark.many),
        pytest.param("yolo", "inductor", marks=pytest.mark.many),
    ],
)
def test_batches_of_one_canvas_compile_once(family: str, backend: str) -> None:
    torch._dynamo.reset()
    choices = [f"model={family}", *SMALL[family], "model.backbone.weights=null", "model.backbone.norm=gn"]
    detector = build_detector(choices, num_classes=3).train()
    given = batches(5)
    expected = [detector.loss(batch) for batch in given]
    compiled = Compiled(detector, backend)
    before, counts = graphs(), []
    for batch, wanted in zip(given, expected, strict=True):
        found = compiled.loss(batch)
        torch.stack(list(found.values())).sum().backward()
        counts.append(graphs() - before)
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    assert counts[0] > 0
    assert len(set(counts[2:])) == 1, counts  # a second number of boxes makes that dimension dynamic; then all is made


@pytest.mark.slow
def test_another_number_of_boxes_does_not_compile_the_matcher_of_cells_again() -> None:
    torch._dynamo.reset()
    references = torch.tensor([[0.0, 0, 32, 32, 0, 0, 32, 32], [32, 0, 64, 32, 32, 0, 64, 32]])[None]
    matcher = CellMatcher()
    compiled = torch.compile(matcher, backend="eager", fullgraph=True)
    before, counts = graphs(), []
    for batch in batches(4):
        found, wanted = compiled(references, batch.truth), matcher(references, batch.truth)
        counts.append(graphs() - before)
        assert torch.equal(found.state, wanted.state)
        assert torch.equal(found.index, wanted.index)
    assert counts == [1, 2, 2, 2]

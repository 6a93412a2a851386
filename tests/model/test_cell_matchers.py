"""YOLO's assignment: cells, shapes, conflicts, crowds, and the responsible prediction."""

import pytest
import torch

from detlab.model.anchors import CanvasBoxes, Shapes
from detlab.model.cell_matchers import CellMatcher, ResponsibleMatcher, best_overlap
from detlab.model.matchers import IGNORED, NEGATIVE, POSITIVE
from detlab.tensors.structures import Level, Targets
from tests.batches import make_batch

CPU = torch.device("cpu")
LEVELS = [Level("P4", 1, 16), Level("P5", 1, 32)]
SHAPES = Shapes(shapes=[[20, 20], [60, 60], [10, 30], [30, 10]])  # by area: 10x30, 30x10, then 20x20, 60x60
FINE = 4 * 4 * 2  # rows of P4 on a canvas of 64 px


def targets(*boxes: list[float], crowd: int | None = None) -> Targets:
    made = make_batch([list(boxes)], [list(range(len(boxes)))]).targets
    if crowd is not None:
        marks = made.crowd.clone()
        marks[0, crowd] = True
        made = made._replace(crowd=marks)
    return made


def test_every_box_has_the_best_shape_of_all_levels_in_its_cell() -> None:
    references = SHAPES.with_cells(LEVELS, (64, 64), CPU)
    assert references.shape == (1, FINE + 2 * 2 * 2, 8)
    found = CellMatcher()(references, targets([2, 20, 34, 30], [30, 30, 60, 60]))
    rows = (found.state[0] == POSITIVE).nonzero()[:, 0].tolist()
    # 32x10 at (18, 25): 30x10, second of P4, row 1, column 1. 30x30 at (45, 45): 20x20, first of P5, row 1, column 1.
    assert rows == [(1 * 4 + 1) * 2 + 1, FINE + (1 * 2 + 1) * 2]
    assert found.index[0, rows].tolist() == [0, 1]
    assert found.rows[0].tolist() == rows
    torch.testing.assert_close(found.overlap[0, rows], torch.tensor([300 / 320, 400 / 900]), atol=1e-4, rtol=0)
    assert (found.state[0] == NEGATIVE).sum() == references.shape[1] - 2


@pytest.mark.parametrize("matcher", [CellMatcher(), ResponsibleMatcher()])
def test_without_an_anchor_no_box_takes_one(matcher: CellMatcher) -> None:
    found = matcher(torch.zeros(1, 0, 8), targets([2, 20, 34, 30]), torch.zeros(1, 0, 4))
    assert found.state.shape == (1, 0)
    assert found.rows.tolist() == [[-1]]
    assert best_overlap(torch.zeros(1, 0, 4), targets([2, 20, 34, 30])).shape == (1, 0)


def test_a_centre_on_the_border_belongs_to_the_later_cell() -> None:
    references = SHAPES.with_cells(LEVELS, (64, 64), CPU)
    found = CellMatcher()(references, targets([27, 17, 37, 47]))  # 10x30 at (32, 32)
    assert found.rows.tolist() == [[(2 * 4 + 2) * 2]]


def test_the_later_of_two_boxes_keeps_a_shared_anchor() -> None:
    references = SHAPES.with_cells(LEVELS, (64, 64), CPU)
    found = CellMatcher()(references, targets([3, 0, 13, 30], [4, 0, 14, 29]))
    assert found.rows[0, 0] == found.rows[0, 1]
    assert (found.state == POSITIVE).sum() == 1
    assert found.index[0, found.rows[0, 0]] == 1


def test_crowds_match_nothing_and_are_no_background() -> None:
    references = SHAPES.with_cells(LEVELS, (64, 64), CPU)
    found = CellMatcher()(references, targets([0, 0, 64, 64], crowd=0))
    assert not (found.state == POSITIVE).any()
    assert (found.state == IGNORED).any()
    assert not (CellMatcher(crowd_overlap=None)(references, targets([0, 0, 64, 64], crowd=0)).state == IGNORED).any()


def test_a_batch_without_boxes_is_all_negative() -> None:
    references = SHAPES.with_cells(LEVELS, (64, 64), CPU)
    for matcher in (CellMatcher(), ResponsibleMatcher()):
        found = matcher(references, make_batch([[], []], [[], []]).targets, torch.zeros(2, references.shape[1], 4))
        assert found.state.shape == (2, references.shape[1])
        assert (found.state == NEGATIVE).all()
    assert (best_overlap(torch.zeros(2, 5, 4), make_batch([[], []], [[], []]).targets) == 0).all()


def test_parts_of_a_large_batch_are_matched_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    references = SHAPES.with_cells(LEVELS, (64, 64), CPU)
    given = make_batch([[[2, 20, 34, 30]], [[30, 30, 60, 60], [1, 1, 20, 20]], []], [[0], [1, 2], []]).targets
    predicted = torch.rand(3, references.shape[1], 4) * 64
    whole, best = CellMatcher()(references, given), best_overlap(predicted, given)
    monkeypatch.setattr("detlab.model.matchers.LARGEST_MATRIX", 1)
    for one, other in zip(CellMatcher()(references, given), whole, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(best_overlap(predicted, given), best)


def test_the_best_prediction_of_a_cell_is_responsible() -> None:
    """Canvas 64, one map of stride 32, two boxes a cell; the truth in the cell (0, 1)."""
    references = CanvasBoxes(boxes=2).with_cells([Level("G6", 1, 32)], (64, 64), CPU)
    truth = targets([40, 8, 56, 24])
    nowhere = torch.tensor([[0.0, 50, 10, 60]]).expand(8, 4).clone()
    better = nowhere.clone()
    better[3] = torch.tensor([42.0, 8, 56, 24])
    better[5] = torch.tensor([40.0, 8, 56, 24])  # a perfect one, of another cell
    matcher = ResponsibleMatcher()
    assert matcher(references, truth, better[None]).rows.tolist() == [[3]]
    better[2] = torch.tensor([41.0, 8, 56, 24])
    assert matcher(references, truth, better[None]).rows.tolist() == [[2]]
    near = nowhere.clone()
    near[3] = torch.tensor([20.0, 10, 36, 26])  # no overlap, but not so far off
    assert matcher(references, truth, near[None]).rows.tolist() == [[3]]


def test_a_cell_has_one_object() -> None:
    references = CanvasBoxes(boxes=2).with_cells([Level("G6", 1, 32)], (64, 64), CPU)
    predicted = torch.zeros(1, 8, 4)
    predicted[0, 0], predicted[0, 1] = torch.tensor([2.0, 2, 20, 20]), torch.tensor([4.0, 4, 30, 30])
    found = ResponsibleMatcher()(references, targets([2, 2, 20, 20], [4, 4, 30, 30]), predicted)
    assert found.rows.tolist() == [
        [-1, 1]
    ]  # each has a prediction of its own that fits, but the later box has the cell
    assert (found.state == POSITIVE).sum() == 1


def test_shapes_are_dealt_by_area_and_doubled_where_they_do_not_divide() -> None:
    assert SHAPES.dealt(2) == [[(10, 30), (30, 10)], [(20, 20), (60, 60)]]
    assert SHAPES.dealt(3) == [[(10, 30), (30, 10)], [(20, 20), (60, 60)], [(120, 120), (240, 240)]]
    with pytest.raises(ValueError, match="pairs of positive sides"):
        Shapes(shapes=[[1, 0]])
    with pytest.raises(ValueError, match="boxes=0 must be at least 1"):
        CanvasBoxes(boxes=0)

"""YOLO's coders: published places, round trips, borders."""

import torch

from detlab.model.anchors import CanvasBoxes, Shapes
from detlab.model.coders import MAX_LOG_RATIO, BoxCoder, CellCoder, DirectCoder
from detlab.tensors.structures import Level

CPU = torch.device("cpu")


def test_zero_outputs_are_the_anchor_in_the_middle_of_its_cell() -> None:
    """Anchor 116 x 90 at stride 32, cell (6, 6): centre (208, 208)."""
    references = Shapes(shapes=[[116, 90]]).with_cells([Level("P5", 1, 32)], (416, 416), CPU)[0, 6 * 13 + 6]
    found = DirectCoder().decode(references, torch.zeros(4))
    torch.testing.assert_close(found, torch.tensor([150.0, 163.0, 266.0, 253.0]))
    torch.testing.assert_close(BoxCoder().decode(references, torch.zeros(4)), found)  # reads the anchor alone


def test_what_is_encoded_is_decoded() -> None:
    references = Shapes(shapes=[[40, 30]]).with_cells([Level("P5", 1, 32)], (64, 96), CPU)
    boxes = torch.tensor([[5.0, 7, 41, 19]]).expand(references.shape[1], 4) + references[0, :, 4:6].repeat(1, 2)
    wanted = DirectCoder().encode(references, boxes)
    own = torch.cat([torch.tensor([23 / 32, 13 / 32]), torch.tensor([36 / 40, 12 / 30]).log()])
    torch.testing.assert_close(wanted[0, 0], own)
    outputs = torch.cat([wanted[..., :2].logit(), wanted[..., 2:]], dim=-1)
    torch.testing.assert_close(DirectCoder().offsets(outputs), wanted)
    torch.testing.assert_close(DirectCoder().decode(references, outputs), boxes[None], atol=1e-4, rtol=0)


def test_a_centre_on_the_border_is_finite_and_sides_are_bounded() -> None:
    references = Shapes(shapes=[[40, 30]]).with_cells([Level("P5", 1, 32)], (64, 64), CPU)
    assert DirectCoder().encode(references[:, :1], torch.tensor([[-8.0, -8, 8, 8]])).isfinite().all()
    huge = torch.tensor([0.0, 0, 100, 100])
    bounded = DirectCoder().decode(references[0, 0], huge)
    torch.testing.assert_close(bounded[2] - bounded[0], torch.tensor(MAX_LOG_RATIO).exp() * 40)
    assert DirectCoder(clip=None).decode(references[0, 0], huge).isinf().any()


def test_yolov1s_boxes_are_roots_of_shares_of_the_canvas() -> None:
    """448 px, 7 x 7 cells of 64 px; a box 112 wide and 28 high in the middle of cell (3, 2)."""
    references = CanvasBoxes(boxes=2).with_cells([Level("G6", 1, 64)], (448, 448), CPU)[0, (2 * 7 + 3) * 2]
    box = torch.tensor([224 - 56.0, 160 - 14, 224 + 56, 160 + 14])
    outputs = CellCoder().encode(references, box)
    torch.testing.assert_close(outputs, torch.tensor([0.5, 0.5, 0.5, 0.25]))
    torch.testing.assert_close(CellCoder().decode(references, outputs), box)
    torch.testing.assert_close(CellCoder().decode(references, outputs * torch.tensor([1, 1, -1, -1])), box)


def test_cells_cover_the_canvas() -> None:
    """Each level of any canvas is cut into cells without gaps, also behind unpadded convs."""
    for level in (Level("P4", 1, 16), Level("x", 1, 64, shrink=2)):
        cells = Shapes(shapes=[[9, 9]]).with_cells([level], (300, 450), CPU)[0, :, 4:]
        rows, columns = level.size((300, 450))
        grid = cells.view(rows, columns, 4)
        assert grid[0, 0, :2].tolist() == [0, 0]
        assert torch.equal(grid[:, 1:, 0], grid[:, :-1, 2])
        assert torch.equal(grid[1:, :, 1], grid[:-1, :, 3])
        assert grid[-1, -1, 2] >= 450
        assert grid[-1, -1, 3] >= 300

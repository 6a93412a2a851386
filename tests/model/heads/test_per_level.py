"""The per-level head: unequal anchors, order of rows, parameters, priors."""

import pytest
import torch

from detlab.model.heads import PerLevelHead
from detlab.model.losses import BCELoss, CrossEntropyLoss, FocalLoss
from detlab.tensors.structures import Level

LEVELS = [Level("A", 8, 8), Level("B", 16, 16)]


def test_parameters_of_ssd300s_head() -> None:
    channels = (512, 1024, 512, 256, 256, 256)
    levels = [Level(f"L{i}", c, 8) for i, c in enumerate(channels)]
    with torch.device("meta"):
        head = PerLevelHead(levels=levels, num_anchors=[4, 6, 6, 6, 4, 4], cls_loss=CrossEntropyLoss(), num_classes=20)
    assert sum(p.numel() for p in head.parameters()) == 3_341_550


def test_rows_are_in_the_order_of_anchors_where_levels_differ() -> None:
    head = PerLevelHead(levels=LEVELS, num_anchors=[2, 1], cls_loss=FocalLoss(), num_classes=3, kernel=1)
    for conv in head.cls.values():
        torch.nn.init.zeros_(conv.weight)
    head.cls["A"].weight.data[:, 0] = 1
    head.cls["A"].bias.data = torch.arange(6.0) * 100
    head.cls["B"].bias.data = torch.tensor([7.0, 8, 9])
    a = torch.zeros(1, 8, 2, 3)
    a[0, 0] = torch.arange(6.0).view(2, 3)
    logits, deltas, _ = head({"A": a, "B": torch.zeros(1, 16, 1, 1)})
    assert logits.shape == (1, 2 * 6 + 1, 3)
    assert deltas.shape == (1, 13, 4)
    assert logits[0, 2 * 4].tolist() == [4, 104, 204]  # row 1, column 1, first anchor
    assert logits[0, 2 * 4 + 1].tolist() == [304, 404, 504]
    assert logits[0, -1].tolist() == [7, 8, 9]


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), BCELoss(), FocalLoss()])
def test_every_loss_has_its_prior(loss: torch.nn.Module) -> None:
    head = PerLevelHead(levels=LEVELS, num_anchors=[2, 1], cls_loss=loss, num_classes=3, prior=0.01)
    zeros = {v.name: torch.zeros(1, v.channels, 1, 1) for v in LEVELS}
    scores = loss.scores(head(zeros).logits)
    total = scores.sum(-1) if isinstance(loss, CrossEntropyLoss) else scores
    torch.testing.assert_close(total, torch.full_like(total, 0.01))


def test_filters_and_rows_of_fc7_on_300() -> None:
    """Six boxes a cell and 20 classes: 24 and 126 filters; (32, 24, 19, 19) -> (32, 19, 19, 24) -> (32, 8664)."""
    level = Level("fc7", 8, 16)
    head = PerLevelHead(levels=[level], num_anchors=[6], cls_loss=CrossEntropyLoss(), num_classes=20)
    assert (head.box["fc7"].out_channels, head.cls["fc7"].out_channels) == (24, 126)
    x = torch.randn(32, 8, 19, 19)
    offsets = head.box["fc7"](x)
    assert offsets.shape == (32, 24, 19, 19)
    found = head({"fc7": x})
    assert found.deltas.shape == (32, 19 * 19 * 6, 4)
    assert torch.equal(found.deltas.flatten(1), offsets.permute(0, 2, 3, 1).reshape(32, 8664))
    assert found.logits.shape == (32, 19 * 19 * 6, 21)

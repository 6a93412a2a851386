"""The transfer connection block: sizes, its path from coarse to fine by hand, parameters."""

import pytest
import torch

from detlab.model.necks import TransferConnection
from detlab.tensors.structures import Level

LEVELS = (Level("C3", 512, 8), Level("C4", 512, 16), Level("fc7", 1024, 32), Level("extra1", 512, 64))


def test_published_parameters() -> None:
    with torch.device("meta"):
        block = TransferConnection(levels=LEVELS)
    convs = [p for part in (block.enter, block.leave) for p in part.parameters()]
    assert sum(p.numel() for p in convs) == 10_619_904
    assert sum(p.numel() for p in block.up.parameters()) == 787_200


@pytest.mark.parametrize("canvas", [(320, 320), (300, 200), (97, 64)])
def test_every_map_has_its_levels_size(canvas: tuple[int, int]) -> None:
    levels = [v._replace(channels=4) for v in LEVELS] + [Level("extra2", 4, 64, 2), Level("extra3", 4, 64, 4)]
    block = TransferConnection(levels=levels, width=8)
    out = block({v.name: torch.randn(1, 4, *v.size(canvas)) for v in levels})
    assert list(out) == [v.name for v in block.levels] == [f"tcb_{v.name}" for v in levels]
    for level in block.levels:
        assert out[level.name].shape == (1, 8, *level.size(canvas)), level.name


def test_coarse_results_are_added_to_finer_maps_by_hand() -> None:
    """Identity convs and a deconv of ones: each cell of the coarse map reaches its four cells of the fine one."""
    block = TransferConnection(levels=[Level("A", 1, 8), Level("B", 1, 16)], width=1)
    for conv in [m for m in block.modules() if isinstance(m, torch.nn.Conv2d)]:
        torch.nn.init.zeros_(conv.weight)
        conv.weight.data[0, 0, 1, 1] = 1
    torch.nn.init.ones_(block.up["A"].weight)
    out = block({"A": torch.ones(1, 1, 3, 3), "B": torch.tensor([[[[1.0, 2], [-3, 4]]]])})
    assert out["tcb_B"][0, 0].tolist() == [[1, 2], [0, 4]]  # ReLU
    assert out["tcb_A"][0, 0].tolist() == [[2, 2, 3], [2, 2, 3], [1, 1, 5]]

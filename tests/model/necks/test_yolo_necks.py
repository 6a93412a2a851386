"""YOLO's necks: darknet's reorg, channels and sizes on any backbone, odd maps."""

import pytest
import torch

from detlab.model.necks import YOLOFPN, Passthrough, Reorg, YOLOGrid
from detlab.tensors.structures import Level

LEVELS = [Level("C3", 6, 8), Level("C4", 8, 16), Level("C5", 10, 32)]


def maps(height: int, width: int) -> dict[str, torch.Tensor]:
    return {v.name: torch.randn(2, v.channels, *v.size((height, width))) for v in LEVELS}


def reorg_of_darknet(x: torch.Tensor) -> torch.Tensor:
    """The loops of darknet's reorg_cpu with stride 2 and forward = 0, called with the input's sides as it is."""
    b, c, h, w = x.shape
    flat, out = x.flatten().tolist(), [0.0] * x.numel()
    out_c = c // 4
    for image in range(b):
        for k in range(c):
            for j in range(h):
                for i in range(w):
                    source = i + w * (j + h * (k + c * image))
                    c2, offset = k % out_c, k // out_c
                    w2, h2 = i * 2 + offset % 2, j * 2 + offset // 2
                    out[source] = flat[w2 + w * 2 * (h2 + h * 2 * (c2 + out_c * image))]
    return torch.tensor(out).view(b, 4 * c, h // 2, w // 2)


def test_reorg_is_darknets_bit_for_bit() -> None:
    x = torch.randn(2, 8, 6, 10)
    wanted = reorg_of_darknet(x)
    assert torch.equal(Reorg("darknet")(x), wanted)
    folded = Reorg("space_to_depth")(x)
    assert folded.shape == wanted.shape
    assert not torch.equal(folded, wanted)
    squares = folded.view(2, 4, 8, 3, 5)[0, :, 0, 0, 0]  # the four places of one square, of one channel
    assert sorted(squares.tolist()) == sorted(x[0, 0, :2, :2].flatten().tolist())


def test_reorg_fills_odd_sides_with_zeros() -> None:
    x = torch.ones(1, 4, 3, 5)
    out = Reorg("space_to_depth")(x)
    assert out.shape == (1, 16, 2, 3)
    assert out.sum() == x.sum()


@pytest.mark.parametrize("canvas", [(64, 64), (97, 130), (32, 32)])
def test_maps_have_their_levels_size(canvas: tuple[int, int]) -> None:
    for neck in (
        YOLOFPN(levels=LEVELS, widths=(4, 6, 8)),
        Passthrough(levels=LEVELS, squeeze=4, width=12),
        Passthrough(levels=LEVELS, squeeze=None, width=12, reorg="space_to_depth"),
        Passthrough(levels=LEVELS, squeeze=0, width=12, convs=0),
        YOLOGrid(levels=LEVELS, width=8),
    ):
        given = maps(*canvas)
        out = neck.eval()({name: given[name] for name in neck.reads})
        assert list(out) == [v.name for v in neck.levels]
        for level in neck.levels:
            assert out[level.name].shape == (2, level.channels, *level.size(canvas)), level


def test_the_pyramid_concatenates_the_upsampled_map_first() -> None:
    neck = YOLOFPN(levels=LEVELS, widths=(4, 6, 8), norm="none")
    given = maps(64, 64)
    finest = neck(given)["P3"]
    weight = neck.convs["P3"][0][0].weight
    assert weight.shape[1] == 4 + 6
    with torch.no_grad():
        weight[:, :4] = 0  # nothing of the coarser maps is left
    alone = neck(given)["P3"]
    assert not torch.equal(alone, finest)
    torch.testing.assert_close(neck(given | {"C5": given["C5"] + 1, "C4": given["C4"] + 1})["P3"], alone)


def test_what_is_off_is_not_built() -> None:
    assert Passthrough(levels=LEVELS, squeeze=0).reads == ("C5",)
    with pytest.raises(ValueError, match="squeeze null or a multiple of 4"):
        Passthrough(levels=LEVELS, squeeze=6)
    with pytest.raises(ValueError, match="model.neck.reorg=torch is not known; use one of darknet, space_to_depth"):
        Passthrough(levels=LEVELS, reorg="torch")
    with pytest.raises(ValueError, match="needs three numbers"):
        YOLOFPN(levels=LEVELS, widths=(1, 2))

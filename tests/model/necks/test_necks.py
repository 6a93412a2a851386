"""Necks: shapes, switches, parameters."""

import pytest
import torch

from detlab.model.necks import FPN, SPP, Hierarchy, SingleMap, SPPBlock
from detlab.tensors.structures import Level

LEVELS = tuple(Level(f"C{i}", 64 * 2 ** (i - 2), 2**i) for i in range(2, 6))
RESNET50 = tuple(Level(f"C{i}", 256 * 2 ** (i - 2), 2**i) for i in range(2, 6))


def maps(canvas: tuple[int, int], levels: tuple[Level, ...] = LEVELS) -> dict[str, torch.Tensor]:
    return {v.name: torch.randn(1, v.channels, *v.size(canvas)) for v in levels}


@pytest.mark.parametrize("canvas", [(128, 192), (100, 133), (97, 65)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"finest": 2, "extra": "pool"},
        {"extra": "conv_p"},
        {"coarsest": 4, "extra": "none"},
        {"spp_kernels": [3, 5]},
    ],
)
def test_every_map_has_its_levels_size(canvas: tuple[int, int], options: dict) -> None:
    neck = FPN(levels=LEVELS, width=32, **options)
    out = neck({k: v for k, v in maps(canvas).items() if k in neck.reads})
    assert list(out) == [level.name for level in neck.levels]
    for level in neck.levels:
        assert out[level.name].shape == (1, 32, *level.size(canvas)), level.name


def test_names_and_strides() -> None:
    assert [(v.name, v.stride) for v in FPN(levels=LEVELS).levels] == [(f"P{i}", 2**i) for i in range(3, 8)]
    p2 = FPN(levels=LEVELS, finest=2, extra="pool")
    assert [v.name for v in p2.levels] == ["P2", "P3", "P4", "P5", "P6"]
    assert [v.name for v in p2.roi_levels()] == ["P2", "P3", "P4", "P5"]
    small = FPN(levels=LEVELS, finest=2, coarsest=4, extra="none")
    assert small.reads == ("C2", "C3", "C4")


def test_parameters_of_fpn_on_resnet50() -> None:
    neck = FPN(levels=RESNET50, finest=2, extra="pool")
    assert sum(p.numel() for p in neck.lateral.parameters()) == 984_064
    assert sum(p.numel() for p in neck.output.parameters()) == 2_360_320


def test_top_down_by_hand() -> None:
    """Identity convs: P4 is C4, P3 is C3 plus C4 upsampled to C3's exact size."""
    levels = (Level("C3", 1, 8), Level("C4", 1, 16))
    neck = FPN(levels=levels, finest=3, coarsest=4, width=1, extra="none")
    for conv in neck.lateral.values():
        torch.nn.init.ones_(conv.weight)
    for conv in neck.output.values():
        torch.nn.init.zeros_(conv.weight)
        conv.weight.data[0, 0, 1, 1] = 1
    c3, c4 = torch.zeros(1, 1, 3, 3), torch.tensor([[[[1.0, 2], [3, 4]]]])
    out = neck({"C3": c3, "C4": c4})
    assert out["P3"][0, 0].tolist() == [[1, 1, 2], [1, 1, 2], [3, 3, 4]]
    assert out["P4"][0, 0].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("options", "levels", "gradient_free"),
    [
        ({"finest_only": True, "finest": 2}, ["P2"], set()),
        ({"top_down": False, "finest": 2, "extra": "none"}, ["P2", "P3", "P4", "P5"], set()),
        ({"lateral": False, "finest": 2, "extra": "none"}, ["P2", "P3", "P4", "P5"], {"C2", "C3", "C4"}),
    ],
)
def test_ablations_use_every_parameter(options: dict, levels: list[str], gradient_free: set[str]) -> None:
    neck = FPN(levels=LEVELS, width=16, **options)
    inputs = {k: v.requires_grad_() for k, v in maps((64, 64)).items()}
    out = neck(inputs)
    assert list(out) == levels
    sum(v.square().sum() for v in out.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in neck.parameters())
    assert {k for k, v in inputs.items() if v.grad is None} == gradient_free


def test_spp_block_keeps_size_and_width() -> None:
    block = SPPBlock(8, [5, 9, 13])
    assert block(torch.randn(2, 8, 7, 11)).shape == (2, 8, 7, 11)
    peak = torch.zeros(1, 1, 15, 15)
    peak[0, 0, 7, 7] = 1
    pooled = [pool(peak)[0, 0].sum().item() for pool in SPPBlock(1, [5, 9, 13]).pools]
    assert pooled == [25, 81, 169]


def test_single_maps_and_hierarchy() -> None:
    assert [v.name for v in SingleMap(levels=LEVELS).levels] == ["C4"]
    assert [v.name for v in Hierarchy(levels=LEVELS).levels] == ["C3", "C4", "C5"]
    spp = SPP(levels=LEVELS, level="C5")
    inputs = maps((64, 64))
    assert spp(inputs)["C5"].shape == inputs["C5"].shape
    assert torch.equal(SingleMap(levels=LEVELS)(inputs)["C4"], inputs["C4"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: FPN(levels=LEVELS, finest=5), "model.neck needs 2 <= finest"),
        (lambda: FPN(levels=LEVELS, extra="p6"), "model.neck.extra=p6 is not known"),
        (lambda: FPN(levels=LEVELS, top_down=False, lateral=False), "keep model.neck.top_down=true"),
        (lambda: SingleMap(levels=LEVELS, level="C6"), "model.neck.level=C6 is not a level of the backbone"),
        (lambda: SPPBlock(8, [4]), "odd sides"),
    ],
)
def test_mistakes_name_their_option(wrong: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize("canvas", [(64, 64), (32, 32), (64, 256)])
def test_coarsest_maps_of_one_cell_have_finite_gradients_in_bfloat16(canvas: tuple[int, int]) -> None:
    for _ in range(10):
        junk = [torch.full((1000 + 37 * i,), torch.nan) for i in range(20)]
        del junk  # memory that the allocator hands out again
        neck = FPN(levels=LEVELS, width=32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = neck({k: v for k, v in maps(canvas).items() if k in neck.reads})
        sum(v.float().sum() for v in out.values()).backward()
        assert all(p.grad.isfinite().all() for p in neck.parameters())


def test_a_map_of_one_cell_keeps_its_value() -> None:
    neck = FPN(levels=LEVELS, width=8)
    out = neck({k: v for k, v in maps((64, 64)).items() if k in neck.reads})
    torch.testing.assert_close(out["P7"], neck.p7(out["P6"].relu()))

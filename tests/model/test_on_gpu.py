"""Parts whose GPU code differs from the CPU's: NMS, RoI pools, losses in parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align, sigmoid_focal_loss

from detlab.model.losses.classification import FocalLoss
from detlab.model.losses.parts import loss_of_anchors
from detlab.model.nms import first_kept, first_kept_at_once, kept_at_once
from detlab.model.pools.roi import RoIAlign, RoIPool
from detlab.tensors.structures import Level
from tests.gpu import CUDA, ON_GPU
from tests.model.test_nms import by_group, scene

pytestmark = ON_GPU


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize(
    ("count", "groups", "most"), [(400, 3, 100), (5000, 80, 100), (20000, 1, 300), (50, 1203, 100)]
)
def test_nms_keeps_the_boxes_of_the_cpu(threshold: float, count: int, groups: int, most: int) -> None:
    scenes = [scene(count, groups, seed, spread=600.0) for seed in range(3)]
    boxes, scores, labels = (torch.stack(field).to(CUDA) for field in zip(*scenes, strict=True))

    def boxes_of(rows: Tensor) -> tuple[Tensor, Tensor]:
        return boxes.gather(1, rows[..., None].expand(-1, -1, 4)), torch.ones_like(rows, dtype=torch.bool)

    rows = first_kept_at_once(scores, labels, boxes_of, threshold, most).cpu()
    for image, given in enumerate(scenes):
        wanted = first_kept(*given, threshold, most).tolist()
        assert [r for r in rows[image].tolist() if r < count] == wanted


def test_nms_of_levels_keeps_the_boxes_of_the_operator() -> None:
    widths = [2000, 1000, 300]
    scenes = []
    for seed in range(2):
        boxes, scores, _ = scene(sum(widths), 1, seed, spread=500.0)
        levels = torch.repeat_interleave(torch.arange(3), torch.tensor(widths))
        order = torch.cat(
            [scores[levels == i].argsort(descending=True, stable=True) + sum(widths[:i]) for i in range(3)]
        )
        scenes.append((boxes[order], scores[order], levels))
    boxes = torch.stack([s[0] for s in scenes]).to(CUDA)
    alive = kept_at_once(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool, device=CUDA), widths, 0.7).cpu()
    for image, (box, score, level) in enumerate(scenes):
        assert alive[image].nonzero()[:, 0].tolist() == sorted(by_group(box, score, level, 0.7))


LEVELS = [Level(f"C{i}", 8, 2**i) for i in (2, 3, 4, 5)]


def pooled(pool: RoIAlign | RoIPool, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """The output and the maps' gradients, in float32 on the CPU."""
    g = torch.Generator().manual_seed(1)
    maps = {v.name: torch.randn(2, 8, 320 // v.stride, 320 // v.stride, generator=g) for v in LEVELS}
    low = torch.rand(500, 2, generator=g) * 200
    size = torch.rand(500, 2, generator=g) ** 3 * 300 + 1
    rois = torch.cat([torch.randint(0, 2, (500, 1), generator=g).float(), low, low + size], 1).to(device)
    leaves = {n: m.to(device, dtype).requires_grad_() for n, m in maps.items()}
    out = pool(leaves, rois)
    weights = torch.randn(out.shape, generator=g).to(device, out.dtype)
    (out * weights).sum().backward()
    return [t.detach().float().cpu() for t in (out, *(m.grad for m in leaves.values() if m.grad is not None))]


@pytest.mark.parametrize("kind", [RoIAlign, RoIPool])
def test_pools_and_their_gradients_are_those_of_the_cpu(kind: type[RoIAlign]) -> None:
    pool = kind(levels=LEVELS, size=7)
    for ours, theirs in zip(
        pooled(pool, CUDA, torch.float32), pooled(pool, torch.device("cpu"), torch.float32), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_roi_align_is_torchvisions_on_one_level() -> None:
    pool = RoIAlign(levels=LEVELS[:1], size=7)
    g = torch.Generator().manual_seed(2)
    features = torch.randn(2, 8, 80, 80, generator=g).to(CUDA)
    low = torch.rand(300, 2, generator=g) * 200
    rois = torch.cat([torch.randint(0, 2, (300, 1), generator=g).float(), low, low + 4 + low / 2], 1).to(CUDA)
    wanted = roi_align(features, rois, 7, 0.25, 2)
    torch.testing.assert_close(pool({"C2": features}, rois), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_focal_loss_in_parts_has_torchvisions_values(dtype: torch.dtype) -> None:
    """400 MB of float32 logits: two parts or more."""
    g = torch.Generator(CUDA).manual_seed(3)
    logits = torch.randn(4, 70_000, 365, generator=g, device=CUDA, dtype=dtype)
    labels = torch.randint(0, 366, (4, 70_000), generator=g, device=CUDA)
    a, b = (logits.clone().requires_grad_() for _ in range(2))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    ours = loss_of_anchors(FocalLoss(), a, labels)
    ours.sum().backward()
    assert (
        torch.cuda.max_memory_allocated() - before < 1.6 * 2**30 + logits.nbytes
    )  # the gradient, and some six tensors of a part
    hot = torch.nn.functional.one_hot(labels, 366)[..., :-1]
    theirs = sigmoid_focal_loss(b.float(), hot.float(), alpha=0.25, gamma=2).sum(-1)
    theirs.sum().backward()
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-3, atol=1e-3)
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(a.grad.float(), b.grad.float(), rtol=2e-2, atol=1e-4)

"""The deterministic pools have torch's values and gradients, and run without the operations that torch refuses."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torchvision.ops import roi_pool

from detlab.model.pools import deterministic
from detlab.model.pools.deterministic import adaptive_max, max_of_bins


@pytest.fixture(autouse=True)
def _needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deterministic, "needed", lambda x: True)


def test_maxima_of_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deterministic, "PART", 70)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 9, 12, generator=g, requires_grad=True)
    low = torch.rand(20, 2, generator=g) * 60
    rois = torch.cat([torch.randint(0, 2, (20, 1), generator=g), low, low + torch.rand(20, 2, generator=g) * 60], 1)
    rois[0, 1:] = -1e4  # outside: no cell gives its zeros
    found, expected = max_of_bins(x, rois, 4, 1 / 8), roi_pool(x, rois, 4, 1 / 8)
    assert torch.equal(found, expected)
    assert not found[0].any()
    weights = torch.randn(found.shape, generator=g)
    (own,), (wanted,) = (torch.autograd.grad(y, x, weights) for y in (found, expected))
    torch.testing.assert_close(own, wanted)


@pytest.mark.parametrize(("h", "w"), [(14, 14), (8, 9), (7, 13), (4, 5)])
def test_adaptive_maxima(h: int, w: int) -> None:
    x = torch.randn(2, 3, h, w, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found, expected = adaptive_max(x, 7), F.adaptive_max_pool2d(x, 7)
    assert torch.equal(found, expected)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (own,), (wanted,) = (torch.autograd.grad(y, x, weights) for y in (found, expected))
    torch.testing.assert_close(own, wanted)

"""trainer.precision=auto takes bfloat16 where a CPU both has the units and gains by them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from detlab.training import precision
from detlab.training.precision import bfloat16_pays, conv_seconds, resolve_precision


@pytest.fixture(autouse=True)
def measured_anew() -> Iterator[None]:
    bfloat16_pays.cache_clear()
    yield
    bfloat16_pays.cache_clear()


@pytest.mark.parametrize(
    ("units", "seconds", "chosen"),
    [(True, 0.4, "bf16-mixed"), (True, 5.0, "32-true"), (True, 0.95, "32-true"), (False, 0.1, "32-true")],
)
def test_bfloat16_has_to_pay(units: bool, seconds: float, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: units)
    monkeypatch.setattr(precision, "conv_seconds", lambda dtype: seconds if dtype == torch.bfloat16 else 1.0)
    assert resolve_precision("auto", "cpu") == chosen
    assert resolve_precision("bf16-mixed", "cpu") == "bf16-mixed"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_probe_leaves_random_numbers_alone(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with torch.no_grad():  # an evaluation may ask for it
        assert conv_seconds(dtype, repeats=1) > 0
    assert torch.equal(before, torch.get_rng_state())

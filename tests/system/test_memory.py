"""Errors that say that memory ran out are told apart from others, by the texts of torch and NumPy of today."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from detlab.system.memory import physical_bytes, ran_out, without_collector


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: torch.empty(2**50), r"^memory ran out when 4503599\.6 GB more were asked for$"),
        (lambda: torch.empty(2**62, 2**62), r"^memory ran out$"),
        (lambda: np.empty(2**50), r"^memory ran out when 8\.00 PiB more were asked for$"),
        (lambda: np.empty((2**40, 2**40)), r"^memory ran out$"),
        (lambda: bytearray(2**62), r"^memory ran out$"),
    ],
)
def test_too_large_arrays_are_told(ask: Callable[[], object], words: str) -> None:
    with pytest.raises((MemoryError, RuntimeError, ValueError)) as caught:
        ask()
    wrapped = RuntimeError("in a part")
    wrapped.__cause__ = caught.value
    assert re.search(words, ran_out(caught.value))
    assert ran_out(wrapped) == ran_out(caught.value)


def test_other_errors_are_not() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2) @ torch.zeros(3)
    assert not ran_out(caught.value)
    assert not ran_out(KeyError("out of memory"))


def test_a_machine_has_memory() -> None:
    assert 2**28 < (physical_bytes() or 2**30) < 2**50


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_rests_and_is_as_it_was_afterwards(on: bool) -> None:
    was_on = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with without_collector():
            assert not gc.isenabled()
        assert gc.isenabled() == on
    finally:
        (gc.enable if was_on else gc.disable)()

"""A worker that ends is named, whatever the reading process was doing at that moment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch.utils.data import Dataset

from detlab.data.loader import Batches, Loader


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == 3:
            raise FileNotFoundError("no picture 3")
        return index


def ending_with(error: Exception) -> Iterator[int]:
    yield 1
    raise error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "reset"),
        ConnectionRefusedError(111, "refused"),
        EOFError(),
        FileNotFoundError(2, "gone"),
    ],
)
def test_a_broken_socket_is_told_as_a_worker_that_ended(error: Exception) -> None:
    batches = Batches(ending_with(error))
    assert next(batches) == 1
    with pytest.raises(RuntimeError, match=rf"DataLoader worker exited unexpectedly.*{type(error).__name__}") as seen:
        next(batches)
    assert seen.value.__cause__ is error


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_set_keeps_its_kind(workers: int) -> None:
    batches = iter(Loader(Numbers(), batch_size=1, num_workers=workers))
    assert [int(next(batches)) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(FileNotFoundError, match="no picture 3"):
        next(batches)


def test_a_loader_with_workers_ends_like_any_other_and_starts_again() -> None:
    loader = Loader([1, 2, 3], batch_size=1, num_workers=1, persistent_workers=True)
    for _ in range(2):
        assert [int(x) for x in loader] == [1, 2, 3]
    assert len(iter(loader)) == 3

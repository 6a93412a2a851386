"""Which warnings of libraries are shown."""

from __future__ import annotations

import warnings

import pytest

from detlab.training.environment import quieten


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("It is recommended to use `self.log('test/map', ..., sync_dist=True)` when logging on epoch level", 0),
        ("The 'test_dataloader' does not have many workers which may be a bottleneck.", 0),
        ("This DataLoader will create 2 worker processes in total. Our suggested max number", 0),
        ("This DataLoader will create 16 worker processes in total. Our suggested max number", 1),
        (
            "You're resuming from a checkpoint that ended before the epoch ended and your dataloader is not resumable.",
            0,
        ),
        ("Checkpoint directory /run/checkpoints exists and is not empty.", 0),
        ("Something that no list names", 1),
    ],
)
def test_warnings_about_what_detlab_decides_itself_are_hidden_and_others_shown_once(text: str, shown: int) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quieten()
        warnings.warn(text, stacklevel=1)
        warnings.warn(text, stacklevel=1)
    assert len(seen) == shown

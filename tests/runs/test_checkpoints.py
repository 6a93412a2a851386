"""Checkpoints of families of a user's own, which may lack parts of the built-in ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detlab.commands.evaluate import _with_selection
from detlab.errors import ConfigError
from detlab.runs.checkpoints import CHECKPOINT_KEY, LAYOUT, read_checkpoint
from detlab.tensors.archive import save_tensors


def test_a_family_without_detect_is_read_and_has_no_selection_to_change(tmp_path: Path) -> None:
    model = {
        "_target_": "tests.config.own_parts.FromScratch",
        "backbone": {"_target_": "detlab.model.backbones.ResNet"},
    }
    facts = {"config": {"model": model, "data": {}}, "class_names": ["cat"], "category_ids": [1], "layout": LAYOUT}
    save_tensors(
        tmp_path / "best.ckpt", {CHECKPOINT_KEY: facts, "state_dict": {"detector.out": torch.ones(1)}, "global_step": 1}
    )
    checkpoint = read_checkpoint(tmp_path / "best.ckpt", ["tests"])
    assert _with_selection(checkpoint, {}) is checkpoint
    with pytest.raises(ConfigError, match=r"without model\.detect; leave out detect\.KEY=VALUE"):
        _with_selection(checkpoint, {"topk": 3})

"""What a run sets for its whole process: threads, precision, seeds, and which warnings are shown."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import torch

NOISE = (  # of libraries, about things that this project decides or cannot change
    "isinstance\\(treespec, LeafSpec\\)",
    "Experiment logs directory",
    "does not have many workers",
    "The number of training batches",
    "Trying to infer the `batch_size`",
    "Found .* in eval mode at the start of training",  # frozen layers are meant to be
    "You are using a custom batch sampler",
)


def set_up_torch(config: Mapping[str, Any]) -> None:
    """Threads, precision of products and seeds, as the config says; libraries' tips are left out."""
    quieten()
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    torch.set_float32_matmul_precision(config["matmul_precision"])
    L.seed_everything(config["seed"], workers=True, verbose=False)


def quieten() -> None:
    """Leave out what libraries say about things that this project decides or cannot change."""
    for text in NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_wanted)


def _wanted(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's log tells something of this run."""
    text = record.getMessage()
    return not any(part in text for part in ("Tip:", "TPU available", "Loading `train_dataloader`", "GPU available"))

"""Settings of the whole process: threads, precision, seeds, and which warnings are shown."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own convention
import torch

NOISE = (  # warnings of libraries about things that detlab decides itself or cannot change
    "isinstance\\(treespec, LeafSpec\\)",
    "Experiment logs directory",
    "does not have many workers",
    "The number of training batches",
    "Trying to infer the `batch_size`",
    "Found .* in eval mode at the start of training",  # frozen layers are in eval mode on purpose
    "You are using a custom batch sampler",
    "This DataLoader will create [12] worker",  # the default's two on one core: they mostly wait
    "It is recommended to use .self.log\\(.*sync_dist=True",  # losses and metrics are those of all ranks
    "Checkpoint directory .* exists and is not empty",  # that of a resumed run
    "You're resuming from a checkpoint that ended before",  # the data module goes on at the same image
    "could not find the monitored key",  # before the first evaluation; after it, a missing metric is an error
)

UNWANTED = (  # lines of Lightning's log: tips, and facts that detlab prints itself
    "Tip:",
    "TPU available",
    "GPU available",
    "Loading `train_dataloader`",
    "Restoring states from the checkpoint path",
    "Restored all states from the checkpoint",
    "Loaded model weights from the checkpoint",
)


def set_up_torch(config: Mapping[str, Any]) -> None:
    """Set threads, precision of matrix products and seeds from the config, and hide the tips of libraries."""
    quieten()
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    torch.set_float32_matmul_precision(config["matmul_precision"])
    L.seed_everything(config["seed"], workers=True, verbose=False)


def quieten() -> None:
    """Hide the warnings in NOISE and the log lines in UNWANTED, and show every other warning once."""
    for text in NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}")
    if not isinstance(warnings.showwarning, Once):
        warnings.showwarning = Once(warnings.showwarning)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_wanted)
    if logging.getLogger().handlers:  # Hydra's handlers also write the run's log; Lightning's would repeat the lines
        for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
            logging.getLogger(name).handlers.clear()


class Once:
    """Shows each warning once; Python forgets which ones it has shown whenever a library changes the filters."""

    def __init__(self, show: Callable[..., None]) -> None:
        self.show, self.shown = show, set[tuple[type[Warning], str]]()

    def __call__(self, message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        """Same signature as `warnings.showwarning`."""
        key = category, str(message)
        if key not in self.shown:
            self.shown.add(key)
            self.show(message, category, *place, **options)


def _wanted(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's log is shown: it contains no text of UNWANTED."""
    text = record.getMessage()
    return not any(part in text for part in UNWANTED)

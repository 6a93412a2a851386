"""What a run sets for its whole process: threads, precision, seeds, and which warnings are shown."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
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

UNWANTED = (  # lines of Lightning's log: tips, and what the run's own lines say
    "Tip:",
    "TPU available",
    "GPU available",
    "Loading `train_dataloader`",
    "Restoring states from the checkpoint path",
    "Loaded model weights from the checkpoint",
)


def set_up_torch(config: Mapping[str, Any]) -> None:
    """Threads, precision of products and seeds, as the config says; libraries' tips are left out."""
    quieten()
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    torch.set_float32_matmul_precision(config["matmul_precision"])
    L.seed_everything(config["seed"], workers=True, verbose=False)


def quieten() -> None:
    """Leave out what libraries say about things that this project decides or cannot change, and say the rest once."""
    for text in NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}")
    if not isinstance(warnings.showwarning, Once):
        warnings.showwarning = Once(warnings.showwarning)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_wanted)
    if logging.getLogger().handlers:  # those of Hydra, which also write the run's log; Lightning's would repeat them
        for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
            logging.getLogger(name).handlers.clear()


class Once:
    """Shows each warning once, where Python's own memory is lost whenever a library changes the filters."""

    def __init__(self, show: Callable[..., None]) -> None:
        self.show, self.shown = show, set[tuple[type[Warning], str]]()

    def __call__(self, message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        """As `warnings.showwarning`."""
        key = category, str(message)
        if key not in self.shown:
            self.shown.add(key)
            self.show(message, category, *place, **options)


def _wanted(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's log tells something of this run."""
    text = record.getMessage()
    return not any(part in text for part in UNWANTED)

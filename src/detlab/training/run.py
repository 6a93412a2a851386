"""The objects of one run."""

from __future__ import annotations

from typing import NamedTuple

import lightning as L  # noqa: N812 - Lightning's own convention

from detlab.data import DetectionData
from detlab.training.lightning_module import DetectionModule


class Run(NamedTuple):
    """The objects of a run."""

    trainer: L.Trainer
    module: DetectionModule
    data: DetectionData

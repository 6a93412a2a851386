"""Callbacks: status, budget, results, checkpoints, pictures, times, progress, the guard against non-finite losses."""

from detlab.callbacks.agreement import DifferentConfigsError, SameConfig
from detlab.callbacks.budget import Budget
from detlab.callbacks.checkpoint import CheckpointFiles, EarlyStop, RunCheckpoint
from detlab.callbacks.ema import EMA
from detlab.callbacks.loggers import Dashboards
from detlab.callbacks.nonfinite import NonFiniteGuard, NonFiniteLossError
from detlab.callbacks.pictures import ValidationPictures
from detlab.callbacks.progress import EpochTimes, progress_bar
from detlab.callbacks.results import ResultWriter, WorstImages
from detlab.callbacks.status import RunStatus
from detlab.callbacks.stopping import STOP, Stopped

__all__ = [
    "STOP",
    "EMA",
    "Budget",
    "CheckpointFiles",
    "Dashboards",
    "DifferentConfigsError",
    "EarlyStop",
    "EpochTimes",
    "NonFiniteGuard",
    "NonFiniteLossError",
    "ResultWriter",
    "RunCheckpoint",
    "RunStatus",
    "SameConfig",
    "Stopped",
    "ValidationPictures",
    "WorstImages",
    "progress_bar",
]

"""Callbacks: status, budget, results, checkpoints, rates, pictures, times, progress, guard against infinite losses."""

from detlab.training.callbacks.agreement import DifferentConfigsError, SameConfig
from detlab.training.callbacks.budget import Budget
from detlab.training.callbacks.checkpoint import CheckpointFiles, EarlyStop, RunCheckpoint
from detlab.training.callbacks.ema import EMA
from detlab.training.callbacks.learning_rates import LearningRates
from detlab.training.callbacks.nonfinite import NonFiniteGuard, NonFiniteLossError
from detlab.training.callbacks.pictures import ValidationPictures
from detlab.training.callbacks.progress import EpochTimes, progress_bar
from detlab.training.callbacks.results import ResultWriter, WorstImages
from detlab.training.callbacks.status import RunStatus
from detlab.training.loggers import Dashboards
from detlab.training.signals import STOP, Stopped

__all__ = [
    "STOP",
    "EMA",
    "Budget",
    "CheckpointFiles",
    "Dashboards",
    "DifferentConfigsError",
    "EarlyStop",
    "EpochTimes",
    "LearningRates",
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

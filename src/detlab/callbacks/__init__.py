"""Callbacks: status, budget, results, pictures, times, progress, and the guard against non-finite losses."""

from detlab.callbacks.budget import Budget
from detlab.callbacks.loggers import Dashboards
from detlab.callbacks.nonfinite import NonFiniteGuard, NonFiniteLossError
from detlab.callbacks.pictures import ValidationPictures
from detlab.callbacks.progress import EpochTimes, progress_bar
from detlab.callbacks.results import ResultWriter, WorstImages
from detlab.callbacks.status import RunStatus

__all__ = [
    "Budget",
    "Dashboards",
    "EpochTimes",
    "NonFiniteGuard",
    "NonFiniteLossError",
    "ResultWriter",
    "RunStatus",
    "ValidationPictures",
    "WorstImages",
    "progress_bar",
]

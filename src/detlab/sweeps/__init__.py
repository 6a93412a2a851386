"""Run the jobs of a sweep as separate processes and record their states. Needs neither torch nor Hydra."""

from detlab.sweeps.job import Job
from detlab.sweeps.pool import Feed, ListFeed, Pool
from detlab.sweeps.process import Process, end_with_parent
from detlab.sweeps.record import SweepRecord

__all__ = ["Feed", "Job", "ListFeed", "Pool", "Process", "SweepRecord", "end_with_parent"]

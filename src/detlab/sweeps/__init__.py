"""A sweep's jobs as processes of their own: waiting, running, what they left behind. Needs neither torch nor Hydra."""

from detlab.sweeps.job import Job
from detlab.sweeps.pool import Feed, ListFeed, Pool
from detlab.sweeps.process import Process, end_with_parent
from detlab.sweeps.record import SweepRecord

__all__ = ["Feed", "Job", "ListFeed", "Pool", "Process", "SweepRecord", "end_with_parent"]

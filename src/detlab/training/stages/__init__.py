"""Training in one stage, or in several stages inside one run folder.

    RUN/stages/1-NAME/   checkpoints, metrics.csv and pictures of the stage; done.json once it is finished
    RUN/stages/2-NAME/   ...
    RUN/checkpoints/     best.ckpt and last.ckpt of the detector that results from all stages

With resume=true finished stages are skipped, and an interrupted stage continues.
"""

from detlab.training.stages.alternating import Alternating
from detlab.training.stages.joint import Joint
from detlab.training.stages.linear_svm import LinearSVM

__all__ = ["Alternating", "Joint", "LinearSVM"]

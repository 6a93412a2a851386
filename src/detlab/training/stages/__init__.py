"""How a run trains its detector: in one stage, or in several that are parts of one run folder.

    RUN/stages/1-NAME/   checkpoints, metrics.csv, pictures of the stage, and done.json once it is over
    RUN/stages/2-NAME/   ...
    RUN/checkpoints/     best.ckpt and last.ckpt of the one detector that the stages end in

With resume=true a stage that is over is not repeated, and one that was interrupted goes on.
"""

from detlab.training.stages.alternating import Alternating
from detlab.training.stages.joint import Joint
from detlab.training.stages.linear_svm import LinearSVM

__all__ = ["Alternating", "Joint", "LinearSVM"]

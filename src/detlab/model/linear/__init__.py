"""Linear models on features of regions, fitted by solvers instead of gradient steps: R-CNN's SVMs and box regressors.

They take arrays and give weights; they know neither images nor detectors.
"""

from detlab.model.linear.ridge import BoxRidge
from detlab.model.linear.svm import NEVER, LinearModel, MinedSVM, NormMeter, without_duplicates

__all__ = ["NEVER", "BoxRidge", "LinearModel", "MinedSVM", "NormMeter", "without_duplicates"]

"""Linear models on features of regions, fitted whole and not by gradient steps: R-CNN's SVMs and box regressors.

Pure arrays in, weights out; nothing here knows of images or detectors.
"""

from detlab.model.linear.ridge import BoxRidge
from detlab.model.linear.svm import NEVER, LinearModel, MinedSVM, NormMeter, without_duplicates

__all__ = ["NEVER", "BoxRidge", "LinearModel", "MinedSVM", "NormMeter", "without_duplicates"]

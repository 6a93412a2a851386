"""Detectors with torchvision's architectures and published weights."""

"""Padded tensors and box geometry: what every other room stands on."""

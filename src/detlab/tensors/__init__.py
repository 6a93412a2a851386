"""Padded tensors, box geometry, convs and norms, used by every other package."""

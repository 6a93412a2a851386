"""Region proposals from outside the detector: how they are stored, and selective search."""

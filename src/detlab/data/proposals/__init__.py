"""Region proposals that are computed outside the detector: files of proposals, grids, and selective search."""

"""Hydra plugins of detlab: `hydra/launcher=processes` (the default), `slurm`, and `hydra/sweeper=optuna`.

Hydra imports every module here at every start, so heavy imports happen inside functions.
"""

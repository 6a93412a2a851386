"""`detlab benchmark target=...`: compare detlab with torchvision's reference code, interleaved in one process.

A target is a module with a function `run`. Its keyword arguments are the options. Its result is a dict with a `ratio`:
ours / theirs, so below 1 is better. Needs only torch, torchvision and lightning (no Hydra).
"""

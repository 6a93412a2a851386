"""`detlab benchmark target=...`: this project beside torchvision's reference code, in one process, interleaved.

A target is a module with a function `run`, whose keyword arguments are the options and whose result is a dict with a
`ratio`: ours over theirs, below 1 is better. Needs torch, torchvision and lightning alone (no Hydra).
"""

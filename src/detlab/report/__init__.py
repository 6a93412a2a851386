"""Reports from run folders: which choices make a difference. Needs no torch, so that it runs where results are read."""

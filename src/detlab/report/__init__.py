"""Reports from run folders: which choices make a difference. Needs no torch, so it runs on any machine."""

"""One file a sub-command of `detlab`, each run as a module."""

"""The sub-commands of `detlab`: one file each, run as a module."""

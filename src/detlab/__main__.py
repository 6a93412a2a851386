"""`python -m detlab` is the command `detlab`, for an interpreter whose scripts are not on the path."""

from detlab.cli import main

main()

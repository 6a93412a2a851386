"""detlab rules: the table of refused combinations of options, each with its reason."""

from __future__ import annotations

from detlab.config.rules import as_markdown

USAGE = "detlab rules"


def main() -> None:
    """Print the table."""
    print(as_markdown(), end="")


if __name__ == "__main__":
    main()

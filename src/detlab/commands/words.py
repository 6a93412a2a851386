"""The start and end of a command that takes words instead of a config: its help, and a mistake as one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from detlab.errors import ConfigError
from detlab.report.runs import ReportError
from detlab.system.text import complain


def answer_words(arguments: Sequence[str] | None, help_text: str, act: Callable[[list[str]], int]) -> int:
    """Print the help without words or with -h, else act on the words.

    Args:
        arguments: words after the command's name; None for those of this process.
        help_text: what -h prints.
        act: called with the words; returns the exit status.

    Returns:
        Exit status: 2 after a mistake, which is told on stderr.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(help_text)
        return 0
    try:
        return act(words)
    except (ReportError, ConfigError) as error:
        complain(error)
        return 2

"""The start and end of a command that takes words instead of a config: its help, and a mistake as one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from detlab.errors import ConfigError
from detlab.report.runs import ReportError
from detlab.system.text import complain, write_lines

OWN = "--config-dir"
INTERRUPTED = 130  # exit status after Ctrl-C


def joined_flag(words: Sequence[str]) -> list[str]:
    """The words with `--config-dir FOLDER` written as one, --config-dir=FOLDER."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == OWN:
            joined[-1] = f"{OWN}={word}"
        else:
            joined.append(word)
    return joined


def own_folder(text: str) -> Path:
    """The folder that --config-dir names.

    Raises:
        ConfigError: there is no such folder.
    """
    folder = Path(text).expanduser().resolve()
    if not (text.strip() and folder.is_dir()):  # the text of an unset variable is not the current folder
        raise ConfigError(f"{OWN}={text} is no folder.")
    return folder


def answer_words(arguments: Sequence[str] | None, help_text: str, act: Callable[[list[str]], int]) -> int:
    """Print the help without words or with -h among them, else act on the words.

    Args:
        arguments: words after the command's name; None for those of this process.
        help_text: what -h prints.
        act: called with the words; returns the exit status.

    Returns:
        Exit status: 2 after a mistake, which is told on stderr; 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or {"-h", "--help"} & set(words):
        write_lines([help_text])
        return 0
    try:
        return act(words)
    except (ReportError, ConfigError) as error:
        complain(error)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED

"""What `detlab COMMAND --help` prints: the groups and keys that the command takes, with the comments of conf/."""

from __future__ import annotations

from collections.abc import Iterator

from detlab.config.catalogue import group_comments, group_options, included, keys_of_command, read_option

FLAGS = """Flags
  --cfg job             print the composed config and stop
  -m                    sweep over comma-separated values
  --config-dir FOLDER   add options of your own"""


def help_lines(command: str) -> Iterator[str]:
    """Lines of a command's help."""
    yield from read_option("", command).comments
    yield from ("", "Groups (GROUP=OPTION; detlab options GROUP=OPTION lists the keys of one)")
    chosen = group_comments(command)
    for group in _groups(command):
        option, comment = chosen.get(group, ("", ""))
        begins = f" [{option}]" if option not in ("", "null") else ""
        yield f"  {group}{begins}{'  # ' + comment if comment else ''}"
        yield f"      {' | '.join(group_options()[group])}"
    yield from ("", "Keys (KEY=VALUE)")
    for source in (*included(command), command):
        keys = keys_of_command(source)
        width = max((len(f"{key.name}={key.value}") for key in keys), default=0)
        for key in keys:
            left = f"{key.name}={key.value}"
            yield f"  {left:{width}}  {'# ' + key.comment if key.comment else ''}".rstrip()
    yield from ("", *FLAGS.splitlines())


def _groups(command: str) -> list[str]:
    """The groups that a command chooses from, and those inside of them, such as model/neck."""
    chosen = [group for group in group_comments(command) if group in group_options()]
    return [
        group for first in chosen for group in group_options() if group == first or group.startswith(f"{first}/")
    ]  # fmt: skip

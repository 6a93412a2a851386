"""detlab completion: tab completion of commands, groups, options and keys, for bash and zsh."""

from __future__ import annotations

import sys

from detlab.commands.listing import commands
from detlab.config.catalogue import command_names, group_options, included, keys_of_command, read_option
from detlab.errors import ConfigError
from detlab.system.text import complain

USAGE = 'eval "$(detlab completion bash)"   or zsh, in the shell\'s start file'
BASH = """_detlab() {
  local found; found="$(detlab completion words "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)"
  local IFS=$'\\n'; COMPREPLY=($found)
}
complete -o nospace -F _detlab detlab"""
SCRIPTS = {
    "bash": BASH,
    "zsh": f"autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n{BASH}",
}


def main() -> None:
    """Print a shell's script, or, for that script, the words that may stand at the end of a line."""
    arguments = sys.argv[1:]
    if len(arguments) == 2 and arguments[0] == "words":
        print("\n".join(words(arguments[1])))
    elif len(arguments) == 1 and arguments[0] in SCRIPTS:
        print(SCRIPTS[arguments[0]])
    else:
        complain("detlab completion takes the name of a shell, bash or zsh.")
        sys.exit(2)


def words(line: str) -> list[str]:
    """What may stand in place of the last word of a command line.

    Readline splits words at "=", so of `model/neck=f` only what stands behind "=" is given.
    """
    given = line.split()[1:]
    last = "" if line.endswith((" ", "\t")) or not given else given.pop()
    if not given:
        return [f"{name} " for name in commands() if name.startswith(last)]
    command = given[0] if given[0] in command_names() else "train" if given[0] == "ablate" else ""
    if given[0] == "options":
        found = [*group_options(), *_choices(last)]
    elif command:
        found = [f"{group}=" for group in group_options()] + [*_choices(last), *_keys(command, last)]
    else:
        return []
    fitting = sorted({word for word in found if word.startswith(last) and word != last})
    return [word[last.rindex("=") + 1 :] for word in fitting] if "=" in last else fitting


def _choices(word: str) -> list[str]:
    """`GROUP=OPTION ` for the group that a word begins with."""
    group, equals, _ = word.partition("=")
    return [f"{group}={name} " for name in group_options().get(group.split("@")[0], ())] if equals else []


def _keys(command: str, word: str) -> list[str]:
    """`KEY=` of the command, and of every option of a group whose name and dot a word begins with."""
    found = [f"{key.name}=" for source in (*included(command), command) for key in keys_of_command(source)]
    for group, names in group_options().items():
        package = f"{group.replace('/', '.')}."
        if not word.startswith(package):
            continue
        options = [read_option(group, name) for name in names]
        found += [f"{package}{key.name}=" for option in options if option.package for key in option.keys]
    return found


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        complain(error)
        sys.exit(2)

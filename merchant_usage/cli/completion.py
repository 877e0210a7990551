"""`completion`: what a shell needs to complete commands and options, made from the parser that reads them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Final

from merchant_usage.cli.output import say
from merchant_usage.cli.parser import build_parser, commands_of
from merchant_usage.errors import NAME

_BASH: Final = """\
_merchant_usage() {{
    local words
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    if [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"; fi
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -F _merchant_usage {program}"""

_ZSH: Final = "autoload -U +X bashcompinit && bashcompinit\n"

#: What takes the place of a date.
_DAYS: Final = ("today", "yesterday")


def completion(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    words = {name: _words(command) for name, command in commands_of(build_parser()).items()}
    say({"bash": _bash, "zsh": _zsh, "fish": _fish}[options.shell](words))
    return 0


def _words(command: argparse.ArgumentParser) -> list[str]:
    actions = command._actions  # noqa: SLF001 - it has no public name
    options = [name for action in actions for name in action.option_strings if name.startswith("--")]
    choices = [str(choice) for action in actions for choice in action.choices or ()]
    return [*options, *choices, *(_DAYS if "--date" in options else ())]


def _bash(words: Mapping[str, Sequence[str]]) -> str:
    cases = "\n".join(f'        {name}) words="{" ".join(of_command)}" ;;' for name, of_command in words.items())
    return _BASH.format(cases=cases, commands=" ".join(words), program=NAME)


def _zsh(words: Mapping[str, Sequence[str]]) -> str:
    return _ZSH + _bash(words)


def _fish(words: Mapping[str, Sequence[str]]) -> str:
    first = [f"complete -c {NAME} -f -n __fish_use_subcommand -a '{' '.join(words)}'"]
    others = [
        f"complete -c {NAME} -f -n '__fish_seen_subcommand_from {name}' -a '{' '.join(of_command)}'"
        for name, of_command in words.items()
    ]
    return "\n".join(first + others)

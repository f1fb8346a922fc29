"""``ftte completion``: what a shell needs to complete commands and options, made from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rich.console import Console

__all__ = ["add_completion_command", "bash_script", "fish_script"]

SHELLS = ("bash", "zsh", "fish")


# Completions of bash work in zsh once its own completion has begun, which a bare zsh has not done.
ZSH = """\
(( $+functions[compdef] )) || { autoload -U compinit && compinit -i; }
autoload -U +X bashcompinit && bashcompinit
"""


def add_completion_command(commands: Any) -> None:
    """Register it; it completes the commands that are registered when it is asked."""
    command = commands.add_parser("completion", help="completion for bash, zsh or fish: eval its output")
    command.add_argument("shell", choices=SHELLS)
    command.description = (
        'In ~/.bashrc: eval "$(ftte completion bash)", in ~/.zshrc: eval "$(ftte completion zsh)"; for fish, write '
        "the output into ~/.config/fish/completions/ftte.fish."
    )
    command.set_defaults(handler=lambda options, console: _completion(options, console, commands.choices))


def _completion(options: argparse.Namespace, console: Console, parsers: Mapping[str, argparse.ArgumentParser]) -> int:
    if options.shell == "fish":
        print(fish_script(parsers), end="")
    else:
        # zsh understands bash's completions when it is asked to.
        print((ZSH if options.shell == "zsh" else "") + bash_script(parsers), end="")
    return 0


def bash_script(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """
    A bash function that completes ``ftte``; whatever is no command or option is completed as a file.

    Args:
        parsers: by the command's name.

    """
    cases = "\n".join(
        f'        {name}) words="{" ".join(_words(parser))}" ;;' for name, parser in sorted(parsers.items())
    )
    return f"""_ftte() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" words="" command=""
    local index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case "${{COMP_WORDS[index]}}" in
            -*) ;;
            *) command="${{COMP_WORDS[index]}}"; break ;;
        esac
    done
    case "$command" in
        "") words="{" ".join(sorted(parsers))} --help --verbose --version" ;;
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _ftte ftte
"""


def fish_script(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """
    Completions of fish.

    Args:
        parsers: by the command's name.

    """
    lines = []
    for name, parser in sorted(parsers.items()):
        lines.append(f"complete -c ftte -n __fish_use_subcommand -a {name} -d {_quoted(parser.description or '')}")
        here = f"-n '__fish_seen_subcommand_from {name}'"
        for action in parser._actions:
            if action.help == argparse.SUPPRESS:
                continue
            for option in action.option_strings:
                kind = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
                lines.append(f"complete -c ftte {here} {kind} -d {_quoted(action.help or '')}")
            if action.choices and not action.option_strings:
                lines.append(f"complete -c ftte {here} -a {_quoted(' '.join(map(str, action.choices)))}")
    return "\n".join(lines) + "\n"


def _words(parser: argparse.ArgumentParser) -> list[str]:
    words: list[str] = []
    for action in parser._actions:
        words += action.option_strings
        if action.choices:
            words += [str(choice) for choice in action.choices]
    return words


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("%%", "%") + "'"

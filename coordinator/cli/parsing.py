"""Command lines: mistakes are answered with what was meant, and ``ftte --help`` says where to start."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

__all__ = ["Parser", "add_set_option", "group_commands"]


class Parser(argparse.ArgumentParser):
    """A parser with sentences of our own: what is wrong, what was meant, where the help is. It exits with status 2."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # argparse has overloads
        given = sys.argv[1:] if args is None else list(args)
        options, rest = self.parse_known_args(given, namespace)
        if rest:
            command = next((word for word in given if not word.startswith("-")), "")
            prog = f"{self.prog} {command}".strip()
            print(f"{prog}: {rest[0]!r} is not among what it takes (see {prog} --help)", file=sys.stderr)
            raise SystemExit(2)
        return options

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {_reworded(message)} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _reworded(message: str) -> str:
    """Argparse's words as ours."""
    choices = r"argument (?P<what>.*?): invalid choice: '(?P<given>.*?)' \(choose from (?P<all>.*)\)"
    choice = re.fullmatch(choices, message)
    if choice is not None:
        known = [name.strip("' ") for name in choice["all"].split(",")]
        close = difflib.get_close_matches(choice["given"], known, n=1)
        what = "command" if choice["what"] == "COMMAND" else choice["what"]
        meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        return f"there is no {what} {choice['given']!r}; {meant}"
    missing = re.fullmatch(r"the following arguments are required: (.*)", message)
    if missing is not None:
        return f"give {missing[1].replace(', ', ' and ')}"
    number = re.fullmatch(r"argument (.*?): invalid (int|float) value: (.*)", message)
    if number is not None:
        return f"{number[1]}: {number[3]} is no {'whole number' if number[2] == 'int' else 'number'}"
    return message.removeprefix("argument ")


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """``--set section.key=value``, of which there may be several."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="instead of what the file has, such as merge.buffer=20; may be given again",
    )


def group_commands(parser: argparse.ArgumentParser, commands: Any, groups: Mapping[str, Sequence[str]]) -> None:
    """
    List the subcommands of a parser in groups.

    Args:
        parser: whose help it is.
        commands: what ``parser.add_subparsers`` gave.
        groups: names of commands under each heading; every command is in one.

    Raises:
        ValueError: if a command is in no group.

    """
    words = {action.dest: action.help or "" for action in commands._choices_actions}
    missing = set(words) - {name for names in groups.values() for name in names}
    if missing:
        raise ValueError(f"the commands {sorted(missing)} are in no group of the help")
    lines = []
    for heading, names in groups.items():
        lines += [heading, *(f"  {name:14}{words[name]}" for name in names), ""]
    parser.epilog = "\n".join([*lines, "`ftte COMMAND --help` says more of each."])
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands._choices_actions.clear()

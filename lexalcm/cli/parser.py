"""The argument parser of every command: plain argparse, coloured help, near matches for misspelt options."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, Action, ArgumentParser, HelpFormatter
from typing import Any, NoReturn

from lexalcm.errors import near_match


def _help_formatter(prog: str, **options: Any) -> HelpFormatter:
    # Imported here because most calls print no help at all.
    try:
        from rich_argparse import RichHelpFormatter
    except ImportError:
        return HelpFormatter(prog, **options)

    class Formatter(RichHelpFormatter):
        text_markup = False  # square brackets in our texts are not rich's markup
        group_name_formatter = str

    return Formatter(prog, **options)


class CommandParser(ArgumentParser):
    """An ``ArgumentParser`` without abbreviated options, whose errors are two lines and offer the near match."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", _help_formatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            first = unknown[0]
            if first.startswith("-"):
                hint = near_match(first.split("=", 1)[0], self._known_options())
                self.error(f'unknown option "{first}".{hint}')
            self.error(f'unexpected argument "{first}".')
        return parsed

    def error(self, message: str) -> NoReturn:
        """Prints one line of what is wrong and where the help is, and exits with 2."""
        sys.stderr.write(f"{self.prog}: error: {message}\nSee {self.prog} --help\n")
        sys.exit(2)

    def _known_options(self) -> list[str]:
        known: list[str] = []
        parsers: list[ArgumentParser] = [self]
        while parsers:
            for action in parsers.pop()._actions:
                known += [option for option in action.option_strings if action.help != SUPPRESS]
                parsers += _sub_parsers(action)
        return known


def _sub_parsers(action: Action) -> list[ArgumentParser]:
    choices = action.choices
    return [p for p in choices.values() if isinstance(p, ArgumentParser)] if isinstance(choices, dict) else []

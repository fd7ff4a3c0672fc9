"""Options of a command that are given more than once, of which Snakemake takes the last use alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from volprompt.settings.reading import ConfigurationError

# Options of one letter without a value, which can stand before another one behind the same dash.
FLAGS = "FKRknpqt"


def uses_of(arguments: Sequence[str], *names: str) -> list[list[str]]:
    """The values of each use of an option that takes several of them, as argparse reads them.

    arguments: of the command. names: of the option, each with its dashes.
    """
    uses: list[list[str]] = []
    taking = False  # values of the option
    for argument in arguments:
        if argument == "--":
            break
        found = _use(argument, names)
        if found is not None:
            uses.append([found] if found else [])
            taking = not found
        elif argument.startswith("-"):
            taking = False
        elif taking:
            uses[-1].append(argument)
    return uses


def _use(argument: str, names: Sequence[str]) -> str | None:
    """The value that stands behind an option in the same argument, empty if none does; None for another argument."""
    for name in names:
        letter = "" if name.startswith("--") else name.removeprefix("-")
        pattern = rf"-[{FLAGS}]*{letter}=?(.*)" if letter else rf"{name}(?:=(.*))?"
        if match := re.fullmatch(pattern, argument, re.DOTALL):
            return match[1] or ""
    return None


def require_one_use(option: str, uses: Sequence[Sequence[str]]) -> None:
    """Refuse an option that is given more than once, where its uses cannot be put together.

    Raises ConfigurationError.
    """
    if len(uses) > 1:
        raise ConfigurationError(
            [
                f"{option}: is given more than once, and Snakemake takes the last one alone; give all values behind "
                f"one `{option}`, those that change others last"
            ]
        )

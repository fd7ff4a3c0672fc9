"""Options of a command that are given more than once, of which Snakemake takes the last use alone."""

from __future__ import annotations

from collections.abc import Sequence

from volprompt.settings.reading import ConfigurationError


def uses_of(arguments: Sequence[str], *names: str) -> list[list[str]]:
    """The values of each use of an option that takes several of them, as argparse reads them.

    arguments: of the command. names: of the option, each with its dashes.
    """
    uses: list[list[str]] = []
    taking = False  # values of the option
    for argument in arguments:
        if argument == "--":
            break
        attached = [argument.removeprefix(f"{name}=") for name in names if argument.startswith(f"{name}=")]
        if attached:
            uses.append(attached)
            taking = False
        elif argument in names:
            uses.append([])
            taking = True
        elif argument.startswith("-"):
            taking = False
        elif taking:
            uses[-1].append(argument)
    return uses


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

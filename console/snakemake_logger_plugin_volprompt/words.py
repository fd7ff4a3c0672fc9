"""How numbers are written for a person."""

from __future__ import annotations

from collections.abc import Mapping


def counted(number: int, noun: str) -> str:
    """`1 job`, `21 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write seconds as `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def time_left(seconds: float | None) -> str:
    """Write an estimate no more exactly than it is known: `about 12 min left`; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 55:
        return f"about {max(round(seconds / 10), 1) * 10} s left"
    minutes = max(round(seconds / 60), 1)
    if minutes < 60:
        return f"about {minutes} min left"
    tens = round(seconds / 600)
    if tens < 6 * 24:
        hours, minutes = divmod(tens * 10, 60)
        return f"about {hours} h{f' {minutes} min' if minutes else ''} left"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"about {counted(days, 'day')}{f' {hours} h' if hours else ''} left"


def share(done: int, total: int) -> str:
    """`5 of 21  23 %`, always of the same width; never 100 % before the end."""
    return f"{done:>{len(str(total))}} of {total} {100 * done // total if total else 100:>3} %"


def jobs_by_rule(planned: Mapping[str, int]) -> str:
    """`21 jobs: 3 convert, 3 extract_prompts, ...`."""
    return f"{counted(sum(planned.values()), 'job')}: " + ", ".join(f"{n} {rule}" for rule, n in planned.items())


def listed_labels(volumes: Mapping[int, int], most: int = 10) -> str:
    """`4 (in 12 volumes), 7 (in 1 volume)`, at most `most` of them. volumes: their number by label."""
    listed = [f"{label} (in {counted(number, 'volume')})" for label, number in sorted(volumes.items())]
    more = [f"and {len(listed) - most} more"] if len(listed) > most else []
    return ", ".join([*listed[:most], *more])


def cut(text: str, width: int) -> str:
    """The text, cut to a terminal's width."""
    return text if len(text) <= width else text[: max(width - 3, 0)] + "..."

"""The clicks of the paper's authors, brought to the volumes of a sample sheet."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from volprompt.clicks.table import ClickTableError, changing
from volprompt.files import separator
from volprompt.settings.reading import ConfigurationError
from volprompt.settings.values import name_fault
from volprompt.study.sheets import SheetRow, click_numbers, read_rows, read_volumes
from volprompt.words import plural

# The authors clicked on this slice, counted from 0.
AUTHORS_SLICE = 80


@dataclass(frozen=True)
class Series:
    """A series that the authors clicked on, by the Osteoarthritis Initiative's numbers; clicks: structure -> (x, y)."""

    subject: str
    visit_date: str
    series: str
    clicks: dict[str, tuple[float, float]] = field(hash=False)

    def __str__(self) -> str:
        return f"subject {self.subject}, {self.visit_date}, series {self.series}"


@dataclass(frozen=True)
class Match:
    """A volume of the sheet and its series. reason: what the match rests on, or why there is no series."""

    volume: str
    series: Series | None
    reason: str


def read_authors_table(path: str | Path) -> list[Series]:
    """Read the authors' table: subject, visit_date, series, structure, x, y. Raises ClickTableError.

    Coordinates are pixels (x, y) of the 384 x 384 frame, in the frame convention of this library.
    """
    faults: list[str] = []
    columns = {"subject", "visit_date", "series", "structure", "x", "y"}
    clicks: dict[tuple[str, str, str], dict[str, tuple[float, float]]] = defaultdict(dict)
    for row in read_rows(str(path), separator(path, ","), columns, set(), faults):
        if fault := name_fault(row["structure"]):
            faults.append(f"{path} line {row['line']}: structure '{row['structure']}' {fault}")
        numbers = click_numbers("0", row["x"], row["y"])
        if numbers is None:
            faults.append(f"{path} line {row['line']}: x and y are '{row['x']}', '{row['y']}'; expected two numbers")
            continue
        clicks[row["subject"], row["visit_date"], row["series"]][row["structure"]] = numbers[1:]
    if faults:
        raise ClickTableError("\n".join(faults))
    return [Series(*numbers, points) for numbers, points in clicks.items()]


def match(volumes: Sequence[SheetRow], table: Sequence[Series]) -> list[Match]:
    """Find the series of every volume by the numbers in its name, group and paths.

    The subject has to be among them. A date and a series number of eight digits after the subject, as in the paths of
    the Osteoarthritis Initiative's archives, have to be those of the table. If they are missing, the subject decides,
    provided that only one volume and one series of the table have it.
    """
    by_subject: dict[str, list[Series]] = defaultdict(list)
    for series in table:
        by_subject[series.subject].append(series)
    candidates = [_match_one(volume, by_subject) for volume in volumes]
    claims: dict[Series, list[Match]] = defaultdict(list)
    for one in candidates:
        if one.series:
            claims[one.series].append(one)
    return [_settle(one, claims[one.series]) if one.series else one for one in candidates]


# What a match rests on, the weakest first.
BY = ("subject", "subject and date", "subject, date and series")


def _match_one(volume: SheetRow, by_subject: Mapping[str, Sequence[Series]]) -> Match:
    """Find a volume's series, whatever the other volumes claim. by_subject: the table's series."""
    texts = (volume.volume, volume.group, volume.image, volume.reference)
    subjects = {number for text in texts for number in re.findall(r"\d+", text)} & set(by_subject)
    if not subjects:
        return Match(volume.volume, None, "no subject of the table in its name, group or paths")
    fitting: list[tuple[int, Series]] = []
    reasons = []
    for subject in sorted(subjects):
        behind = _numbers_after(subject, texts)
        dates = {number for number in behind if _is_date(number)}
        others = behind - dates
        for series in by_subject[subject]:
            if dates and series.visit_date not in dates:
                reasons.append(f"is of {', '.join(sorted(dates))}; the clicks are on {series}")
            elif others and series.series not in others:
                reasons.append(f"is series {', '.join(sorted(others))}; the clicks are on {series}")
            else:
                fitting.append((bool(dates) + bool(others), series))
    if not fitting:
        return Match(volume.volume, None, "; ".join(reasons))
    best = max(strength for strength, _ in fitting)
    chosen = [series for strength, series in fitting if strength == best]
    if len(chosen) > 1:
        return Match(volume.volume, None, f"may be any of: {'; '.join(map(str, chosen))}")
    return Match(volume.volume, chosen[0], BY[best])


def _settle(one: Match, claims: Sequence[Match]) -> Match:
    """Give a series that several volumes claim to the one with the strongest evidence, if it is the only such one."""
    best = max(BY.index(claim.reason) for claim in claims)
    strongest = [claim for claim in claims if BY.index(claim.reason) == best]
    if [one] == strongest:
        return one
    if one not in strongest:
        return Match(one.volume, None, f"{one.series} belongs to {strongest[0].volume}, which names more of it")
    others = ", ".join(claim.volume for claim in strongest if claim != one)
    return Match(one.volume, None, f"{one.series} fits {others} as well; name date and series in the sheet's paths")


def _numbers_after(subject: str, texts: Iterable[str]) -> set[str]:
    """Return the numbers of eight digits that follow the subject in the same text."""
    following: set[str] = set()
    for text in texts:
        numbers = re.findall(r"\d+", text)
        if subject in numbers:
            following.update(number for number in numbers[numbers.index(subject) + 1 :] if len(number) == 8)
    return following


def _is_date(number: str) -> bool:
    """Return whether eight digits are a date of this or the last century, year first."""
    return re.fullmatch(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", number) is not None


def import_clicks(table: str | Path, volumes: str, out: str | Path, index: int = AUTHORS_SLICE) -> str:
    """Add the authors' clicks on the sheet's volumes to a clicks table. Returns what matched and what did not.

    table: the authors' table.
    volumes: the sample sheet.
    out: the clicks table; the clicks that it has, by volume, structure and slice, stay as they are.
    index: the slice that was clicked on.

    Raises ConfigurationError for a faulty sheet and ClickTableError if no volume matches.
    """
    faults: list[str] = []
    sheet = read_volumes(volumes, True, faults)
    if faults:
        raise ConfigurationError(faults)
    series = read_authors_table(table)
    matches = match(sheet, series)
    if not any(one.series for one in matches):
        raise ClickTableError(
            f"{volumes}: no volume matches a series of {table}\n{_list_unmatched(matches)}\n"
            "A volume is found by its subject's number in the name, group or paths of its row."
        )
    added, kept = _add_clicks(matches, out, index)
    lines = [
        f"{out}: {plural(added, 'click')} added" + (f", {kept} were there already and stay as they are" if kept else "")
    ]
    lines += [f"  {plural(sum(one.reason == by for one in matches), 'volume')} matched by {by}" for by in reversed(BY)]
    if any(one.series is None for one in matches):
        lines += [
            f"{plural(sum(one.series is None for one in matches), 'volume')} without clicks:",
            _list_unmatched(matches),
        ]
    used = {one.series for one in matches}
    if left := [entry for entry in series if entry not in used]:
        shown = "; ".join(map(str, left[:3])) + ("; ..." if len(left) > 3 else "")
        lines.append(f"{len(left)} of the table's {len(series)} series have no volume in {volumes}: {shown}")
    return "\n".join(lines)


def _add_clicks(matches: Sequence[Match], out: str | Path, index: int) -> tuple[int, int]:
    """Add the matched clicks to a table. Returns how many are new, and how many were there already."""
    added = kept = 0
    with changing(out) as target:
        there = target.keys()
        for one in matches:
            for structure, point in one.series.clicks.items() if one.series else ():
                if (one.volume, structure, index) in there:
                    kept += 1
                    continue
                target.put(one.volume, structure, index, *point)
                added += 1
        target.write()
    return added, kept


def _list_unmatched(matches: Sequence[Match]) -> str:
    lines = [f"  {one.volume}: {one.reason}" for one in matches if one.series is None]
    return "\n".join(lines)

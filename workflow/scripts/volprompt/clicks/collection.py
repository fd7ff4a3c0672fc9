"""All that is to be clicked on in a study, in order, and the table that the clicks go to."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from volprompt.clicks.changes import as_list, checked_request, key_as_json, merge
from volprompt.clicks.pages import CollectError, Page, pages_of, source_of
from volprompt.clicks.table import ClickTable, changing
from volprompt.errors import VolpromptError
from volprompt.palette import GREY, structure_colours
from volprompt.settings.config import Settings
from volprompt.settings.reading import ConfigurationError, hint, read_valid_part
from volprompt.study.sheets import SheetRow, read_click_table, read_volumes


class Collection:
    """What is to be clicked on, in order, and the table that the clicks go to."""

    def __init__(
        self,
        pages: Sequence[Page],
        *,
        unusable: Mapping[str, str],
        table: str | Path,
        colours: Mapping[str, str],
        note: str = "",
    ) -> None:
        """Describe a session.

        pages: in the order in which they are shown.
        unusable: volumes without a page, with the reason.
        table: the clicks table to write.
        colours: of each structure, as in the report.
        note: what remains to be done with the table.
        """
        self.pages = list(pages)
        self.unusable = dict(unusable)
        self.path = Path(table)
        self.colours = dict(colours)
        self.note = note
        self._lock = threading.Lock()

    def describe(self) -> dict[str, Any]:
        """Return everything that the page in the browser has to know at its start."""
        table = ClickTable(self.path)
        done = [page.done(table.of_volume(page.volume)) for page in self.pages]
        return {
            "table": str(self.path),
            "note": self.note,
            "unusable": self.unusable,
            "colours": self.colours,
            "letters": GREY,
            "start": first_page(done),
            "pages": [
                {
                    "volume": page.volume,
                    "slice": page.slice,
                    "free": page.free,
                    "structures": page.structures,
                    "shape": page.source.shape,
                    "pixel": page.source.pixel,
                    "axes": page.source.axes,
                    "done": finished,
                }
                for page, finished in zip(self.pages, done, strict=True)
            ],
        }

    def clicks(self, page: Page) -> list[dict[str, Any]]:
        """Return the clicks of a page as the table holds them now."""
        return as_list(page.select(ClickTable(self.path).of_volume(page.volume)))

    def save(self, page: Page, sent: object) -> dict[str, Any]:
        """Bring a page's changes to the table, and write it.

        sent: the page's `clicks`, and those that it `known` to be in the table before it changed them. A row is
            replaced or removed only if it is still the one that the page knew.

        Returns whether the page is `done`, its `clicks` as the table holds them now, and under `conflicts` those that
        the page changed and somebody else too; if there are any, nothing is written. Raises CollectError for clicks
        that do not fit the page.
        """
        known, new = checked_request(page, sent)
        with self._lock, changing(self.path) as table:
            held = page.select(table.of_volume(page.volume))
            changes, conflicts = merge(known, new, held)
            if changes and not conflicts:
                for (name, index), point in changes.items():
                    if point is None:
                        table.remove(page.volume, name, index)
                    else:
                        table.put(page.volume, name, index, *point)
                table.write()
            held = page.select(table.of_volume(page.volume))
        return {"done": page.done(held), "clicks": as_list(held), "conflicts": [key_as_json(key) for key in conflicts]}


def first_page(done: Sequence[bool]) -> int:
    """Return the page at which a session continues; the number of pages if all are done.

    That is the first open page after the last one that is done, or else the first open page, so that skipped pages come
    up again at the end.
    """
    open_pages = [place for place, finished in enumerate(done) if not finished]
    last = max((place for place, finished in enumerate(done) if finished), default=-1)
    return next((place for place in open_pages if place > last), open_pages[0] if open_pages else len(done))


def collect(
    config: Mapping[str, Any],
    table: str | None = None,
    structures: Sequence[str] | None = None,
    slice_: str | None = None,
) -> tuple[Collection, Settings]:
    """Find out what is to be clicked on in a study.

    config: the configuration as it was read.
    table: the clicks table to write, instead of the configuration's.
    structures, slice_: as in `pages_of`.

    Raises ConfigurationError with the faults of settings and tables; checkpoints are not looked at.
    """
    settings, faults = read_valid_part(config)
    if settings is None:
        raise ConfigurationError(faults, config)
    volumes = read_volumes(settings.volumes, settings.on_invalid == "skip", faults)
    for name in structures or ():
        if name not in settings.structures:
            faults.append(f"--structures: there is no structure '{name}'{hint(name, settings.structures)}")
    if slice_ and slice_ not in ("middle", "any") and not slice_.isdecimal():
        faults.append(f"--slice: is '{slice_}'; expected a slice number, middle or any")
    volume_clicks = {
        row.volume: read_click_table(row.clicks, settings, row.volume, faults) for row in volumes if row.clicks
    }
    if faults:
        raise ConfigurationError(faults, config)
    if not structures and not any("click" in scheme.origins for scheme in settings.used_schemes.values()):
        raise CollectError("no scheme of an experiment takes clicks (point: click); name structures with --structures")
    path = table or settings.clicks or str(Path(settings.volumes).with_suffix("")) + ".clicks.csv"
    note = "" if path == settings.clicks else f"add `clicks: {path}` to the configuration, so that the study uses them"
    pages: list[Page] = []
    unusable: dict[str, str] = {}

    def pages_or_reason(row: SheetRow) -> list[Page] | str:
        try:
            return pages_of(source_of(row, settings), settings, volume_clicks.get(row.volume, ()), structures, slice_)
        except VolpromptError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        for row, outcome in zip(volumes, pool.map(pages_or_reason, volumes), strict=True):
            if isinstance(outcome, str):
                unusable[row.volume] = outcome
            else:
                pages += outcome
    if not pages:
        reasons = "".join(f"\n  {reason}" for reason in unusable.values())
        raise CollectError(f"{settings.volumes}: there is nothing to click on{reasons}")
    ClickTable(path)  # a faulty table is found now, not after the first volume
    colours = structure_colours(settings.structures)
    return Collection(pages, unusable=unusable, table=path, colours=colours, note=note), settings

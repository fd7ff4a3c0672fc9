"""What is to be clicked on in a study: the pages of its volumes, their frames, and the table that the clicks go to.

Coordinates are pixels (x, y) of the frame, pixel centres at whole numbers, (0, 0) the top left one, as everywhere.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volprompt.clicks.table import ClickTable
from volprompt.errors import VolpromptError
from volprompt.palette import structure_colours
from volprompt.prompts.schemes import middle_slice, wanted_clicks
from volprompt.settings.config import Settings
from volprompt.settings.reading import ConfigurationError, hint, read_valid_part
from volprompt.study.sheets import Click, SheetRow, read_click_table, read_volumes
from volprompt.study.study import shard_of
from volprompt.volumes.convert import window
from volprompt.volumes.converted import read_frames, read_volume_table
from volprompt.volumes.grid import FRAME_AXES, grid_of
from volprompt.volumes.images.formats import data_files
from volprompt.volumes.images.opening import open_image, read_voxels


class CollectError(VolpromptError):
    """Nothing to click on, or a request that does not fit the study."""


@dataclass(frozen=True)
class Source:
    """Where a volume's frames come from: its image, or the folder in which they lie converted; shape (slice, y, x).

    pixel: millimetres between neighbours along (y, x).
    """

    row: SheetRow
    shape: tuple[int, int, int]
    pixel: tuple[float, float]
    converted: Path | None = None


@dataclass(frozen=True)
class Page:
    """A slice of a volume, and the structures to be clicked on.

    free: clicks count on every slice, as for schemes that look for a slice by themselves; else on this one alone.
    """

    source: Source
    slice: int
    structures: tuple[str, ...]
    free: bool

    @property
    def volume(self) -> str:
        """Name of the volume."""
        return self.source.row.volume

    def own(self, clicks: Mapping[tuple[str, int], tuple[float, float]]) -> dict[tuple[str, int], tuple[float, float]]:
        """Of a volume's clicks those that this page shows and changes."""
        return {
            (name, index): point
            for (name, index), point in clicks.items()
            if name in self.structures and (self.free or index == self.slice)
        }

    def done(self, clicks: Iterable[tuple[str, int]]) -> bool:
        """Whether all structures have a click on one slice."""
        clicked: dict[int, set[str]] = {}
        for name, index in clicks:
            clicked.setdefault(index, set()).add(name)
        return any(
            set(self.structures) <= names for index, names in clicked.items() if self.free or index == self.slice
        )


def source_of(row: SheetRow, settings: Settings) -> Source:
    """Find a volume's frames; reads headers alone. Raises VolumeError where its image cannot be used.

    Converted frames are taken where they were made from this image as it is now, along this axis.
    """
    folder = Path(settings.results) / "volumes" / shard_of(row.volume, settings.shards)
    file = folder / f"{row.volume}_frames.nii"
    if file.exists() and (folder / "volumes.parquet").exists():
        table = read_volume_table(folder)
        found = table[(table["volume"] == row.volume) & (table["status"] == "ok") & (table["source"] == row.image)]
        axes = FRAME_AXES.get(str(settings.frames.axis))
        sources = [source for source in (Path(row.image), *data_files(row.image)) if source.exists()]
        newer = file.stat().st_mtime >= max((source.stat().st_mtime for source in sources), default=math.inf)
        if len(found) and newer and axes == found.iloc[0]["frame_axes"]:
            depth, height, width = (int(size) for size in found.iloc[0]["shape"])
            _, y_mm, x_mm = (float(size) for size in found.iloc[0]["spacing"])
            return Source(row, (depth, height, width), (y_mm, x_mm), folder)
    with open_image(row.image, row.series) as image:
        grid = grid_of(image, settings.frames.axis)
    return Source(row, grid.frames_shape, grid.spacing[1:])


def frames_of(source: Source, settings: Settings) -> np.ndarray:
    """A volume's frames: uint8 (slice, y, x), as the models see them. Raises VolumeError."""
    if source.converted:
        return read_frames(source.converted, source.row.volume)
    with open_image(source.row.image, source.row.series) as image:
        grey, _, _ = window(read_voxels(image), settings.frames.intensity_percentiles, image.path)
        return np.ascontiguousarray(grid_of(image, settings.frames.axis).to_frames(grey))


def pages_of(
    source: Source,
    settings: Settings,
    given: Iterable[Click] = (),
    structures: Sequence[str] | None = None,
    slice_: str | None = None,
) -> list[Page]:
    """The pages of a volume: one per slice that schemes prompt with clicks, or one for those that take any slice.

    given: clicks of the volume's own table, which count before the study's and are not asked for again; structures:
    these instead of those that the schemes need; slice_: `middle`, `any` or an index instead of the schemes' slices.
    Raises CollectError for a slice that the volume does not have.
    """
    depth = source.shape[0]
    fixed: dict[int, set[str]] = {}
    anywhere: set[str] = set()
    for scheme in settings.used_schemes.values():
        names, index = wanted_clicks(scheme, list(settings.structures), settings.scored_structures, depth)
        (anywhere if index is None else fixed.setdefault(index, set())).update(names)
    if structures:
        fixed = {index: set(structures) for index in fixed}
        anywhere = set() if fixed else set(structures)
    if slice_:
        whole = anywhere.union(*fixed.values())
        index = middle_slice(depth) if slice_ in ("middle", "any") else int(slice_)
        fixed, anywhere = ({}, whole) if slice_ == "any" else ({index: whole}, set())
    elif fixed:  # what takes any slice takes a prompted one, too
        fixed[min(fixed)] |= anywhere
        anywhere = set()
    pages = []
    for index, wanted in [*sorted(fixed.items()), *([(middle_slice(depth), anywhere)] if anywhere else [])]:
        if not 0 <= index < depth:
            raise CollectError(f"{source.row.volume}: slice {index} is asked for; it has {depth} (0 to {depth - 1})")
        free = wanted is anywhere
        known = {click.structure for click in given if free or click.slice == index}
        asked = tuple(name for name in settings.structures if name in wanted - known)
        if asked:
            pages.append(Page(source, index, asked, free))
    return pages


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
        """Everything that the page in the browser has to know at its start."""
        table = ClickTable(self.path)
        done = [page.done(table.of_volume(page.volume)) for page in self.pages]
        return {
            "table": str(self.path),
            "note": self.note,
            "unusable": self.unusable,
            "colours": self.colours,
            "start": first_page(done),
            "pages": [
                {
                    "volume": page.volume,
                    "slice": page.slice,
                    "free": page.free,
                    "structures": page.structures,
                    "shape": page.source.shape,
                    "pixel": page.source.pixel,
                    "done": finished,
                }
                for page, finished in zip(self.pages, done, strict=True)
            ],
        }

    def clicks(self, page: Page) -> list[dict[str, Any]]:
        """The clicks of a page as the table holds them now."""
        own = page.own(ClickTable(self.path).of_volume(page.volume))
        return [{"structure": name, "slice": index, "x": x, "y": y} for (name, index), (x, y) in own.items()]

    def save(self, page: Page, clicks: object) -> bool:
        """Make these the clicks of a page and write the table; returns whether the page is done.

        The table is read again before, so that what was written to it meanwhile is kept. Raises CollectError for
        clicks that do not fit the page.
        """
        wanted = checked_clicks(page, clicks)
        with self._lock:
            table = ClickTable(self.path)
            before = page.own(table.of_volume(page.volume))
            for name, index in before.keys() - wanted.keys():
                table.remove(page.volume, name, index)
            for (name, index), point in wanted.items():
                if before.get((name, index)) != point:
                    table.put(page.volume, name, index, *point)
            if before != wanted:
                table.write()
        return page.done(wanted)


def first_page(done: Sequence[bool]) -> int:
    """Where a session goes on: the first page without clicks behind the last one that has them, else the first one.

    Skipped pages come up once more at the end. The number of pages where all are done.
    """
    open_pages = [place for place, finished in enumerate(done) if not finished]
    last = max((place for place, finished in enumerate(done) if finished), default=-1)
    return next((place for place in open_pages if place > last), open_pages[0] if open_pages else len(done))


def checked_clicks(page: Page, clicks: object) -> dict[tuple[str, int], tuple[float, float]]:
    """(structure, slice) -> (x, y) of clicks that the browser sent. Raises CollectError for one of another page."""
    depth, height, width = page.source.shape
    found: dict[tuple[str, int], tuple[float, float]] = {}
    for click in clicks if isinstance(clicks, list) else [clicks]:
        if not isinstance(click, dict):
            raise CollectError("expected a list of clicks")
        values: list[Any] = [click.get(key) for key in ("structure", "slice", "x", "y")]
        name, index, x, y = values
        numbers = type(index) is int and all(type(value) in (int, float) and math.isfinite(value) for value in (x, y))
        if not numbers or not 0 <= index < depth or not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise CollectError(f"a click at slice {index}, x {x}, y {y} lies outside the frames of {page.volume}")
        if name not in page.structures:
            raise CollectError(f"'{name}' is not asked for here; expected one of {', '.join(page.structures)}")
        if not page.free and index != page.slice:
            raise CollectError(f"a click on slice {index}: the schemes prompt slice {page.slice}")
        found[name, index] = round(float(x), 3), round(float(y), 3)
    return found


def collect(
    config: Mapping[str, Any],
    table: str | None = None,
    structures: Sequence[str] | None = None,
    slice_: str | None = None,
) -> tuple[Collection, Settings]:
    """Find out what is to be clicked on in a study.

    table: the clicks table to write, instead of the configuration's; structures, slice_: as for `pages_of`. Raises
    ConfigurationError with the faults of settings and tables; checkpoints are not looked at.
    """
    settings, faults = read_valid_part(config)
    if settings is None:
        raise ConfigurationError(faults)
    volumes = read_volumes(settings.volumes, settings.on_invalid == "skip", faults)
    for name in structures or ():
        if name not in settings.structures:
            faults.append(f"--structures: there is no structure '{name}'{hint(name, settings.structures)}")
    if slice_ and slice_ not in ("middle", "any") and not slice_.isdecimal():
        faults.append(f"--slice: is '{slice_}'; expected a slice number, middle or any")
    own = {row.volume: read_click_table(row.clicks, settings, row.volume, faults) for row in volumes if row.clicks}
    if faults:
        raise ConfigurationError(faults)
    if not structures and not any("click" in scheme.origins for scheme in settings.used_schemes.values()):
        raise CollectError("no scheme of an experiment takes clicks (point: click); name structures with --structures")
    path = table or settings.clicks or str(Path(settings.volumes).with_suffix("")) + ".clicks.csv"
    note = "" if path == settings.clicks else f"add `clicks: {path}` to the configuration, so that the study uses them"
    pages: list[Page] = []
    unusable: dict[str, str] = {}

    def pages_or_reason(row: SheetRow) -> list[Page] | str:
        try:
            return pages_of(source_of(row, settings), settings, own.get(row.volume, ()), structures, slice_)
        except VolpromptError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        for row, found in zip(volumes, pool.map(pages_or_reason, volumes), strict=True):
            if isinstance(found, str):
                unusable[row.volume] = found
            else:
                pages += found
    if not pages:
        reasons = "".join(f"\n  {reason}" for reason in unusable.values())
        raise CollectError(f"{settings.volumes}: there is nothing to click on{reasons}")
    ClickTable(path)  # a faulty table is found now, not after the first volume
    colours = structure_colours(settings.structures)
    return Collection(pages, unusable=unusable, table=path, colours=colours, note=note), settings

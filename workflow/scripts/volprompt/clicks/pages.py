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

from volprompt.clicks.table import ClickKey, ClickTable, Point
from volprompt.errors import VolpromptError
from volprompt.palette import structure_colours
from volprompt.prompts.schemes import clicks_needed, middle_slice
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
    """Where a volume's frames come from: its image, or the folder of the converted volume.

    row: of the sample sheet.
    shape: of the frames, (slice, y, x).
    pixel: millimetres between neighbours along (y, x).
    converted: the folder with the converted volume, or None.
    """

    row: SheetRow
    shape: tuple[int, int, int]
    pixel: tuple[float, float]
    converted: Path | None = None


@dataclass(frozen=True)
class Page:
    """A slice of a volume, and the structures to be clicked on.

    source: where the frames come from.
    slice: the slice that the page shows first.
    structures: names, in the configuration's order.
    free: whether clicks count on every slice, as for schemes that choose a slice by themselves, or on this one alone.
    """

    source: Source
    slice: int
    structures: tuple[str, ...]
    free: bool

    @property
    def volume(self) -> str:
        """Name of the volume."""
        return self.source.row.volume

    def select(self, clicks: Mapping[ClickKey, Point]) -> dict[ClickKey, Point]:
        """Return those of a volume's clicks that this page shows and changes."""
        return {
            (name, index): point
            for (name, index), point in clicks.items()
            if name in self.structures and (self.free or index == self.slice)
        }

    def done(self, clicks: Iterable[ClickKey]) -> bool:
        """Return whether all structures have a click on one slice."""
        clicked: dict[int, set[str]] = {}
        for name, index in clicks:
            clicked.setdefault(index, set()).add(name)
        return any(
            set(self.structures) <= names for index, names in clicked.items() if self.free or index == self.slice
        )


def source_of(row: SheetRow, settings: Settings) -> Source:
    """Find a volume's frames; reads headers alone. Raises VolumeError if its image cannot be used.

    Converted frames are used if they were made along this axis from this image, and the image is not newer.
    """
    folder = Path(settings.results) / "volumes" / shard_of(row.volume, settings.shards)
    frames_path = folder / f"{row.volume}_frames.nii"
    if frames_path.exists() and (folder / "volumes.parquet").exists():
        table = read_volume_table(folder)
        rows = table[(table["volume"] == row.volume) & (table["status"] == "ok") & (table["source"] == row.image)]
        axes = FRAME_AXES.get(str(settings.frames.axis))
        sources = [source for source in (Path(row.image), *data_files(row.image)) if source.exists()]
        newer = frames_path.stat().st_mtime >= max((source.stat().st_mtime for source in sources), default=math.inf)
        if len(rows) and newer and axes == rows.iloc[0]["frame_axes"]:
            depth, height, width = (int(size) for size in rows.iloc[0]["shape"])
            _, y_mm, x_mm = (float(size) for size in rows.iloc[0]["spacing"])
            return Source(row, (depth, height, width), (y_mm, x_mm), folder)
    with open_image(row.image, row.series) as image:
        grid = grid_of(image, settings.frames.axis)
    return Source(row, grid.frames_shape, grid.spacing[1:])


def frames_of(source: Source, settings: Settings) -> np.ndarray:
    """Read a volume's frames: uint8 (slice, y, x), as the models see them. Raises VolumeError."""
    if source.converted:
        return read_frames(source.converted, source.row.volume)
    with open_image(source.row.image, source.row.series) as image:
        grey, _, _ = window(read_voxels(image), settings.frames.intensity_percentiles, image.path)
        return np.ascontiguousarray(grid_of(image, settings.frames.axis).to_frames(grey))


def pages_of(
    source: Source,
    settings: Settings,
    volume_clicks: Iterable[Click] = (),
    structures: Sequence[str] | None = None,
    slice_: str | None = None,
) -> list[Page]:
    """Return a volume's pages: one per slice that schemes prompt with clicks, or one for schemes that take any slice.

    source: where the frames come from.
    settings: the configuration.
    volume_clicks: of the volume's own table, which override the study's and are not asked for again.
    structures: names to ask for, instead of those that the schemes need.
    slice_: `middle`, `any` or an index, instead of the schemes' slices.

    Raises CollectError for a slice that the volume does not have.
    """
    depth = source.shape[0]
    fixed: dict[int, set[str]] = {}
    anywhere: set[str] = set()
    for scheme in settings.used_schemes.values():
        names, index = clicks_needed(scheme, list(settings.structures), settings.scored_structures, depth)
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
    for index, needed in [*sorted(fixed.items()), *([(middle_slice(depth), anywhere)] if anywhere else [])]:
        if not 0 <= index < depth:
            raise CollectError(f"{source.row.volume}: slice {index} is asked for; it has {depth} (0 to {depth - 1})")
        free = needed is anywhere
        clicked = {click.structure for click in volume_clicks if free or click.slice == index}
        asked = tuple(name for name in settings.structures if name in needed - clicked)
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
        """Return everything that the page in the browser has to know at its start."""
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
        """Return the clicks of a page as the table holds them now."""
        clicks = page.select(ClickTable(self.path).of_volume(page.volume))
        return [{"structure": name, "slice": index, "x": x, "y": y} for (name, index), (x, y) in clicks.items()]

    def save(self, page: Page, clicks: object) -> bool:
        """Make these the clicks of a page and write the table. Returns whether the page is done.

        The table is read again first, so that rows written meanwhile are kept. Raises CollectError for clicks that do
        not fit the page.
        """
        new = checked_clicks(page, clicks)
        with self._lock:
            table = ClickTable(self.path)
            old = page.select(table.of_volume(page.volume))
            for name, index in old.keys() - new.keys():
                table.remove(page.volume, name, index)
            for (name, index), point in new.items():
                if old.get((name, index)) != point:
                    table.put(page.volume, name, index, *point)
            if old != new:
                table.write()
        return page.done(new)


def first_page(done: Sequence[bool]) -> int:
    """Return the page at which a session continues; the number of pages if all are done.

    That is the first open page after the last one that is done, or else the first open page, so that skipped pages come
    up again at the end.
    """
    open_pages = [place for place, finished in enumerate(done) if not finished]
    last = max((place for place, finished in enumerate(done) if finished), default=-1)
    return next((place for place in open_pages if place > last), open_pages[0] if open_pages else len(done))


def checked_clicks(page: Page, clicks: object) -> dict[ClickKey, Point]:
    """Check clicks that the browser sent. Raises CollectError for one that does not belong to the page."""
    depth, height, width = page.source.shape
    checked: dict[ClickKey, Point] = {}
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
        checked[name, index] = round(float(x), 3), round(float(y), 3)
    return checked


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

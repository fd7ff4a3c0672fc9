"""What is to be clicked on in a volume: its pages and its frames.

Coordinates are pixels (x, y) of the frame, pixel centres at whole numbers, (0, 0) the top left one, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volprompt.clicks.table import ClickKey, Point
from volprompt.errors import VolpromptError
from volprompt.prompts.schemes import clicks_needed, middle_slice
from volprompt.settings.config import Settings
from volprompt.study.sheets import Click, SheetRow
from volprompt.study.study import shard_of
from volprompt.volumes.convert import limits_of, to_grey
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
    axes: letters of the directions in which y and x grow.
    converted: the folder with the converted volume, or None.
    """

    row: SheetRow
    shape: tuple[int, int, int]
    pixel: tuple[float, float]
    axes: str
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
            return Source(row, (depth, height, width), (y_mm, x_mm), str(rows.iloc[0]["frame_axes"])[1:], folder)
    with open_image(row.image, row.series) as image:
        grid = grid_of(image, settings.frames.axis)
    return Source(row, grid.frames_shape, grid.spacing[1:], grid.axes[1:])


def frames_of(source: Source, settings: Settings) -> np.ndarray:
    """Read a volume's frames: uint8 (slice, y, x), as the models see them. Raises VolumeError."""
    if source.converted:
        return read_frames(source.converted, source.row.volume)
    with open_image(source.row.image, source.row.series) as image:
        voxels = read_voxels(image)
        grey = to_grey(voxels, *limits_of(voxels, settings.frames.model_dump(), image.path))
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

"""The files of the sample sheet, checked by their headers before anything expensive starts.

A fault here is one that conversion would find too; what only voxels show (NaN, no contrast, labels) it finds alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from volprompt.cells import from_cell
from volprompt.errors import VolpromptError, comes_from_the_machine
from volprompt.files import write_csv
from volprompt.logs import NOTICE, logger
from volprompt.study.study import Study
from volprompt.volumes.grid import grid_of, unusual_frames
from volprompt.volumes.images.image import Image, VolumeError
from volprompt.volumes.images.opening import open_image
from volprompt.volumes.references import require_reference_grid
from volprompt.words import at_most, plural

THREADS = 16
SHOWN = 50


class InvalidVolumes(VolpromptError):
    """All faults of the sample sheet's files."""


@dataclass(frozen=True)
class Fault:
    """One fault of one file of a volume."""

    volume: str
    file: str
    finding: str
    expected: str
    remedy: str


def check_study(study: Study) -> None:
    """Check every volume of a study, whatever its `on_invalid`; errors as in `report_faults`."""
    settings = study.settings
    rows = [row.plain() for row in study.volumes]
    table = f"{settings.results}/check/faults.tsv"
    check_sheet(rows, settings.frames.axis, settings.references.resample, "stop", table)


def check_sheet(
    rows: Sequence[Mapping[str, str]],
    axis: str | int,
    resample: str | None,
    on_invalid: str,
    table: str | Path,
    whole: bool = False,
) -> None:
    """Check volumes and log their faults; arguments as in `check_volumes` and `report_faults`, errors as there."""
    report_faults(check_volumes(rows, axis, resample, table, whole), len(rows), on_invalid, table, whole)


def check_volumes(
    rows: Sequence[Mapping[str, str]], axis: str | int, resample: str | None, table: str | Path, whole: bool = True
) -> list[Fault]:
    """Read the headers of every image and reference, and write their faults to `table`, tab-separated.

    rows: volume, image, reference and series of the sample sheet; axis: of the frames; resample: whether references may
    lie on other grids; whole: whether these are all volumes, so that the table says nothing of others any more. Returns
    the faults in the order of the rows. Raises what is a fault of the machine.
    """
    logger.info("Reading the headers of %d volumes", len(rows))
    with ThreadPoolExecutor(min(THREADS, 4 * (os.cpu_count() or 1))) as pool:
        found = list(pool.map(lambda row: _check_volume(row, axis, resample), rows))
    faults = [fault for of_volume, _ in found for fault in of_volume]
    if unusual := [f"{row['image']}: {frames}" for row, (_, frames) in zip(rows, found, strict=True) if frames]:
        logger.warning("%d of %d volumes have unusual frames, the first: %s", len(unusual), len(rows), unusual[0])
    columns = list(Fault.__dataclass_fields__)
    flat = [{key: " ".join(value.split()) for key, value in asdict(fault).items()} for fault in faults]
    checked = pd.DataFrame(flat, columns=columns)
    if not whole and Path(table).is_file():
        before = pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False).map(from_cell)
        others = before[~before["volume"].isin([row["volume"] for row in rows])]
        checked = pd.concat([others.reindex(columns=columns), checked], ignore_index=True)
    write_csv(checked, table)
    return faults


def _check_volume(row: Mapping[str, str], axis: str | int, resample: str | None) -> tuple[list[Fault], str]:
    """Return the faults of a volume, and what is unusual about its frames."""
    faults: list[Fault] = []

    def header(path: str, series: str = "", labels: bool = False) -> Image | None:
        try:
            with open_image(path, series, labels) as image:
                image.verify()
                grid_of(image, axis)
                return image
        except Exception as error:  # what a reader stumbles over is the fault of this file alone
            if comes_from_the_machine(error):
                raise
            if isinstance(error, VolumeError):
                faults.append(_fault(row["volume"], error))
                return None
            faults.append(
                Fault(row["volume"], path, f"{type(error).__name__}: {error}", "an image that can be read", "")
            )
        return None

    image = header(row["image"], row.get("series", ""))
    reference = header(row["reference"], labels=True) if row["reference"] else None
    if image is not None and reference is not None:
        try:
            require_reference_grid(reference, image, resample)
        except VolumeError as error:
            faults.append(_fault(row["volume"], error))
    return faults, "" if image is None or faults else unusual_frames(image, axis)


def _fault(volume: str, error: VolumeError) -> Fault:
    return Fault(volume, error.file, error.finding, error.expected, error.remedy)


def report_faults(
    faults: Sequence[Fault], volumes: int, on_invalid: str, table: str | Path, whole: bool = False
) -> None:
    """Log the faults of `volumes` checked volumes.

    whole: whether these are all volumes of the study. Raises InvalidVolumes with the faults where on_invalid is `stop`,
    or where it would skip a whole study.
    """
    if not faults:
        what = "The headers of the volume" if volumes == 1 else f"The headers of {volumes} volumes"
        logger.log(NOTICE, "%s have no fault", what)
        return
    count = f"{plural(len(faults), 'fault')} in {len({fault.volume for fault in faults})}"
    lines = [f"The files of the sample sheet have {count} of {volumes} volumes (table: {table}):"]
    told = [
        f"{fault.volume}: {VolumeError(fault.file, fault.finding, fault.expected, fault.remedy)}" for fault in faults
    ]
    lines += ["  - " + each.replace("\n", "\n    ") for each in at_most(told, SHOWN)]
    if on_invalid == "skip" and whole and len({fault.volume for fault in faults}) == volumes:
        raise InvalidVolumes(
            "\n".join([*lines, "No volume is left to go on with: correct the files or the sample sheet."])
        )
    if on_invalid == "skip":
        logger.warning("%s", "\n".join([*lines, "These volumes are skipped (on_invalid: skip)."]))
        return
    lines.append("Correct the files or the sample sheet, or set on_invalid: skip to go on without these volumes.")
    raise InvalidVolumes("\n".join(lines))

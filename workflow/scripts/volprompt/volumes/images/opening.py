"""Any source of a format in the table becomes an image: shape, affine in RAS+ millimetres, and voxels on request."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from volprompt.volumes.images.formats import FORMAT_OF_SERIES, data_files, ending_of, format_of
from volprompt.volumes.images.image import BROKEN, Image, VolumeError, damaged, no_file, unreadable
from volprompt.volumes.images.sources import is_dicom


@contextmanager
def open_image(path: str, series: str = "", labels: bool = False) -> Iterator[Image]:
    """Open a 3D image without reading its voxels, which can be read until the block ends.

    path: a source of a format in the table `formats.FORMATS`.
    series: which series of a folder or an archive, see `dicom.series.read_series`.
    labels: whether a label map is wanted: of DICOM, a segmentation is then preferred to images.

    Raises VolumeError for anything that is not one 3D volume of real numbers.
    """
    if not Path(path).exists():
        raise no_file(path)
    if not (Path(path).is_file() or Path(path).is_dir()):
        raise VolumeError(path, "is a pipe, a socket or a device", "a file or a folder", "Copy its content to a file")
    source_format = format_of(path)
    if source_format is None and is_dicom(path):
        source_format = FORMAT_OF_SERIES
    if source_format is not None and source_format.is_series:
        with source_format.load_opener()(path, series, labels) as image:
            yield image
        return
    if series:
        raise VolumeError(
            path, f"the series '{series}' is chosen from a single file", "a folder or an archive of DICOM"
        )
    if source_format is None:
        raise unreadable(path, "no format that is read has this ending")
    for file in data_files(path):
        if Path(os.path.normpath(Path(path).parent)) not in Path(os.path.normpath(file)).parents:
            raise VolumeError(
                path,
                f"names the data file {file}, outside of its folder",
                "data files beside or below their header",
                "Move the data file there, and correct the header",
            )
        if not file.is_file():
            part = "header" if ending_of(path) in source_format.data_endings else "data file"
            raise VolumeError(path, f"its {part} {file.name} is missing", remedy=f"Put it beside {Path(path).name}")
    yield source_format.load_opener()(path)


def read_voxels(image: Image) -> np.ndarray:
    """Read the voxels as float32 on the stored grid. Raises VolumeError for a broken file, NaN or infinite values."""
    image.verify()
    try:
        voxels = np.asarray(image.load(), dtype=np.float32)
    except BROKEN as error:
        raise damaged(image.path, error) from None
    finite = np.isfinite(voxels)
    if not finite.all():
        count = int(voxels.size - finite.sum())
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise VolumeError(
            image.path,
            f"{count} voxels are NaN or infinite, the first at {first}",
            "numbers",
            "Replace them, for example by the background's value",
        )
    return voxels

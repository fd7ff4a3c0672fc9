"""Phantoms as files, with their sample sheet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

from volprompt.cells import as_cell
from volprompt.files import atomic, write_text
from volprompt.phantom.image import Contrast, Phantom, Shape, Side, make_phantom
from volprompt.phantom.shapes import Triple

ORIENTATIONS = ("RAS", "LPS", "PIR", "LAS", "AIL", "SRP")


def write_phantom(phantom: Phantom, image_path: str | Path, labels_path: str | Path, orientation: str = "RAS") -> None:
    """Write the image (int16) and the labels (uint8) as two NIfTI files (.nii.gz), each atomically.

    `orientation` gives the axes in the files by nibabel's codes, such as "PIR"; the affine is made to match.
    """
    stored, wanted = (nib.orientations.axcodes2ornt(codes) for codes in ("RAS", orientation))
    turn = nib.orientations.ornt_transform(stored, wanted)
    for array, path in ((phantom.image.astype(np.int16), image_path), (phantom.labels, labels_path)):
        nifti = nib.Nifti1Image(array, phantom.affine).as_reoriented(turn)
        nifti.header.set_xyzt_units("mm")
        with atomic(path) as temporary:
            nib.save(nifti, temporary)


def write_study(
    folder: str | Path,
    seeds: Iterable[int],
    shape: Shape = (160, 384, 384),
    spacing: Triple = (0.7, 0.365, 0.365),
    contrast: Contrast = "dess",
    *,
    verbose: bool = False,
) -> Path:
    """Write one phantom per seed, and their sample sheet; sides and stored orientations alternate.

    `folder` receives phantom_SEED_image.nii.gz, phantom_SEED_labels.nii.gz and volumes.tsv (tab-separated
    volume, image, reference, group: paths as `folder` is given, each knee its own group). Nothing is written
    where the sheet and all its files are there already. `verbose` prints a line per phantom.
    Returns the path of the sheet.
    """
    sheet = Path(folder) / "volumes.tsv"
    names = {seed: f"phantom_{seed:03d}" for seed in seeds}
    files = {seed: [sheet.with_name(f"{n}_{kind}.nii.gz") for kind in ("image", "labels")] for seed, n in names.items()}
    cells = [(names[seed], str(image), str(labels), names[seed]) for seed, (image, labels) in files.items()]
    rows = ["\t".join(map(as_cell, row)) + "\n" for row in cells]
    text = "".join(["volume\timage\treference\tgroup\n", *rows])
    done = sheet.exists() and sheet.read_text(encoding="utf-8") == text
    done = done and all(path.exists() for pair in files.values() for path in pair)
    for place, (seed, (image, labels)) in enumerate(files.items()):
        side: Side = "left" if place % 2 else "right"
        orientation = ORIENTATIONS[place % len(ORIENTATIONS)]
        if not done:
            write_phantom(make_phantom(seed, shape, spacing, contrast=contrast, side=side), image, labels, orientation)
        if verbose:
            print(f"{image}: {side} knee, axes {orientation}{', already there' if done else ''}", flush=True)
    if not done:
        write_text(sheet, text)
    return sheet

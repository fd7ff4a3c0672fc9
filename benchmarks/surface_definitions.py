"""How far apart definitions of the average surface distance are.

`python benchmarks/surface_definitions.py [MAP[:1,2] ...]`: each structure of each label map (default: a phantom; labels
to take after a colon) is compared with three masks made from it: moved by two voxels along every axis, grown by four
voxels in one half, and without its last fifth of slices. Prints a row per definition: the median over all masks, and
its ratio to volprompt's ASSD. The definitions' formulas are in docs/methods.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from monai.metrics import compute_average_surface_distance
from scipy import ndimage
from surface_distance import metrics

from volprompt.phantom.image import make_phantom
from volprompt.phantom.knee import LABELS
from volprompt.scores.surfaces import Gap, surface_of

Spacing = tuple[float, float, float]


def area_weighted(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> tuple[float, float]:
    """ASSD and MASD of DeepMind's surface-distance, from its two directed means by area."""
    found = metrics.compute_surface_distances(second, first, spacing)
    directed = metrics.compute_average_surface_distance(found)
    areas = [found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()]
    return float(np.average(directed, weights=areas)), float(np.mean(directed))


def border_distances(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> list[np.ndarray]:
    """Distances from the border voxels of each mask to those of the other, in MedPy's way: border = mask - erosion."""
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (first, second)]
    far = [ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders]
    return [far[1][borders[0]], far[0][borders[1]]]


def monai(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> float:
    """The mean over the border voxels of both masks, by MONAI itself."""
    batch = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (first, second)]
    return float(compute_average_surface_distance(*batch, include_background=True, symmetric=True, spacing=spacing))


def simple_itk(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> float:
    """The mean over both contours, as SimpleITK's notebook on the evaluation of segmentations computes it."""
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (first, second)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    contours = [sitk.GetArrayViewFromImage(sitk.LabelContour(image)) > 0 for image in images]
    maps = [
        np.abs(sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)))
        for image in images
    ]
    return float(np.concatenate([maps[1][contours[0]], maps[0][contours[1]]]).mean())


def hausdorff_filter(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> float:
    """SimpleITK's average Hausdorff distance: over all voxels of the masks, those inside of the other count 0."""
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (first, second)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    measure = sitk.HausdorffDistanceImageFilter()
    measure.Execute(*images)
    return float(measure.GetAverageHausdorffDistance())


def volprompt(first: np.ndarray, second: np.ndarray, spacing: Spacing) -> float:
    """Our ASSD."""
    return Gap.between(surface_of(first, spacing), surface_of(second, spacing)).assd_mm()


DEFINITIONS: dict[str, Callable[[np.ndarray, np.ndarray, Spacing], float]] = {
    "ASSD by area: volprompt": volprompt,
    "ASSD by area: surface-distance, both means weighted by area": lambda *masks: area_weighted(*masks)[0],
    "MASD by area: surface-distance, mean of both means": lambda *masks: area_weighted(*masks)[1],
    "ASSD by voxels: border voxels pooled": lambda *masks: float(np.concatenate(border_distances(*masks)).mean()),
    "ASSD by voxels: MONAI": monai,
    "ASSD by voxels: SimpleITK's notebook": simple_itk,
    "MASD by voxels: MedPy": lambda *masks: float(np.mean([side.mean() for side in border_distances(*masks)])),
    "average Hausdorff distance by volume: SimpleITK's filter": hausdorff_filter,
}


def structures(maps: list[str]) -> Iterator[tuple[np.ndarray, Spacing]]:
    """Masks, bool (slice, y, x), cut out with a margin of six voxels, and their spacing."""
    if not maps:
        phantom = make_phantom(0, (80, 192, 192), (1.4, 0.73, 0.73))
        yield from ((cut_out(phantom.labels == number), phantom.spacing) for number in LABELS.values())
    for argument in maps:
        path, _, chosen = argument.partition(":")
        image = sitk.ReadImage(path)
        labels = sitk.GetArrayFromImage(image)
        numbers = [int(number) for number in chosen.split(",")] if chosen else np.unique(labels[labels > 0]).tolist()
        for number in numbers:
            yield cut_out(labels == number), image.GetSpacing()[::-1]


def cut_out(mask: np.ndarray) -> np.ndarray:
    return np.pad(mask[ndimage.find_objects(mask.astype(np.uint8))[0]], 6)


def changed(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Three other masks, as in this module's docstring. Slices are those along the first axis."""
    yield np.roll(mask, (2, 2, 2), axis=(0, 1, 2))
    half = np.arange(mask.shape[1]) > mask.shape[1] // 2
    yield mask | (ndimage.binary_dilation(mask, iterations=4) & half[:, None])
    shown = np.flatnonzero(mask.any(axis=(1, 2)))
    yield mask & (np.arange(len(mask)) < shown[-1] - len(shown) // 5)[:, None, None]


def main(maps: list[str]) -> None:
    rows = []
    for mask, spacing in structures(maps):
        rows += [[measure(other, mask, spacing) for measure in DEFINITIONS.values()] for other in changed(mask)]
    values = np.array(rows)
    ratios = values / values[:, :1]
    print(f"{len(values)} masks of {', '.join(Path(text).name for text in maps) or 'a phantom'}\n")
    print(
        "| definition and tool | median, mm | ratio to volprompt: median | smallest | largest |\n|---|---|---|---|---|"
    )
    for column, name in enumerate(DEFINITIONS):
        of = ratios[:, column]
        print(
            f"| {name} | {np.median(values[:, column]):.3f} | {np.median(of):.2f} | {of.min():.2f} | {of.max():.2f} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])

"""Masks and clicks become the prompt table: every candidate prompt of a volume, whatever the schemes make of them.

Coordinates are (x, y) in pixels of the frame with pixel centres at whole numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from volprompt.errors import VolpromptError
from volprompt.files import read_table, write_table
from volprompt.identity import NO_SETTINGS, digest_of_intact, write_identity
from volprompt.logs import Progress, logger
from volprompt.prompts.available import NEGATIVE_CLICK
from volprompt.volumes.converted import read_reference, read_volume_table
from volprompt.volumes.references import structure_mask

# Share of the deepest pixel's depth that a pixel has to have for a point that is spread.
DEEP_ENOUGH = 0.5
SCHEMA_VERSION = "2"

COLUMNS = {
    "volume": "string",
    "structure": "string",
    "slice": "int32",
    "kind": "string",
    "origin": "string",
    "x": "float32",
    "y": "float32",
    "x2": "float32",
    "y2": "float32",
    "area": "Int64",
}


class PromptError(VolpromptError):
    """A click that cannot be a prompt of its volume."""


def centroid(mask: np.ndarray) -> tuple[float, float]:
    """Return the centre of mass (x, y) of a 2D mask, as the paper's points; it can lie outside a concave structure."""
    y, x = np.nonzero(mask)
    return float(x.mean()), float(y.mean())


def interior_point(mask: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> tuple[float, float]:
    """Return the pixel (x, y) of a 2D mask that lies deepest inside, by the Euclidean distance transform.

    spacing: millimetres along (y, x). The border of the frame counts as a border of the mask. If several pixels are
    equally deep, the one nearest the centroid is taken, then the first in reading order.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1]
    y, x = np.nonzero(np.isclose(depth, depth.max()))
    centre_x, centre_y = centroid(mask)
    nearest = np.argmin(np.hypot((x - centre_x) * spacing[1], (y - centre_y) * spacing[0]))
    return float(x[nearest]), float(y[nearest])


def skeleton_point(mask: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> tuple[float, float]:
    """Return the pixel (x, y) of a 2D mask's skeleton that is nearest the centroid: the first one in reading order.

    spacing: millimetres along (y, x). In a bent structure, such as cartilage, it lies inside and half way along it. The
    skeleton is that of Zhang and Suen (1984), by scikit-image.
    """
    from skimage.morphology import skeletonize

    y, x = np.nonzero(skeletonize(np.pad(mask, 1))[1:-1, 1:-1])
    centre_x, centre_y = centroid(mask)
    nearest = np.argmin(np.hypot((x - centre_x) * spacing[1], (y - centre_y) * spacing[0]))
    return float(x[nearest]), float(y[nearest])


def spread_points(
    mask: np.ndarray, given: np.ndarray, count: int, spacing: tuple[float, float]
) -> list[tuple[float, float]]:
    """Choose pixels (x, y) of a 2D mask that lie far from each other and from the points that are given.

    mask: bool (y, x), not empty; given: float (n, 2), points (x, y); spacing: millimetres along (y, x). Farthest-point
    sampling: each is the pixel whose nearest point so far is farthest away, the first in reading order. As a person
    would not click on an edge, only pixels are taken that are at least half as deep inside as the deepest one; there
    may be fewer of them than `count`.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1]
    y, x = np.nonzero(depth >= DEEP_ENOUGH * depth.max())
    millimetres = np.stack([x * spacing[1], y * spacing[0]], axis=1)
    away = np.full(len(x), np.inf)
    for point in np.asarray(given, float) * spacing[::-1]:
        away = np.minimum(away, np.hypot(*(millimetres - point).T))
    chosen: list[tuple[float, float]] = []
    while len(chosen) < count and away.max() > 0:
        farthest = int(away.argmax())
        chosen.append((float(x[farthest]), float(y[farthest])))
        away = np.minimum(away, np.hypot(*(millimetres - millimetres[farthest]).T))
    return chosen


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the tight box (x, y, x2, y2) of a 2D mask, maxima inclusive."""
    y, x = np.nonzero(mask)
    return int(x.min()), int(y.min()), int(x.max()), int(y.max())


def structure_prompts(mask: np.ndarray, spacing: tuple[float, float]) -> list[dict]:
    """Return centroid, interior point, skeleton point and box of every slice that shows a structure.

    mask: bool (slice, y, x); spacing: millimetres along (y, x). Rows hold slice, kind, origin, coordinates and area
    (pixels).
    """
    rows: list[dict] = []
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        box = bounding_box(mask[index])
        left, top, right, bottom = box
        crop = mask[index, top : bottom + 1, left : right + 1]
        shared = {"slice": int(index), "area": int(crop.sum())}
        points = {
            "centroid": centroid(crop),
            "interior": interior_point(crop, spacing),
            "skeleton": skeleton_point(crop, spacing),
        }
        for origin, (x, y) in points.items():
            rows.append({**shared, "kind": "point", "origin": origin, "x": x + left, "y": y + top})
        corners = dict(zip(("x", "y", "x2", "y2"), box, strict=True))
        rows.append({**shared, "kind": "box", "origin": "bounding_box", **corners})
    return rows


def click_prompts(clicks: Iterable[Mapping], shape: Sequence[int], areas: Mapping[tuple[str, int], int]) -> list[dict]:
    """Return the rows of one volume's clicks, in their order.

    clicks: rows with structure, slice, x, y and label; of several ones without a label on one structure and slice the
        last one counts.
    shape: of the volume's frames, (slice, y, x).
    areas: pixels of the reference by structure and slice.

    Raises PromptError for a click outside the frames.
    """
    rows: dict[object, dict] = {}
    for click in clicks:
        inside = (
            0 <= click["slice"] < shape[0]
            and -0.5 <= click["y"] <= shape[1] - 0.5
            and -0.5 <= click["x"] <= shape[2] - 0.5
        )
        if not inside:
            raise PromptError(
                f"click on '{click['structure']}' at slice {click['slice']}, x {click['x']:g}, y {click['y']:g} lies "
                f"outside the frames: {shape[0]} slices of {shape[2]} x {shape[1]} pixels; correct the clicks table"
            )
        area = areas.get((click["structure"], click["slice"]))
        place = {key: click[key] for key in ("structure", "slice", "x", "y")}
        label = click.get("label")
        row = {**place, "kind": "point", "origin": NEGATIVE_CLICK if label == 0 else "click", "area": area}
        rows[(place["structure"], place["slice"]) if label is None else len(rows)] = row
    return list(rows.values())


def volume_prompts(
    reference: np.ndarray | None,
    labels: Mapping[str, Sequence[int]],
    clicks: Iterable[Mapping],
    shape: Sequence[int],
    spacing: tuple[float, float],
) -> pd.DataFrame:
    """Return all candidate prompts of one volume, as a prompt table without the volume's name.

    reference: label map (slice, y, x), or None.
    labels: label numbers by structure.
    clicks: the volume's clicks, rows with structure, slice, x and y.
    shape: of the frames, (slice, y, x).
    spacing: millimetres along (y, x).

    Raises PromptError for a click outside the frames.
    """
    rows: list[dict] = []
    if reference is not None:
        for name, numbers in labels.items():
            mask = structure_mask(reference, numbers)
            rows += [{"structure": name, **row} for row in structure_prompts(mask, spacing)]
    areas = {(row["structure"], row["slice"]): row["area"] for row in rows}
    rows += click_prompts(clicks, shape, areas)
    return as_prompt_table(rows)


def as_prompt_table(rows: Iterable[Mapping]) -> pd.DataFrame:
    """Make a table with all columns and the types of the prompt table, even without rows."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)


def extract_shard(
    volumes: str | Path,
    labels: Mapping[str, Sequence[int]],
    clicks: Sequence[Mapping],
    prompts: str | Path,
    identity: Mapping[str, Any] = NO_SETTINGS,
) -> None:
    """Write the prompt table of a converted shard, and its identity.

    volumes: the shard's folder.
    labels: label numbers by structure.
    clicks: rows with volume, structure, slice, x, y.
    prompts: the table to write.
    identity: the settings that reach the table.

    The file's metadata holds the schema's version, the digests of the sources, and under `failed` the volumes whose
    clicks are wrong, with the reason; these have no row.
    """
    made_from = {"volumes": digest_of_intact(volumes)}
    table = read_volume_table(volumes)
    converted = table[table["status"] == "ok"]
    progress = Progress(len(converted))
    tables, failed = [], {}
    for row in converted.itertuples():
        volume_clicks = [click for click in clicks if click["volume"] == row.volume]
        spacing = float(row.spacing[1]), float(row.spacing[2])
        reference = read_reference(volumes, row.volume)
        try:
            candidates = volume_prompts(reference, labels, volume_clicks, list(row.shape), spacing)
        except PromptError as error:
            failed[row.volume] = f"{row.volume}: {error}"
            logger.error("FAILED: %s", failed[row.volume])
            continue
        tables.append(candidates.assign(volume=row.volume))
        counts = candidates["kind"].value_counts()
        progress.step(row.volume, f"{counts.get('point', 0)} points, {counts.get('box', 0)} boxes")
    sources = {row.volume: [row.sha256, row.reference_sha256] for row in converted.itertuples()}
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "coordinates": "pixels of the frame, pixel centres at whole numbers; x2, y2 inclusive",
        "sources": json.dumps(sources),
        "failed": json.dumps(failed),
    }
    whole = pd.concat([as_prompt_table([]), *tables]).astype(COLUMNS)
    write_table(whole, prompts, metadata)
    write_identity(prompts, identity, made_from)


def read_prompts(path: str | Path) -> pd.DataFrame:
    """Read a prompt table."""
    return read_table(path).astype(COLUMNS)

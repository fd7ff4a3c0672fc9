"""Volumes to look through in the report: the worst, the median and the best of each configuration.

All of them go into one HTML file, so each volume is cropped to what there is to see, shown on some of its slices in
fewer pixels, and made coarser until it fits its share of the page. Volumes that several configurations show are there
once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from volprompt.logs import logger
from volprompt.prompts.candidates import read_prompts
from volprompt.report.packing import STEP_MM, frames_sheet
from volprompt.report.pictures import (
    Configuration,
    Level,
    Shown,
    encoded,
    prompted_slices,
    shown_region,
    shown_size,
    shown_slices,
)
from volprompt.report.shards import ShardFiles, StudyDesign, converted_rows
from volprompt.segmentation.masks import mask_path, read_mask
from volprompt.volumes.converted import grid_of_row, read_frames, read_reference
from volprompt.volumes.references import structure_mask

# Characters that all views together may take in the page.
BUDGET = 9_000_000
# Characters for what only joins the parts of an entry: keys, brackets, numbers of volumes and views.
ENTRY = 200
LEVELS = (
    Level(384, 200, 65, 48),
    Level(320, 160, 60, 44),
    Level(288, 120, 55, 40),
    Level(256, 96, 50, 36),
    Level(224, 72, 45, 32),
    Level(208, 56, 40, 28),
    Level(192, 48, 40, 24),
    Level(176, 40, 38, 24),
    Level(160, 32, 35, 22),
    Level(128, 24, 35, 20),
    Level(96, 16, 30, 16),
    Level(64, 8, 30, 0),
)
# Characters per shown pixel of a frame: an estimate on the low side, to leave out levels that will hardly fit.
CHARACTERS_PER_PIXEL = 0.065


def volume_views(
    scores: pd.DataFrame, shards: Sequence[ShardFiles], design: StudyDesign, budget: int = BUDGET
) -> dict[str, Any] | None:
    """What the page's viewer shows, as JSON values; None where there is nothing.

    scores: the study's score table; budget: characters that the JSON text may have. A volume that cannot fit is left
    out, and so is one whose masks are not there.

    `structures` (name, colour) gives the order of all lists by structure. `volumes`: name, depth, axes, the shown
    slices, their size in pixels, the region's size in millimetres, the frames, and masks and surfaces of the
    reference. `configurations`: experiment, model, scheme, the number of ranked volumes, `views` (number of the volume,
    Dice, masks, surfaces, prompts, Dice by slice, where to start), and which view each of the `roles` has.
    """
    chosen = chosen_volumes(scores)
    wanted: dict[str, list[Configuration]] = {}
    for configuration, roles in chosen.items():
        for volume in dict.fromkeys(roles.values()):
            wanted.setdefault(volume, []).append(configuration)
    names = shown_structures(design)
    dices = _dices(scores[scores["volume"].isin(list(wanted))])
    views: dict[str, Any] = {
        "structures": [{"name": name, "colour": design.colours[name]} for name in names],
        "step": STEP_MM,
        "volumes": [],
        "configurations": [],
    }
    left = budget - characters(views) - sum(characters(key) + ENTRY for key in chosen)
    weight = sum(_weight(own) for own in wanted.values())
    made: dict[tuple[Configuration, str], dict[str, Any]] = {}
    for shard in shards:
        rows = converted_rows(shard)
        here = [volume for volume in wanted if volume in rows]
        if not here:
            continue
        table = read_prompts(shard.prompts)
        for volume in here:
            own = wanted[volume]
            share = int(left * _weight(own) / weight)
            weight -= _weight(own)
            shown = _read(volume, rows[volume], shard, own, table[table["volume"] == volume], design, names)
            own_dices = {key: dices.get((*key, volume), {}) for key in own}
            fitted = _fitted(shown, names, own_dices, share) if shown else None
            if fitted is None:
                continue
            picture, seen, size = fitted
            left -= size
            for configuration, view in seen.items():
                made[configuration, volume] = {"volume": len(views["volumes"]), **view}
            views["volumes"].append(picture)
    for configuration, roles in chosen.items():
        found = {role: made[configuration, volume] for role, volume in roles.items() if (configuration, volume) in made}
        if found:
            views["configurations"].append(_configuration(configuration, found, scores))
    return views if views["configurations"] else None


def chosen_volumes(scores: pd.DataFrame) -> dict[Configuration, dict[str, str]]:
    """The volumes shown of each (experiment, model, scheme): `worst`, `median` and `best` by combined Dice.

    Of equal Dice the first by name; the median of an even number is the lower one. A configuration that has masks but
    no Dice, since nothing has a reference, shows its first volume by name as `example`; one without masks is left out.
    """
    chosen: dict[Configuration, dict[str, str]] = {}
    combined = scores[(scores["structure"] == "combined") & (scores["status"] != "failed")]
    for key, table in combined.groupby(["experiment", "model", "scheme"], sort=False):
        ranked = table.dropna(subset="dice").sort_values(["dice", "volume"])
        configuration = str(key[0]), str(key[1]), str(key[2])
        if len(ranked):
            best = ranked.loc[ranked["dice"] == ranked["dice"].max(), "volume"].min()
            volumes = ranked["volume"].tolist()
            chosen[configuration] = {
                "worst": str(volumes[0]),
                "median": str(volumes[(len(volumes) - 1) // 2]),
                "best": str(best),
            }
        else:
            chosen[configuration] = {"example": str(table["volume"].min())}
    return chosen


def shown_structures(design: StudyDesign) -> list[str]:
    """The scored structures and those that only a scheme names, in order."""
    return list(dict.fromkeys([*design.scored, *(n for s in design.schemes.values() for n in s.structures or [])]))


def _weight(configurations: Sequence[Configuration]) -> float:
    """What a volume takes of the page: its frames and reference, and the masks of its configurations."""
    return 3.0 + len(configurations)


def _dices(scores: pd.DataFrame) -> dict[tuple[str, str, str, str], dict[str, float]]:
    """The defined Dice values by experiment, model, scheme and volume, then structure."""
    found: dict[tuple[str, str, str, str], dict[str, float]] = {}
    for row in scores.dropna(subset="dice").itertuples():
        key = row.experiment, row.model, row.scheme, row.volume
        found.setdefault(key, {})[row.structure] = round(float(row.dice), 4)
    return found


def _configuration(key: Configuration, found: Mapping[str, Any], scores: pd.DataFrame) -> dict[str, Any]:
    """One configuration's entry; roles of one volume share its view."""
    of = (scores["experiment"] == key[0]) & (scores["model"] == key[1]) & (scores["scheme"] == key[2])
    ranked = of & (scores["structure"] == "combined") & scores["dice"].notna()
    views = list({id(view): view for view in found.values()}.values())
    return {
        "experiment": key[0],
        "model": key[1],
        "scheme": key[2],
        "ranked": int(ranked.sum()),
        "views": views,
        "roles": {role: next(i for i, view in enumerate(views) if view is own) for role, own in found.items()},
    }


def _read(
    volume: str,
    row: Any,
    shard: ShardFiles,
    configurations: Sequence[Configuration],
    table: pd.DataFrame,
    design: StudyDesign,
    names: Sequence[str],
) -> Shown | None:
    """Read a volume once for all its configurations; None where none of them has masks."""
    grid = grid_of_row(row)
    predicted: dict[Configuration, dict[str, np.ndarray]] = {}
    for configuration in configurations:
        experiment, model, scheme = configuration
        paths = {name: mask_path(shard.masks[experiment, model], scheme, volume, name) for name in names}
        masks = {name: np.packbits(read_mask(path, grid), axis=-1) for name, path in paths.items() if path.exists()}
        if masks:
            predicted[configuration] = masks
    if not predicted:
        logger.warning("%s: its masks are not there; the report's viewer leaves it out", volume)
        return None
    labels = read_reference(shard.volumes, volume)
    reference = (
        {}
        if labels is None
        else {
            name: np.packbits(structure_mask(labels, design.structures[name]), axis=-1)
            for name in names
            if design.structures[name]
        }
    )
    schemes = dict.fromkeys(scheme for _, _, scheme in predicted)
    prompts = {scheme: design.prompts(scheme, table, grid) for scheme in schemes}
    video = frozenset(scheme for scheme in schemes if design.schemes[scheme].predictor == "video")
    frames = read_frames(shard.volumes, volume)
    return Shown(volume, grid, frames, reference, predicted, prompts, video, tuple(design.scored))


def _fitted(
    shown: Shown, names: Sequence[str], dices: Mapping[Configuration, Mapping[str, float]], share: int
) -> tuple[dict[str, Any], dict[Configuration, dict[str, Any]], int] | None:
    """The volume at the finest level whose JSON text has at most `share` characters; None where none has."""
    region = shown_region(shown)
    height, width = region.rows[1] - region.rows[0], region.columns[1] - region.columns[0]
    per_pixel = CHARACTERS_PER_PIXEL
    for level in LEVELS:
        rows, columns = shown_size(height, width, shown.grid.spacing[1:], level.pixels)
        slices = shown_slices(region.slices, prompted_slices(shown), level.slices)
        pixels = rows * columns * len(slices)
        if pixels * per_pixel > share and level is not LEVELS[-1]:
            continue
        sheet = frames_sheet(region.crop(shown.frames[slices]), (rows, columns), level.quality)
        if len(sheet.data) > share:
            per_pixel = 0.9 * len(sheet.data) / pixels
            continue
        picture, views = encoded(shown, names, region, slices, sheet, level)
        views = {key: {"dice": dict(dices[key]), **view} for key, view in views.items()}
        size = characters([picture, list(views.values())]) + ENTRY * len(views)
        if size <= share:
            return picture, views, size
        per_pixel = 0.9 * size / pixels
    logger.warning("%s: does not fit the report's viewer and is left out of it", shown.name)
    return None


def characters(value: Any) -> int:
    """Length of a value's JSON text within HTML, where each of < > & ' takes six characters."""
    text = json.dumps(value)
    return len(text) + 5 * sum(text.count(character) for character in "<>&'")

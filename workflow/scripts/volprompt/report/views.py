"""The volumes of the report's viewer: the worst, the median and the best of each configuration.

All of them go into one HTML file. So each volume is cropped to its masks and prompts, shown on some of its slices in
fewer pixels, and made coarser until it fits its share of the page. A volume that several configurations show is stored
once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from volprompt.logs import logger
from volprompt.numbers import KINDS
from volprompt.prompts.candidates import read_prompts
from volprompt.report.packing import STEP_MM, frames_sheet
from volprompt.report.pictures import encode_volume
from volprompt.report.rounds import encode_rounds, read_shown_rounds
from volprompt.report.shards import ShardFiles, StudyDesign, converted_rows
from volprompt.report.shown import (
    Configuration,
    Level,
    ShownRounds,
    ShownVolume,
    prompted_slices,
    shown_region,
    shown_size,
    shown_slices,
)
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
    scores: pd.DataFrame,
    shards: Sequence[ShardFiles],
    design: StudyDesign,
    budget: int = BUDGET,
    chosen: Mapping[Configuration, Mapping[str, str]] | None = None,
) -> dict[str, Any] | None:
    """Return what the page's viewer shows, as values for JSON; None if there is nothing.

    scores: the study's score table.
    shards: the study's files.
    design: what the report needs of the configuration.
    budget: characters that the JSON text may have.
    chosen: the volumes of each configuration by their role; by default those of `chosen_volumes`.

    A volume that does not fit is left out, and so is one without masks. The values are:

    * `structures` (name, colour), whose order is that of all lists by structure;
    * `volumes`: name, depth, axes, the shown slices, their size in pixels, the region's size in millimetres, the
      frames, and masks and surfaces of the reference;
    * `configurations`: experiment, model, scheme, the number of ranked volumes, `views` (number of the volume, Dice,
      masks, surfaces, prompts, Dice by slice, the slice, row and column to start at, and for a scheme with corrections
      what `encode_rounds` returns), and which view each of the `roles` has.
    """
    chosen = chosen_volumes(scores) if chosen is None else chosen
    shown_by: dict[str, list[Configuration]] = {}
    for configuration, roles in chosen.items():
        for name in dict.fromkeys(roles.values()):
            shown_by.setdefault(name, []).append(configuration)
    names = shown_structures(design)
    dices = _defined_dices(scores[scores["volume"].isin(list(shown_by))])
    views: dict[str, Any] = {
        "structures": [{"name": name, "colour": design.colours[name]} for name in names],
        "step": STEP_MM,
        "volumes": [],
        "configurations": [],
    }
    left = budget - characters(views) - sum(characters(key) + ENTRY for key in chosen)
    weight = sum(_weight(configurations) for configurations in shown_by.values())
    view_of: dict[tuple[Configuration, str], dict[str, Any]] = {}
    for shard in shards:
        rows = converted_rows(shard)
        in_shard = [name for name in shown_by if name in rows]
        if not in_shard:
            continue
        table = read_prompts(shard.prompts)
        for name in in_shard:
            configurations = shown_by[name]
            share = int(left * _weight(configurations) / weight)
            weight -= _weight(configurations)
            volume = _read_volume(rows[name], shard, configurations, table[table["volume"] == name], design)
            volume_dices = {key: dices.get((*key, name), {}) for key in configurations}
            fitting = _encode_fitting(volume, names, volume_dices, share) if volume else None
            if fitting is None:
                continue
            picture, views_of_volume, size = fitting
            left -= size
            for configuration, view in views_of_volume.items():
                view_of[configuration, name] = {"volume": len(views["volumes"]), **view}
            views["volumes"].append(picture)
    for configuration, roles in chosen.items():
        of_roles = {
            role: view_of[configuration, name] for role, name in roles.items() if (configuration, name) in view_of
        }
        if of_roles:
            views["configurations"].append(_configuration_entry(configuration, of_roles, scores))
    return views if views["configurations"] else None


def chosen_volumes(scores: pd.DataFrame) -> dict[Configuration, dict[str, str]]:
    """Choose the volumes that each configuration shows: `worst`, `median` and `best` by combined Dice.

    scores: the study's score table. Among volumes of equal Dice the first by name is chosen; the median of an even
    number is the lower one. A configuration with masks but without any Dice, since nothing has a reference, shows its
    first volume by name as `example`; one without masks is left out.
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
    """Return the scored structures and those that only a scheme names, in order."""
    return list(dict.fromkeys([*design.scored, *(n for s in design.schemes.values() for n in s.structures or [])]))


def _weight(configurations: Sequence[Configuration]) -> float:
    """Return how much of the page a volume takes: frames and reference, and the masks of its configurations."""
    return 3.0 + len(configurations)


def _defined_dices(scores: pd.DataFrame) -> dict[tuple[str, str, str, str], dict[str, float]]:
    """Return the defined Dice values by experiment, model, scheme and volume, then structure."""
    dices: dict[tuple[str, str, str, str], dict[str, float]] = {}
    for row in scores.dropna(subset="dice").itertuples():
        key = row.experiment, row.model, row.scheme, row.volume
        dices.setdefault(key, {})[row.structure] = round(float(row.dice), KINDS["score"].digits)
    return dices


def _configuration_entry(key: Configuration, of_roles: Mapping[str, Any], scores: pd.DataFrame) -> dict[str, Any]:
    """Return the entry of a configuration. of_roles: its views by role; roles of one volume share its view."""
    rows = (scores["experiment"] == key[0]) & (scores["model"] == key[1]) & (scores["scheme"] == key[2])
    ranked = rows & (scores["structure"] == "combined") & scores["dice"].notna()
    views = list({id(view): view for view in of_roles.values()}.values())
    return {
        "experiment": key[0],
        "model": key[1],
        "scheme": key[2],
        "ranked": int(ranked.sum()),
        "views": views,
        "roles": {
            role: next(i for i, view in enumerate(views) if view is of_role) for role, of_role in of_roles.items()
        },
    }


def _read_volume(
    row: Any,
    shard: ShardFiles,
    configurations: Sequence[Configuration],
    table: pd.DataFrame,
    design: StudyDesign,
) -> ShownVolume | None:
    """Read a volume once for all its configurations; None if none of them has masks.

    row: of the shard's volume table.
    shard: its files.
    configurations: that show the volume.
    table: the volume's rows of the prompt table.
    design: what the report needs of the configuration.
    """
    volume, names, grid = row.volume, shown_structures(design), grid_of_row(row)
    predicted: dict[Configuration, dict[str, np.ndarray]] = {}
    rounds: dict[Configuration, ShownRounds] = {}
    for configuration in configurations:
        experiment, model, scheme = configuration
        paths = {name: mask_path(shard.masks[experiment, model], scheme, volume, name) for name in names}
        masks = {name: np.packbits(read_mask(path, grid), axis=-1) for name, path in paths.items() if path.exists()}
        if not masks:
            continue
        predicted[configuration] = masks
        if design.schemes[scheme].corrections:
            corrected = read_shown_rounds(shard, configuration, volume, grid, masks)
            rounds |= {configuration: corrected} if corrected else {}
    if not predicted:
        logger.warning("%s: its masks are missing; the report's viewer leaves it out", volume)
        return None
    label_map = read_reference(shard.volumes, volume)
    reference, ignored = {}, None
    if label_map is not None:
        numbers_of = {name: design.labels[name] for name in names if design.labels[name]}
        masks_of = {name: structure_mask(label_map, numbers) for name, numbers in numbers_of.items()}
        reference = {name: np.packbits(mask, axis=-1) for name, mask in masks_of.items()}
        ignored = np.packbits(structure_mask(label_map, design.ignored), axis=-1) if design.ignored else None
    schemes = dict.fromkeys(scheme for _, _, scheme in predicted)
    prompts = {scheme: design.prompts(scheme, table, grid) for scheme in schemes}
    carried = frozenset(scheme for scheme in schemes if not design.schemes[scheme].prompts_every_slice)
    frames = read_frames(shard.volumes, volume)
    scored = tuple(design.scored)
    return ShownVolume(volume, grid, frames, reference, predicted, prompts, carried, scored, rounds, ignored)


def _encode_fitting(
    volume: ShownVolume, names: Sequence[str], dices: Mapping[Configuration, Mapping[str, float]], share: int
) -> tuple[dict[str, Any], dict[Configuration, dict[str, Any]], int] | None:
    """Encode a volume at the finest level at which its JSON text has at most `share` characters.

    volume: at full resolution; names: of the shown structures; dices: Dice by configuration and structure. Returns the
    picture, the views and the number of characters; None if no level fits.
    """
    region = shown_region(volume)
    height, width = region.rows[1] - region.rows[0], region.columns[1] - region.columns[0]
    per_pixel = CHARACTERS_PER_PIXEL
    for level in LEVELS:
        rows, columns = shown_size(height, width, volume.grid.spacing[1:], level.pixels)
        slices = shown_slices(region.slices, prompted_slices(volume), level.slices)
        pixels = rows * columns * len(slices)
        if pixels * per_pixel > share and level is not LEVELS[-1]:
            continue
        sheet = frames_sheet(region.crop(volume.frames[slices]), (rows, columns), level.quality)
        if len(sheet.data) > share:
            per_pixel = 0.9 * len(sheet.data) / pixels
            continue
        picture, views = encode_volume(volume, names, region, slices, sheet, level)
        views = {key: {"dice": dict(dices[key]), **view} for key, view in views.items()}
        for key in volume.rounds:
            views[key] |= encode_rounds(volume, key, names, region, slices, sheet.size)
        size = characters([picture, list(views.values())]) + ENTRY * len(views)
        if size <= share:
            return picture, views, size
        per_pixel = 0.9 * size / pixels
    logger.warning("%s: does not fit the report's viewer and is left out of it", volume.name)
    return None


def characters(value: Any) -> int:
    """Return the length of a value's JSON text within HTML, where each of < > & ' takes six characters."""
    text = json.dumps(value)
    return len(text) + 5 * sum(text.count(character) for character in "<>&'")

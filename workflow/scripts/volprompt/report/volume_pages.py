"""A page for every volume of a shard: the report's viewer with all configurations of that volume."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from volprompt.files import read_table, write_text
from volprompt.logs import Progress
from volprompt.report.rendering import page_environment
from volprompt.report.shards import ShardFiles, StudyDesign, converted_rows
from volprompt.report.shown import Configuration
from volprompt.report.sources import Sources
from volprompt.report.views import BUDGET, shown_structures, volume_views
from volprompt.segmentation.masks import mask_path
from volprompt.volumes.converted import frames_path, read_volume_table
from volprompt.volumes.images.formats import format_of


def page_of(volumes: str | Path, volume: str) -> str:
    """Where the page of a volume lies, from that of the report. volumes: folder of its converted shard."""
    return f"volumes/{Path(volumes).name}/{volume}.html"


def write_volume_pages(
    *,
    shard: ShardFiles,
    scores: Sequence[str | Path],
    design: StudyDesign,
    folder: str | Path,
    paths: Literal["show", "hide"] = "show",
) -> None:
    """Write `{volume}.html` for each volume of a shard that has masks.

    shard: its files; scores: its score tables, of all experiments and models; design: what the report needs of the
    configuration; paths: `hide` shows of absolute paths the last part alone. A volume without any mask has no page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.concat([read_table(path) for path in scores], ignore_index=True)
    rows = converted_rows(shard)
    sources = Sources(read_volume_table(shard.volumes), design.sources)
    configurations = configurations_by_volume(table, design)
    progress = Progress(len(rows))
    template = page_environment().get_template("volume.html.j2")
    for name, row in rows.items():
        own = table[table["volume"] == name]
        shown = configurations.get(name, [])
        chosen = {configuration: {"volume": name} for configuration in shown}
        views = volume_views(own, [shard], design, BUDGET, chosen) if chosen else None
        if chosen:
            source = sources.image(name, str(row.source))
            html = template.render(
                volume=name,
                views=views,
                commands=viewer_commands(source, shard, shown[0], name, design, paths),
                as_it_is=opens_elsewhere(source),
                paths=paths,
            )
            write_text(folder / f"{name}.html", html)
        progress.step(name, "shown" if views is not None else "nothing to show")


def configurations_by_volume(scores: pd.DataFrame, design: StudyDesign) -> dict[str, list[Configuration]]:
    """Return the study's configurations that have masks of each volume, in the order of their rows.

    scores: rows of score tables, of which those of schemes that the study no longer has are left out.
    """
    own = scores[(scores["structure"] == "combined") & (scores["status"] != "failed")]
    found: dict[str, list[Configuration]] = {}
    for volume, *key in own[["volume", "experiment", "model", "scheme"]].itertuples(index=False):
        experiment, model, scheme = map(str, key)
        if experiment in design.experiments and scheme in design.experiments[experiment][1]:
            found.setdefault(str(volume), []).append((experiment, model, scheme))
    return found


def viewer_commands(
    source: str,
    shard: ShardFiles,
    configuration: Configuration,
    volume: str,
    design: StudyDesign,
    paths: Literal["show", "hide"],
) -> list[str]:
    """Return the lines that open an image with masks of a configuration in ITK-SNAP and in 3D Slicer.

    A source that they do not both open by its name gives way to the volume's frames. ITK-SNAP takes one mask on the
    image's own grid, and any number of them on others. Paths are as the study knows them, or `hide`: names of files
    alone.
    """
    experiment, model, scheme = configuration
    folder, converted = Path(shard.masks[experiment, model]), Path(shard.volumes)
    names = [name for name in shown_structures(design) if mask_path(folder, scheme, volume, name).exists()]
    if not names:
        return []
    # A job can have its own copies of the results, which are gone when somebody reads this.
    if design.results:
        folder = Path(design.results, "masks", experiment, model, folder.name)
        converted = Path(design.results, "volumes", converted.name)
    masks = [mask_path(folder, scheme, volume, name) for name in names]
    as_it_is = opens_elsewhere(source)
    files = [Path(source) if as_it_is else frames_path(converted, volume), *masks]
    image, *names = [file.name if paths == "hide" else str(file) for file in files]
    with_masks = ["-s", names[0]] if as_it_is else ["-o", *names]
    # Texts in double quotes, which a shell's single quotes hold as they are.
    load = [f"slicer.util.loadVolume({json.dumps(image, ensure_ascii=False)})"]
    load += [f"slicer.util.loadSegmentation({json.dumps(name, ensure_ascii=False)})" for name in names]
    return [
        shlex.join(["itksnap", "-g", image, *with_masks]),
        shlex.join(["Slicer", "--python-code", "; ".join(load)]),
    ]


def opens_elsewhere(source: str) -> bool:
    """Return whether ITK-SNAP and 3D Slicer both open a source by its name."""
    known = format_of(source)
    return known is not None and known.opens_elsewhere

"""The report: one HTML page that opens offline, with everything a reader of the study asks for, and its figures."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd

from volprompt.columns import CONFIGURATION_COLUMNS, STRUCTURE_COLUMNS, SURFACE_COLUMNS, shown_together
from volprompt.files import write_text
from volprompt.logs import logger
from volprompt.report.answer import answer, best_configuration
from volprompt.report.deviations import deviations
from volprompt.report.facts import (
    grouped_failures,
    model_rows,
    scheme_rows,
    software,
    study_facts,
    undefined_scores,
    volume_remarks,
    without_folders,
)
from volprompt.report.gallery import Gallery, draw_overlays, draw_plots
from volprompt.report.glossary import GLOSSARY
from volprompt.report.methods_text import bibliography, methods_text
from volprompt.report.overlays import median_volume
from volprompt.report.plots import WHISKERS
from volprompt.report.rendering import page_environment, records
from volprompt.report.shards import ShardFiles, StudyDesign, converted_rows
from volprompt.report.sources import Sources
from volprompt.report.study_tables import StudyTables
from volprompt.report.views import volume_views
from volprompt.report.volume_pages import configurations_by_volume, page_of
from volprompt.report.volume_table import volume_table
from volprompt.scores.tolerance import tolerance_text
from volprompt.tables.bootstrap import FEWEST
from volprompt.tables.stored import read_runs
from volprompt.tables.typeset import (
    FAILED_AS_0_HEADING,
    INTERVAL_WORDS,
    MARKS,
    PUBLISHED_NOTE,
    SCORE_WORDS,
    medians_notes,
    published,
)
from volprompt.volumes.converted import read_volume_table

SHOWN_ROWS = 200


def write_report(
    *,
    aggregated: str | Path,
    shards: Sequence[ShardFiles],
    design: StudyDesign,
    title: str,
    example: str | None,
    page: str | Path,
    description: str = "",
    figures_folder: str | Path | None = None,
    print_formats: Sequence[str] = ("pdf",),
    compare_with: str | None = None,
    paths: Literal["show", "hide"] = "show",
    volumes: Literal["chosen", "all"] = "chosen",
    show_volumes: bool = True,
    stamp: str = "",
    today: datetime.date | None = None,
) -> None:
    """Write the page, and its figures as SVG and in further formats for print.

    aggregated: folder of the study's tables.
    shards: the study's files.
    design: what the report needs of the configuration.
    title: of the page.
    example: the volume of the overlay figures; None for the volume whose combined Dice, averaged over the
        configurations, is the median.
    page: the file to write.
    description: a paragraph below the title.
    compare_with: whose published figures stand below the medians.
    paths: `hide` shows no folder of the sources, and of other absolute paths the last part alone.
    volumes: `all` links the page that each volume has of its own, see `write_volume_pages`.
    figures_folder: where the figures go; by default `figures` beside the page.
    print_formats: of the figures, beside SVG.
    show_volumes: whether there are frames and masks to show.
    stamp: a word across page and figures, such as SIMULATED.
    today: the date on the page.

    A table that is missing or empty leaves one sentence in its section.
    """
    tables = StudyTables(Path(aggregated))
    page = Path(page)
    folder = Path(figures_folder) if figures_folder else page.parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    experiments = {name: schemes for name, (_, schemes) in design.experiments.items()}
    runs = read_runs([path for shard in shards for path in shard.masks.values()], experiments)
    converted = pd.concat([read_volume_table(shard.volumes) for shard in shards], ignore_index=True)
    sources = Sources(converted, design.sources, design.results)
    images = [sources.image(row.volume, row.source) for row in converted.itertuples() if row.status == "ok"]
    example_volume = (example or median_volume(tables.scores)) if show_volumes else None
    gallery = Gallery(folder, page.parent, stamp, print_formats)
    draw_plots(gallery, tables, design)
    best = best_configuration(tables.medians)
    named = None if best is None else (str(best["model"]), str(best["scheme"]))
    draw_overlays(gallery, example_volume, shards, design, named)
    shortened = without_folders if paths == "hide" else str
    failures = [
        {**row, "reason": shortened(sources.text(row["volume"], row["reason"]))}
        for row in grouped_failures(tables["failures"])
    ]
    remarks = [
        row._replace(text=shortened(sources.text(row.volume, row.text)))
        for row in volume_remarks(converted, design.groups)
    ]
    models = [{**row, "architecture": shortened(row["architecture"])} for row in model_rows(runs, design)]
    views = volume_views(tables.scores, shards, design) if show_volumes else None
    with_masks = configurations_by_volume(tables.scores, design) if volumes == "all" else {}
    pages = {
        name: page_of(shard.volumes, name) for shard in shards for name in converted_rows(shard) if name in with_masks
    }
    departures = [
        replace(row, here=shortened(row.here))
        for row in deviations(design, len(converted), sorted(runs["precision"].dropna().unique()))
    ]
    reproduces = design.reproduces or compare_with is not None
    html = (
        page_environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            description=description,
            stamp=stamp,
            date=(today or datetime.datetime.now(datetime.UTC).date()).isoformat(),
            scored=list(design.scored),
            columns=[*design.scored, "combined"],
            headings={column.name: column.heading for column in CONFIGURATION_COLUMNS},
            spread_columns=shown_together(STRUCTURE_COLUMNS),
            surface_columns=shown_together(SURFACE_COLUMNS),
            facts=study_facts(tables.scores, converted, runs, design, images if paths == "show" else None),
            models=models,
            schemes=scheme_rows(design),
            deviations=departures,
            reproduces=reproduces,
            answer=answer(
                scores=tables.scores,
                medians=tables.medians,
                ranks=tables["ranks"],
                volumes=converted,
                design=design,
                warnings=sum(remark.warning for remark in remarks),
                departures=len(departures) if reproduces else None,
            ),
            preset=design.preset,
            methods=shortened(methods_text(tables.scores, converted, runs, design)),
            bibliography=bibliography(design),
            software=software(runs),
            medians=records(tables.medians),
            medians_notes=medians_notes(tables.medians, design.scored),
            marks=MARKS,
            failed_as_0=FAILED_AS_0_HEADING if tables.medians["combined_failed"].any() else "",
            interval_words=INTERVAL_WORDS,
            score_words=SCORE_WORDS,
            published=published(compare_with),
            published_note=PUBLISHED_NOTE,
            rows_of=lambda name: records(tables[name]),
            gallery=gallery,
            acceptable_dice=design.scores.acceptable_dice,
            fewest=FEWEST,
            whiskers=WHISKERS,
            tolerance=tolerance_text(tables.scores),
            example=example_volume,
            example_note="as configured" if example else "in the middle of the ranking by mean combined Dice",
            volume_table=volume_table(tables.scores, design.scored),
            pages=pages,
            glossary=GLOSSARY,
            failures=failures[:SHOWN_ROWS],
            failures_total=len(failures),
            undefined=undefined_scores(tables.scores, design.scored),
            unscored=sorted(tables.scores.loc[tables.scores["status"] == "no_reference", "volume"].unique()),
            remarks=remarks[:SHOWN_ROWS],
            remarks_total=len(remarks),
            files=[os.path.relpath(path, page.parent) for path in tables.files],
            views=views,
        )
    )
    write_text(page, html)
    logger.info("The report is %s (%.1f MB)", page, len(html.encode()) / 1e6)

"""The report."""

from pathlib import Path

from volprompt.config import Scheme
from volprompt.logs import logging_to
from volprompt.report import group_by_shard, write_report
from volprompt.shards import StudyDesign

params = snakemake.params

with logging_to(snakemake.log[0], "report"):
    write_report(
        aggregated=Path(snakemake.input.tables[0]).parent,
        shards=group_by_shard(snakemake.input.volumes, snakemake.input.prompts, snakemake.input.masks),
        design=StudyDesign(
            structures=params.structures,
            scored=params.scored,
            schemes={name: Scheme(**scheme) for name, scheme in params.schemes.items()},
            experiments=params.experiments,
        ),
        title=params.settings["title"],
        example=params.settings["example"],
        page=snakemake.output[0],
    )

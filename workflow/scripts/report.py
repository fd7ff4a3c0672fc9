"""The report and its figures."""

from pathlib import Path

from volprompt.logs import logging_to
from volprompt.report.page import write_report
from volprompt.report.shards import StudyDesign, group_by_shard
from volprompt.settings.config import Frames, Inference, Scheme, Scores

params = snakemake.params

with logging_to(snakemake.log[0], "report"):
    write_report(
        aggregated=Path(snakemake.input.tables[0]).parent,
        shards=group_by_shard(snakemake.input.volumes, snakemake.input.prompts, snakemake.input.masks),
        design=StudyDesign(
            labels=params.structures,
            scored=params.scored,
            schemes={name: Scheme(**scheme) for name, scheme in params.schemes.items()},
            experiments=params.experiments,
            groups=params.groups,
            models=params.models,
            frames=Frames(**params.frames),
            inference=Inference(**params.inference),
            scores=Scores(**params.scores),
            preset=params.preset,
            training_runs=params.training_runs,
        ),
        **params.settings,
        page=snakemake.output.page,
        figures_folder=snakemake.output.figures,
    )

"""The study's tables."""

from pathlib import Path

from volprompt.logs import logging_to
from volprompt.tables.aggregate import aggregate

with logging_to(snakemake.log[0], "aggregate"):
    aggregate(
        scores=snakemake.input.scores,
        slices=snakemake.input.slices,
        rounds=snakemake.input.rounds,
        masks=snakemake.input.masks,
        volumes=snakemake.input.volumes,
        scored=snakemake.params.scored,
        every_slice_schemes=snakemake.params.every_slice_schemes,
        groups=snakemake.params.groups,
        tables=Path(snakemake.output.scores).parent,
        correction_clicks=snakemake.params.correction_clicks,
        acceptable_dice=snakemake.params.acceptable_dice,
        experiments=snakemake.params.experiments,
        identity=snakemake.params.identity,
    )

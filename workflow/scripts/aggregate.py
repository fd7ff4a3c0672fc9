"""The study's tables."""

from pathlib import Path

from volprompt.logs import logging_to

with logging_to(snakemake.log[0], "aggregate"):
    from volprompt.tables.aggregate import aggregate
    from volprompt.tables.design import TableDesign

    aggregate(
        scores=snakemake.input.scores,
        slices=snakemake.input.slices,
        rounds=snakemake.input.rounds,
        masks=snakemake.input.masks,
        volumes=snakemake.input.volumes,
        design=TableDesign(**snakemake.params.design),
        tables=Path(snakemake.output.identity).parent,
        identity=snakemake.params.identity,
    )

"""Scores of one experiment, model and shard."""

from volprompt.logs import logging_to

wildcards = snakemake.wildcards

with logging_to(snakemake.log[0], f"score {wildcards.experiment}/{wildcards.model}/{wildcards.shard}"):
    from volprompt.scores.shard import score_shard

    score_shard(
        volumes=snakemake.input.volumes,
        masks=snakemake.input.masks,
        experiment=wildcards.experiment,
        model=wildcards.model,
        schemes=snakemake.params.schemes,
        labels=snakemake.params.labels,
        tolerance_mm=snakemake.params.surface_tolerance_mm,
        scores=snakemake.output.scores,
        slices=snakemake.output.slices,
        rounds=snakemake.output.rounds,
        ignored=snakemake.params.ignored,
        border=snakemake.params.border,
        identity=snakemake.params.identity,
    )

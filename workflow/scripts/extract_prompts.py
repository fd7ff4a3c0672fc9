"""Candidate prompts of one shard's volumes."""

from volprompt.logs import logging_to

with logging_to(snakemake.log[0], f"extract_prompts {snakemake.wildcards.shard}"):
    from volprompt.prompts.candidates import extract_shard

    extract_shard(
        volumes=snakemake.input.volumes,
        labels=snakemake.params.labels,
        clicks=snakemake.params.clicks,
        prompts=snakemake.output.table,
        identity=snakemake.params.identity,
    )

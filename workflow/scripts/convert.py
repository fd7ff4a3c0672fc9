"""Frames and reference label maps of one shard's volumes."""

from volprompt.logs import logging_to

with logging_to(snakemake.log[0], f"convert {snakemake.wildcards.shard}"):
    from volprompt.volumes.convert import convert_shard

    convert_shard(
        rows=snakemake.params.rows,
        frames=snakemake.params.frames,
        labels=snakemake.params.labels,
        folder=snakemake.output[0],
        resample=snakemake.params.resample,
        ignored=snakemake.params.ignored,
        identity=snakemake.params.identity,
    )

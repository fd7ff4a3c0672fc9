"""Masks of one experiment, model and shard."""

from volprompt.logs import logging_to

wildcards = snakemake.wildcards
label = f"segment {wildcards.experiment}/{wildcards.model}/{wildcards.shard}"

with logging_to(snakemake.log[0], label):
    from volprompt.models.devices import lease_gpu
    from volprompt.settings.config import execution_settings

    with lease_gpu(snakemake.resources.get("gpu", 0)):
        from volprompt.segmentation.segment import segment_shard  # torch is imported under the lease

        segment_shard(
            volumes=snakemake.input.volumes,
            prompts=snakemake.input.prompts,
            checkpoint=snakemake.input.checkpoint,
            model=snakemake.params.model,
            schemes=snakemake.params.schemes,
            labels=snakemake.params.labels,
            scored=snakemake.params.scored,
            inference={**snakemake.params.inference, **execution_settings(snakemake.config)},
            masks=snakemake.output[0],
            threads=snakemake.threads,
            ignored=snakemake.params.ignored,
            identity=snakemake.params.identity,
        )

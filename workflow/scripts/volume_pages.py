"""The pages of a shard's volumes."""

from volprompt.logs import logging_to

params, given = snakemake.params, snakemake.input

with logging_to(snakemake.log[0], f"pages of shard {snakemake.wildcards.shard}"):
    from volprompt.identity import digest_of_intact, write_identity
    from volprompt.report.shards import StudyDesign, group_by_shard
    from volprompt.report.volume_pages import write_volume_pages

    made_from = {"volumes": digest_of_intact(given.volumes), "prompts": digest_of_intact(given.prompts)}
    made_from |= {
        f"scores/{job}": digest_of_intact(table) for job, table in zip(params.jobs, given.scores, strict=True)
    }
    (shard,) = group_by_shard([given.volumes], [given.prompts], given.masks, given.rounds)
    write_volume_pages(
        shard=shard,
        scores=given.scores,
        design=StudyDesign.of(params.design),
        folder=snakemake.output[0],
        paths=params.paths,
    )
    write_identity(snakemake.output[0], params.identity, made_from)

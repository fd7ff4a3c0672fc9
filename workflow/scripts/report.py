"""The report and its figures."""

from pathlib import Path

from volprompt.logs import logging_to

params = snakemake.params
tables = Path(snakemake.input.tables[0]).parent

with logging_to(snakemake.log[0], "report"):
    from volprompt.identity import digest_of, digest_of_intact, write_identity
    from volprompt.report.configuration import write_configuration
    from volprompt.report.page import write_report
    from volprompt.report.shards import StudyDesign, group_by_shard

    made_from = {f"prompts/{Path(table).stem}": digest_of_intact(table) for table in snakemake.input.prompts}
    made_from["tables"] = digest_of_intact(tables)
    write_configuration(params.configuration, snakemake.output.configuration)
    write_report(
        aggregated=tables,
        shards=group_by_shard(
            snakemake.input.volumes, snakemake.input.prompts, snakemake.input.masks, snakemake.input.rounds
        ),
        design=StudyDesign.of({**params.design, "configuration": digest_of(params.identity["configuration"])}),
        **params.settings,
        page=snakemake.output.page,
        figures_folder=snakemake.output.figures,
    )
    page, figures = Path(snakemake.output.page), Path(snakemake.output.figures)
    write_identity(page.parent, params.identity, made_from, [page, *sorted(figures.iterdir())])

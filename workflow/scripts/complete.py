"""The end of the study: how much failed, and whether that is acceptable."""

from pathlib import Path

from volprompt.logs import NOTICE, logger, logging_to

with logging_to(snakemake.log[0], "all"):
    from volprompt.files import write_text
    from volprompt.identity import require_identity, write_identity
    from volprompt.tables.failures import check_failures

    given, params = snakemake.input, snakemake.params
    summary = check_failures(given.scores, given.failures, params.allowed, params.skip_invalid)
    report = Path(params.report)
    place = report.resolve().as_uri() if report.exists() else f"{report} in storage"
    logger.log(NOTICE, "%s; the report is %s", summary, place)
    write_text(snakemake.output.summary, summary + "\n")
    made_from = {"tables": require_identity(Path(given.tables).parent).digest}
    write_identity(snakemake.output.summary, params.identity, made_from)

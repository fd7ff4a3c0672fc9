"""The end of the study: how much failed, and whether that is acceptable."""

from pathlib import Path

from volprompt.logs import NOTICE, logger, logging_to

with logging_to(snakemake.log[0], "all"):
    from volprompt.files import write_text
    from volprompt.identity import digest_of_intact, write_identity
    from volprompt.tables.failures import check_failures

    given, params = snakemake.input, snakemake.params
    summary = check_failures(given.scores, given.failures, params.allowed, params.skip_invalid)
    logger.log(NOTICE, "%s; the report is %s", summary, Path(given.report).resolve().as_uri())
    write_text(snakemake.output.summary, summary + "\n")
    write_identity(snakemake.output.summary, params.identity, {"tables": digest_of_intact(Path(given.scores).parent)})

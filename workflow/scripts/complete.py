"""The end of the study: how much failed, and whether that is acceptable."""

from volprompt.files import write_text
from volprompt.logs import logger, logging_to
from volprompt.tables.failures import check_failures

with logging_to(snakemake.log[0], "all"):
    given, params = snakemake.input, snakemake.params
    summary = check_failures(given.scores, given.failures, params.allowed, params.skip_invalid)
    logger.info("%s; the report is %s", summary, snakemake.input.report)
    write_text(snakemake.output[0], summary + "\n")

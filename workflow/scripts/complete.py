"""The end of the study: how much failed, and whether that is acceptable."""

from volprompt.files import write_text
from volprompt.logs import logger, logging_to
from volprompt.tables import check_failures

with logging_to(snakemake.log[0], "all"):
    summary = check_failures(snakemake.input.scores, snakemake.input.failures, snakemake.params.allowed)
    logger.info("%s; the report is %s", summary, snakemake.input.report)
    write_text(snakemake.output[0], summary + "\n")

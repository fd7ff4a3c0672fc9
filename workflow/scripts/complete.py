"""The end of the study: how much failed, and whether that is acceptable."""

from volprompt.check import check_outcome
from volprompt.files import write_text
from volprompt.logs import logger, logging_to

with logging_to(snakemake.log[0], "all"):
    given, params = snakemake.input, snakemake.params
    summary = check_outcome(given.scores, given.failures, params.allowed, params.on_invalid)
    logger.info("%s; the report is %s", summary, snakemake.input.report)
    write_text(snakemake.output[0], summary + "\n")

"""Every fault that the headers of the sample sheet's files show."""

from volprompt.check import check_volumes, report_faults
from volprompt.files import write_text
from volprompt.logs import logging_to

with logging_to(snakemake.log[0], "check"):
    rows = snakemake.params.rows
    faults = check_volumes(rows, snakemake.params.axis, snakemake.params.resample, snakemake.params.table)
    report_faults(faults, len(rows), "stop", snakemake.params.table)
    write_text(snakemake.output[0], f"{len(rows)} volumes without fault in a header\n")

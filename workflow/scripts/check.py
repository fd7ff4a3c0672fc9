"""Every fault that the headers of the sample sheet's files show."""

from volprompt.logs import logging_to

with logging_to(snakemake.log[0], "check"):
    from volprompt.files import write_text
    from volprompt.study.check import check_sheet

    params = snakemake.params
    check_sheet(params.rows, params.axis, params.resample, "stop", params.table)
    write_text(snakemake.output[0], f"{len(params.rows)} volumes without fault in a header\n")

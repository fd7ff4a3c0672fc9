"""Every fault that the headers of the sample sheet's files show."""

from volprompt.logs import logging_to

with logging_to(snakemake.log[0], "check"):
    from volprompt.files import write_text
    from volprompt.study.check import check_sheet
    from volprompt.words import plural

    params = snakemake.params
    whole = len(params.rows) == params.volumes
    check_sheet(params.rows, params.axis, params.resample, params.on_invalid, params.table, whole)
    for path in snakemake.output:
        write_text(path, f"The headers of {plural(len(params.rows), 'volume')} were checked\n")

# Part of no other target: a run does the same for the shards that it is about to convert, before its first job (onstart).
rule check:
    """Check the header of every file in the sample sheet."""
    input:
        STUDY.sources(STUDY.volumes),
    output:
        "<results>/check/passed.txt",
    log:
        "<logs>/check.log",
    localrule: True
    conda:
        "../envs/imaging.yaml"
    params:
        rows=[row.plain() for row in STUDY.volumes],
        axis=STUDY.settings.frames.axis,
        resample=STUDY.settings.references.resample,
        table=f"{STUDY.settings.results}/check/faults.tsv",
    message:
        "Check the headers of all volumes and references"
    script:
        "../workflow/scripts/check.py"

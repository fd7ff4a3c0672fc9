# A target by itself, which always runs.
rule check:
    """Check the header of every file in the sample sheet."""
    log:
        "<logs>/check.log",
    localrule: True
    conda:
        "../envs/imaging.yaml"
    params:
        rows=[row.plain() for row in STUDY.volumes],
        volumes=len(STUDY.volumes),
        axis=STUDY.settings.frames.axis,
        resample=STUDY.settings.references.resample,
        on_invalid="stop",
        table=f"{STUDY.settings.results}/check/faults.tsv",
    message:
        "Check the headers of all volumes and references"
    script:
        "../workflow/scripts/check.py"


# One job for all shards that planning found in need of conversion, so that every fault is told before the first of them
# is converted. The stamps of the other shards are files that no rule makes.
use rule check as check_headers with:
    input:
        expand("<results>/.stamps/headers/{shard}", shard=SHARDS_TO_CONVERT),
    output:
        expand("<results>/.stamps/volumes/{shard}", shard=SHARDS_TO_CONVERT),
    log:
        "<logs>/check_headers.log",
    localrule: True  # not inherited; only the process that plans knows the shards
    params:
        rows=rows_to_convert,
        on_invalid=STUDY.settings.on_invalid,
    message:
        "Check the headers of the volumes that are to be converted"

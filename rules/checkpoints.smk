# Only files that are not there: one that is in place was compared with the catalogue when the study was read. On a
# cluster the login node fetches them, since compute nodes often have no internet.
import os
import re

USED = {os.path.normpath(checkpoint.file) for checkpoint in STUDY.checkpoints.values()}
MISSING = [
    file
    for file, entry in CATALOGUE.items()
    if entry.sha256
    and os.path.normpath(f"{STUDY.settings.checkpoints}/{file}") in USED
    and not is_there(f"{STUDY.settings.checkpoints}/{file}")
]
NOTHING = "(?!)"  # matches no name


rule fetch_checkpoint:
    """Fetch one checkpoint of the catalogue and verify its SHA-256."""
    output:
        # Not removed before the job: another run may have fetched it since this one was planned.
        update("<checkpoints>/{file}"),
    log:
        "<logs>/fetch_checkpoint/{file}.log",
    benchmark:
        "<benchmarks>/fetch_checkpoint/{file}.jsonl"
    wildcard_constraints:
        file="|".join(map(re.escape, MISSING)) or NOTHING,
    localrule: True
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=1000,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        entry=lambda wildcards: CATALOGUE[wildcards.file].model_dump(mode="json"),
    message:
        "Fetch the checkpoint {wildcards.file}"
    script:
        "../workflow/scripts/fetch_checkpoint.py"

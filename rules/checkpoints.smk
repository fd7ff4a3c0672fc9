# A file that is already in place is used as it is. On a cluster the login node fetches it, since compute nodes often
# have no internet.
rule fetch_checkpoint:
    """Fetch one checkpoint of the catalogue and verify its SHA-256."""
    output:
        update("<checkpoints>/{file}"),
    log:
        "<logs>/fetch_checkpoint/{file}.log",
    benchmark:
        "<benchmarks>/fetch_checkpoint/{file}.jsonl"
    wildcard_constraints:
        file="|".join(name.replace(".", "[.]") for name in CATALOGUE),
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

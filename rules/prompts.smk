# Every candidate prompt of one shard's volumes, whatever the schemes make of them.
rule extract_prompts:
    input:
        volumes="<results>/volumes/{shard}",
    output:
        "<results>/prompts/{shard}.parquet",
    log:
        "<logs>/extract_prompts/{shard}.log",
    benchmark:
        "<benchmarks>/extract_prompts/{shard}.jsonl"
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2_000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        structures=LABELS,
        clicks=shard_clicks,
        method_version=METHOD_VERSION["prompts"],
    script:
        "../workflow/scripts/extract_prompts.py"

rule extract_prompts:
    """Extract every candidate prompt of one shard's volumes, whatever the schemes make of them."""
    input:
        volumes="<results>/volumes/{shard}",
        stamp="<results>/.stamps/prompts/{shard}",
    output:
        table="<results>/prompts/{shard}.parquet",
        identity="<results>/prompts/{shard}.json",
    log:
        "<logs>/extract_prompts/{shard}.log",
    benchmark:
        "<benchmarks>/extract_prompts/{shard}.jsonl"
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2_000 * attempt,
        runtime=minutes(at_least=20, per_volume=1),
    params:
        labels=LABELS,
        clicks=shard_clicks,
        identity=lambda wildcards: prompts_settings(STUDY, wildcards.shard),
    message:
        "Extract the prompts of shard {wildcards.shard}"
    script:
        "../workflow/scripts/extract_prompts.py"


rule prompts:
    """All prompts, and what they are made from."""
    input:
        expand("<results>/prompts/{shard}.parquet", shard=STUDY.shards),
    message:
        "All prompts are extracted"

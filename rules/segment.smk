# Masks of one experiment, model and shard: every scheme, one pass of the image encoder per slice.
rule segment:
    input:
        volumes="<results>/volumes/{shard}",
        prompts="<results>/prompts/{shard}.parquet",
        checkpoint=ancient(checkpoint_file),
    output:
        directory("<results>/masks/{experiment}/{model}/{shard}"),
    log:
        "<logs>/segment/{experiment}/{model}/{shard}.log",
    benchmark:
        "<benchmarks>/segment/{experiment}/{model}/{shard}.jsonl"
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        gpu=gpus_per_job,
        mem_mb=lambda wildcards, attempt: 12_000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        model=model_settings,
        schemes=experiment_schemes,
        structures=LABELS,
        scored=STUDY.scored_structures,
        inference=STUDY.settings.inference.model_dump(
            mode="json", exclude=BATCH_SETTINGS
        ),
        method_version=METHOD_VERSION["segment"],
    script:
        "../workflow/scripts/segment.py"

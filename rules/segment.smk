rule segment:
    """Segment one shard with one model of one experiment: every scheme, one pass of the image encoder per slice."""
    input:
        volumes="<results>/volumes/{shard}",
        prompts="<results>/prompts/{shard}.parquet",
        checkpoint=ancient(checkpoint_file),
        stamp="<results>/.stamps/masks/{experiment}/{model}/{shard}",
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
        mem_mb=segment_memory,
        runtime=minutes(at_least=60, per_volume=2),
    params:
        model=model_settings,
        schemes=experiment_schemes,
        labels=LABELS,
        scored=STUDY.scored_structures,
        ignored=STUDY.ignored,
        inference=STUDY.settings.inference.model_dump(
            mode="json", exclude=EXECUTION_SETTINGS
        ),
        identity=lambda wildcards: segment_settings(
            STUDY, wildcards.experiment, wildcards.model
        ),
    message:
        "Segment {wildcards.experiment}/{wildcards.model}, shard {wildcards.shard}"
    script:
        "../workflow/scripts/segment.py"


rule masks:
    """All masks, and what they are made from; no scores."""
    input:
        ["<results>/masks/{}/{}/{}".format(*job) for job in EVERY_JOB],
    message:
        "All volumes are segmented"

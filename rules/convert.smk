rule convert:
    """Convert the volumes of one shard: frames and reference label maps on one grid, and a table of what was found."""
    input:
        sources=ancient(source_files),
        stamp="<results>/.stamps/volumes/{shard}",
    output:
        directory("<results>/volumes/{shard}"),
    log:
        "<logs>/convert/{shard}.log",
    benchmark:
        "<benchmarks>/convert/{shard}.jsonl"
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=convert_memory,
        runtime=minutes(at_least=30, per_volume=1),
    params:
        rows=sheet_rows,
        frames=STUDY.settings.frames.model_dump(mode="json"),
        labels=LABELS,
        resample=STUDY.settings.references.resample,
        ignored=STUDY.ignored,
        identity=lambda wildcards: convert_settings(STUDY, wildcards.shard),
    message:
        "Convert the volumes of shard {wildcards.shard}"
    script:
        "../workflow/scripts/convert.py"

# One page for people: the median table, and prompts and masks on an example volume. One short job, like the tables.
rule report:
    input:
        tables=rules.aggregate.output,
        volumes=rules.aggregate.input.volumes,
        prompts=expand("<results>/prompts/{shard}.parquet", shard=STUDY.shards),
        masks=rules.aggregate.input.masks,
    output:
        "<results>/report/index.html",
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.jsonl"
    localrule: True
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4_000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        structures=LABELS,
        scored=STUDY.scored_structures,
        schemes={
            name: scheme.model_dump(mode="json", exclude_defaults=True)
            for name, scheme in STUDY.settings.schemes.items()
        },
        experiments={
            name: (parts.models, parts.schemes)
            for name, parts in STUDY.experiments.items()
        },
        settings=STUDY.settings.report.model_dump(mode="json"),
        method_version=METHOD_VERSION["report"],
    script:
        "../workflow/scripts/report.py"

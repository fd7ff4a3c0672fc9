# Scores of one experiment, model and shard against the references, per volume and per slice.
rule score:
    input:
        volumes="<results>/volumes/{shard}",
        masks="<results>/masks/{experiment}/{model}/{shard}",
    output:
        scores="<results>/scores/{experiment}/{model}/{shard}.parquet",
        slices="<results>/scores/{experiment}/{model}/{shard}_slices.parquet",
    log:
        "<logs>/score/{experiment}/{model}/{shard}.log",
    benchmark:
        "<benchmarks>/score/{experiment}/{model}/{shard}.jsonl"
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2_000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        schemes=lambda wildcards: {
            name: STUDY.settings.schemes[name].predictor
            for name in STUDY.experiments[wildcards.experiment].schemes
        },
        structures=SCORED_LABELS,
        surface_tolerance_mm=STUDY.settings.scores.surface_tolerance_mm,
        method_version=METHOD_VERSION["score"],
    script:
        "../workflow/scripts/score.py"


# The study's tables, from every job's. One short job, which would wait longer in a cluster's queue than it runs.
rule aggregate:
    input:
        scores=["<results>/scores/{}/{}/{}.parquet".format(*job) for job in EVERY_JOB],
        masks=["<results>/masks/{}/{}/{}".format(*job) for job in EVERY_JOB],
        volumes=expand("<results>/volumes/{shard}", shard=STUDY.shards),
    output:
        scores="<results>/tables/scores.parquet",
        medians=multiext("<results>/tables/medians", ".csv", ".md", ".tex"),
        comparisons="<results>/tables/comparisons.csv",
        cost="<results>/tables/cost.csv",
        failures="<results>/tables/failures.csv",
    log:
        "<logs>/aggregate.log",
    benchmark:
        "<benchmarks>/aggregate.jsonl"
    localrule: True
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4_000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        structures=STUDY.scored_structures,
        method_version=METHOD_VERSION["aggregate"],
    script:
        "../workflow/scripts/aggregate.py"

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
        slices=[
            "<results>/scores/{}/{}/{}_slices.parquet".format(*job)
            for job in EVERY_JOB
        ],
        masks=["<results>/masks/{}/{}/{}".format(*job) for job in EVERY_JOB],
        volumes=expand("<results>/volumes/{shard}", shard=STUDY.shards),
    output:
        scores="<results>/tables/scores.parquet",
        medians=report(
            "<results>/tables/medians.csv",
            category="Tables",
            labels={"table": "Medians"},
            caption="captions/medians.rst",
        ),
        comparisons=report(
            "<results>/tables/comparisons.csv",
            category="Tables",
            labels={"table": "Paired comparisons"},
            caption="captions/comparisons.rst",
        ),
        ranks=report(
            "<results>/tables/ranks.csv",
            category="Tables",
            labels={"table": "Ranks"},
            caption="captions/ranks.rst",
        ),
        decay=report(
            "<results>/tables/decay.csv",
            category="Tables",
            labels={"table": "Decay by distance"},
            caption="captions/decay.rst",
        ),
        propagation=report(
            "<results>/tables/propagation.csv",
            category="Tables",
            labels={"table": "Propagation"},
            caption="captions/propagation.rst",
        ),
        cost=report(
            "<results>/tables/cost.csv",
            category="Tables",
            labels={"table": "Cost"},
            caption="captions/cost.rst",
        ),
        failures=report(
            "<results>/tables/failures.csv",
            category="Tables",
            labels={"table": "Failed volumes"},
            caption="captions/failures.rst",
        ),
        typeset=multiext("<results>/tables/medians", ".parquet", ".md", ".tex")
        + multiext("<results>/tables/comparisons", ".parquet", ".md", ".tex"),
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
        image_schemes=STUDY.image_schemes,
        groups=STUDY.groups,
        method_version=METHOD_VERSION["aggregate"],
    script:
        "../workflow/scripts/aggregate.py"

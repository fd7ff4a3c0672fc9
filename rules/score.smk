rule score:
    """Score one shard's masks of one model and experiment against the references, per volume and per slice."""
    input:
        volumes="<results>/volumes/{shard}",
        masks="<results>/masks/{experiment}/{model}/{shard}",
        stamp="<results>/.stamps/scores/{experiment}/{model}/{shard}",
    output:
        scores="<results>/scores/{experiment}/{model}/{shard}.parquet",
        slices="<results>/scores/{experiment}/{model}/{shard}_slices.parquet",
        rounds="<results>/scores/{experiment}/{model}/{shard}_rounds.parquet",
        identity="<results>/scores/{experiment}/{model}/{shard}.json",
    log:
        "<logs>/score/{experiment}/{model}/{shard}.log",
    benchmark:
        "<benchmarks>/score/{experiment}/{model}/{shard}.jsonl"
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2_000 * attempt,
        runtime=minutes(at_least=30, per_volume=1),
    params:
        schemes=lambda wildcards: {
            name: STUDY.settings.schemes[name].prompts_every_slice
            for name in STUDY.experiments[wildcards.experiment].schemes
        },
        labels=SCORED_LABELS,
        ignored=STUDY.ignored,
        border=STUDY.settings.scores.border,
        surface_tolerance_mm=STUDY.settings.scores.surface_tolerance_mm,
        identity=lambda wildcards: score_settings(STUDY, wildcards.experiment),
    message:
        "Score {wildcards.experiment}/{wildcards.model}, shard {wildcards.shard}"
    script:
        "../workflow/scripts/score.py"


rule scores:
    """All scores of single volumes and slices; no tables."""
    input:
        scores=["<results>/scores/{}/{}/{}.parquet".format(*job) for job in EVERY_JOB],
        slices=[
            "<results>/scores/{}/{}/{}_slices.parquet".format(*job)
            for job in EVERY_JOB
        ],
        rounds=[
            "<results>/scores/{}/{}/{}_rounds.parquet".format(*job)
            for job in EVERY_JOB
        ],
    message:
        "All masks are scored"

# One short job, which would wait longer in a cluster's queue than it runs.
rule aggregate:
    """Make the study's tables from the scores of every job."""
    input:
        scores=rules.scores.input.scores,
        slices=rules.scores.input.slices,
        rounds=rules.scores.input.rounds,
        score_identities=rules.scores.input.identities,
        masks=rules.masks.input,
        volumes=expand("<results>/volumes/{shard}", shard=STUDY.shards),
        stamp=stamp("<results>/.stamps/tables"),
    output:
        identity="<results>/tables/identity.json",
        scores=multiext("<results>/tables/scores", ".parquet", ".csv"),
        slices="<results>/tables/slices.parquet",
        dictionary="<results>/tables/dictionary.csv",
        medians=report(
            "<results>/tables/medians.csv",
            category="Tables",
            labels={"table": "Medians"},
            caption="captions/medians.rst",
        ),
        medians_long="<results>/tables/medians_long.csv",
        subgroups=report(
            "<results>/tables/subgroups.csv",
            category="Tables",
            labels={"table": "Subgroups"},
            caption="captions/subgroups.rst",
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
        agreement=report(
            "<results>/tables/agreement.csv",
            category="Tables",
            labels={"table": "Agreement of volumes"},
            caption="captions/agreement.rst",
        ),
        acceptable=report(
            "<results>/tables/acceptable.csv",
            category="Tables",
            labels={"table": "Acceptable slices"},
            caption="captions/acceptable.rst",
        ),
        propagation=report(
            "<results>/tables/propagation.csv",
            category="Tables",
            labels={"table": "Propagation"},
            caption="captions/propagation.rst",
        ),
        corrections=report(
            "<results>/tables/corrections.csv",
            category="Tables",
            labels={"table": "Corrections"},
            caption="captions/corrections.rst",
        ),
        confidence=report(
            "<results>/tables/confidence.csv",
            category="Tables",
            labels={"table": "Confidence"},
            caption="captions/confidence.rst",
        ),
        expected_dice="<results>/tables/expected_dice.csv",
        cost=report(
            "<results>/tables/cost.csv",
            category="Tables",
            labels={"table": "Cost"},
            caption="captions/cost.rst",
        ),
        experiment_cost="<results>/tables/experiment_cost.csv",
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
        design=STUDY.table_design,
        identity=tables_settings(STUDY),
    message:
        "Make the tables"
    script:
        "../workflow/scripts/aggregate.py"


rule tables:
    """All tables; no report."""
    input:
        rules.aggregate.output,
    message:
        "All tables are made"

# One short job, like the tables.
rule report:
    """Write the report: one page for people, and its figures for print."""
    input:
        tables=rules.aggregate.output,
        volumes=rules.aggregate.input.volumes,
        prompts=rules.prompts.input.tables,
        prompt_identities=rules.prompts.input.identities,
        masks=rules.masks.input,
        rounds=rules.aggregate.input.rounds,
        stamp=stamp("<results>/.stamps/report"),
    output:
        page=report(
            "<results>/report/index.html",
            category="Report",
            labels={"part": "the whole page"},
            caption="captions/page.rst",
        ),
        figures=report(
            directory("<results>/report/figures"),
            patterns=["{figure}.svg"],
            category="Figures",
            labels={"figure": "{figure}"},
            caption="captions/figures.rst",
        ),
        configuration="<results>/config.yaml",
        identity="<results>/report/identity.json",
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
        design=STUDY.report_design,
        settings=STUDY.settings.report.model_dump(mode="json"),
        configuration=STUDY.settings.model_dump(mode="json", exclude_none=True),
        identity=report_settings(STUDY),
    message:
        "Write the report"
    script:
        "../workflow/scripts/report.py"


rule volume_pages:
    """Show each volume of a shard in a page of its own; asked for by `report: {volumes: all}`."""
    input:
        volumes="<results>/volumes/{shard}",
        prompts="<results>/prompts/{shard}.parquet",
        prompts_identity="<results>/prompts/{shard}.json",
        masks=of_shard("<results>/masks/{experiment}/{model}/{shard}"),
        scores=of_shard("<results>/scores/{experiment}/{model}/{shard}.parquet"),
        slices=of_shard("<results>/scores/{experiment}/{model}/{shard}_slices.parquet"),
        rounds=of_shard("<results>/scores/{experiment}/{model}/{shard}_rounds.parquet"),
        score_identities=of_shard("<results>/scores/{experiment}/{model}/{shard}.json"),
        stamp=stamp("<results>/.stamps/volume_pages/{shard}"),
    output:
        directory("<results>/report/volumes/{shard}"),
    log:
        "<logs>/volume_pages/{shard}.log",
    benchmark:
        "<benchmarks>/volume_pages/{shard}.jsonl"
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4_000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        jobs=of_shard("{experiment}/{model}/{shard}"),
        design=STUDY.shown_design,
        paths=STUDY.settings.report.paths,
        identity=lambda wildcards: pages_settings(STUDY, wildcards.shard),
    message:
        "Show the volumes of shard {wildcards.shard}"
    script:
        "../workflow/scripts/volume_pages.py"

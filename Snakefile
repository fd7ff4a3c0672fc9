# Zero-shot evaluation of promptable segmentation models on 3D volumes: volumes and references in, masks, scores, median
# tables and a report out. Settings: config/README.md.
from snakemake.utils import min_version

min_version("9.27")


include: "rules/library.smk"
include: "rules/options.smk"


if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/planning.smk"


pathvars:
    results=STUDY.settings.results,
    checkpoints=STUDY.settings.checkpoints,
    logs=f"{STUDY.settings.results}/logs",
    benchmarks=f"{STUDY.settings.results}/benchmarks",


wildcard_constraints:
    shard=r"\d+",
    experiment=r"[^/]+",
    model=r"[^/]+",


# First, and so the default target, but not that of a workflow that uses this one as a module and has rules before it.
rule all:
    """The whole study. Ends with an error, after everything else is done, if more failed than the configuration allows."""
    input:
        report="<results>/report/index.html",
        pages=VOLUME_PAGES,
        scores="<results>/tables/scores.parquet",
        failures="<results>/tables/failures.csv",
        tables="<results>/tables/identity.json",
        stamp=stamp("<results>/.stamps/complete"),
    output:
        summary="<results>/complete.txt",
        identity="<results>/complete.json",
    log:
        "<logs>/all.log",
    localrule: True
    conda:
        "envs/imaging.yaml"
    params:
        report=lambda wildcards: f"{STUDY.settings.results}/report/index.html",
        allowed=STUDY.settings.max_failed_fraction,
        skip_invalid=STUDY.settings.on_invalid == "skip",
        identity=verdict_settings(STUDY),
    message:
        "How much of the study failed, and whether that is acceptable"
    script:
        "workflow/scripts/complete.py"


include: "rules/resources.smk"
include: "rules/check.smk"
include: "rules/checkpoints.smk"
include: "rules/convert.smk"
include: "rules/prompts.smk"
include: "rules/segment.smk"
include: "rules/score.smk"
include: "rules/tables.smk"
include: "rules/report.smk"
include: "rules/retries.smk"
include: "rules/start.smk"

# Zero-shot evaluation of promptable segmentation models on 3D volumes: volumes and references in, masks, scores, median
# tables and a report out. Settings: config/README.md.
from snakemake.utils import min_version

min_version("9.27")


if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "rules/common.smk"


pathvars:
    results=STUDY.settings.results,
    checkpoints=STUDY.settings.checkpoints,
    logs=f"{STUDY.settings.results}/logs",
    benchmarks=f"{STUDY.settings.results}/benchmarks",


wildcard_constraints:
    shard=r"\d+",
    experiment=r"[^/]+",
    model=r"[^/]+",


include: "rules/check.smk"
include: "rules/checkpoints.smk"
include: "rules/convert.smk"
include: "rules/prompts.smk"
include: "rules/segment.smk"
include: "rules/score.smk"
include: "rules/report.smk"


# Faulty files are told together, before the first job: a run that converts nothing checks nothing.
onstart:
    check_before(workflow.dag.needrun_jobs())


# The whole study. Ends with an error, after everything else is done, where more failed than the configuration allows.
rule all:
    default_target: True
    input:
        report=rules.report.output.page,
        scores=rules.aggregate.output.scores,
        failures=rules.aggregate.output.failures,
    output:
        "<results>/complete.txt",
    log:
        "<logs>/all.log",
    localrule: True
    conda:
        "envs/imaging.yaml"
    params:
        allowed=STUDY.settings.max_failed_fraction,
        skip_invalid=STUDY.settings.on_invalid == "skip",
    script:
        "workflow/scripts/complete.py"

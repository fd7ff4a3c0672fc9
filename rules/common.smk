# The checked study, and what rules ask of it. Paths are spelled out in the rules themselves.
import os

from snakemake.exceptions import WorkflowError

from volprompt.checkpoints.catalogue import read_catalogue
from volprompt.settings.config import EXECUTION_SETTINGS
from volprompt.settings.reading import with_sources
from volprompt.study.identities import (
    convert_settings,
    pages_settings,
    prompts_settings,
    report_settings,
    score_settings,
    segment_settings,
    tables_settings,
    verdict_settings,
)
from volprompt.study.data import Data
from volprompt.study.study import read_study
from volprompt.errors import VolpromptError

# In storage (`--default-storage-provider`) only Snakemake can look at files.
IN_STORAGE = workflow.storage_settings.default_storage_provider is not None
if IN_STORAGE:
    DATA = Data.STORED
else:
    DATA = Data.HERE if workflow.is_main_process else Data.PLANNED

# Snakemake then prints the log of a failed job, so the job itself need not print what ended it.
if workflow.output_settings.show_failed_logs:
    os.environ.update(VOLPROMPT_FAILED_LOGS="shown")

# Those that are named on the command line come last: they change what the others say.
NAMED_FILES = len(workflow.overwrite_configfiles)
CONFIG_FILES = [
    *workflow.configfiles[NAMED_FILES:],
    *workflow.configfiles[:NAMED_FILES],
]
try:
    CATALOGUE = read_catalogue(CATALOGUE_FILE)
    elsewhere = "--config" if workflow.modifier.is_main_snakefile() else ""
    STUDY = read_study(with_sources(config, CONFIG_FILES, elsewhere), CATALOGUE, DATA)
except VolpromptError as error:
    raise WorkflowError(str(error)) from None

LABELS = STUDY.labels
SCORED_LABELS = {name: LABELS[name] for name in STUDY.scored_structures}
EVERY_JOB = [
    (experiment, model, shard)
    for experiment, parts in STUDY.experiments.items()
    for model in parts.models
    for shard in STUDY.shards
]


# Pages of single volumes are made where the configuration asks for them.
VOLUME_PAGES = [
    f"<results>/report/volumes/{shard}"
    for shard in (STUDY.shards if STUDY.settings.report.volumes == "all" else ())
]


def sheet_rows(wildcards):
    """The shard's rows of the sample sheet."""
    return [row.plain() for row in STUDY.shards[wildcards.shard]]


def of_shard(pattern):
    """The files of all experiments and models of a shard. pattern: of a path, with their wildcards."""
    return lambda wildcards: [
        pattern.format(experiment=experiment, model=model, shard=shard)
        for experiment, model, shard in EVERY_JOB
        if shard == wildcards.shard
    ]


def source_files(wildcards):
    """Files and folders that the shard's volumes are read from."""
    return STUDY.sources(STUDY.shards[wildcards.shard])


def shard_clicks(wildcards):
    """The clicks on the shard's volumes."""
    return [vars(click) for click in STUDY.clicks_of(wildcards.shard)]


def checkpoint_files(wildcards):
    """The checkpoint of a model, fetched where the catalogue has it; of one in several files the index comes first."""
    return STUDY.checkpoints[wildcards.model].files()


def model_settings(wildcards):
    """What identifies a model, the digest of its checkpoint included."""
    return STUDY.checkpoints[wildcards.model].description()


def experiment_schemes(wildcards):
    """The definitions of an experiment's schemes."""
    names = STUDY.experiments[wildcards.experiment].schemes
    return {name: STUDY.settings.schemes[name].plain() for name in names}

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
from volprompt.study.memory import (
    convert_memory_mb,
    largest_frames,
    segment_memory_mb,
    weights_bytes,
)
from volprompt.study.stamps import write_stamps
from volprompt.study.study import read_study
from volprompt.models.devices import visible_gpus
from volprompt.errors import VolpromptError
from volprompt.logs import logging_to_console

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
EXPERIMENT_SCHEMES = {
    experiment: parts.schemes for experiment, parts in STUDY.experiments.items()
}
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


# Jobs read the workflow again; only the process that plans compares results with the configuration.
SHARDS_TO_CONVERT = []
if workflow.is_main_process and not IN_STORAGE:
    try:
        with logging_to_console("plan"):
            SHARDS_TO_CONVERT = write_stamps(STUDY)
    except VolpromptError as error:
        raise WorkflowError(str(error)) from None


def sheet_rows(wildcards):
    """The shard's rows of the sample sheet."""
    return [row.plain() for row in STUDY.shards[wildcards.shard]]


def rows_to_convert(wildcards):
    """The rows of all shards that this run converts: a target may ask for some of them alone."""
    asked = {os.path.normpath(path) for job in workflow.dag.jobs for path in job.output}
    volumes = {
        row.volume
        for shard in SHARDS_TO_CONVERT
        for row in STUDY.shards[shard]
        if os.path.normpath(f"{STUDY.settings.results}/volumes/{shard}") in asked
    }
    rows = [row.plain() for row in STUDY.volumes if row.volume in volumes]
    return rows or [
        row.plain() for shard in SHARDS_TO_CONVERT for row in STUDY.shards[shard]
    ]


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


# In storage nobody knows how large files are: MB for a volume of 256 x 512 x 512 voxels, bytes of weights as of ViT-L.
CONVERT_MB_AT_LEAST = 2_000 if IN_STORAGE else 0
UNKNOWN_WEIGHTS = 1_250_000_000 if IN_STORAGE else 0


def convert_memory(wildcards, attempt):
    """MB for converting a shard, by the sizes of its images; more at each attempt, like everything below."""
    images = [row.image for row in STUDY.shards[wildcards.shard]]
    return attempt * max(convert_memory_mb(images), CONVERT_MB_AT_LEAST)


def segment_memory(wildcards, input, attempt):
    """MB for segmenting a shard, by the sizes of the model and of the converted volumes."""
    weights = weights_bytes(STUDY.checkpoints[wildcards.model], CATALOGUE)
    frames = largest_frames(input.volumes)
    return attempt * segment_memory_mb(
        STUDY, wildcards.experiment, wildcards.model, weights or UNKNOWN_WEIGHTS, frames
    )


def minutes(at_least, per_volume):
    """Minutes for a job of a shard, by the number of its volumes."""
    return lambda wildcards, attempt: attempt * max(
        at_least, per_volume * len(STUDY.shards[wildcards.shard])
    )


def gpus_per_job(wildcards):
    """One GPU where the models run on a GPU; `auto` looks at this machine, and a cluster's profile overrides it."""
    device = STUDY.settings.inference.device
    return int(device == "cuda" or (device == "auto" and bool(visible_gpus())))

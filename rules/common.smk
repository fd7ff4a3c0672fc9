# The checked study, and what rules ask of it. Paths are spelled out in the rules themselves.
from pathlib import Path

from snakemake.exceptions import WorkflowError

from volprompt import METHOD_VERSION
from volprompt.checkpoints.catalogue import read_catalogue
from volprompt.settings.config import BATCH_SETTINGS
from volprompt.settings.presets import preset_settings
from volprompt.study.study import read_study
from volprompt.models.devices import visible_gpus
from volprompt.errors import VolpromptError

try:
    CATALOGUE = read_catalogue(CATALOGUE_FILE)
    STUDY = read_study(
        config, CATALOGUE, digests=Path(".snakemake/volprompt/digests.json")
    )
except VolpromptError as error:
    raise WorkflowError(str(error)) from None

LABELS = {
    name: structure.labels for name, structure in STUDY.settings.structures.items()
}
SCORED_LABELS = {name: LABELS[name] for name in STUDY.scored_structures}
EVERY_JOB = [
    (experiment, model, shard)
    for experiment, parts in STUDY.experiments.items()
    for model in parts.models
    for shard in STUDY.shards
]


def sheet_rows(wildcards):
    """The shard's rows of the sample sheet."""
    return [row.plain() for row in STUDY.shards[wildcards.shard]]


def source_files(wildcards):
    """Files and folders that the shard's volumes are read from."""
    return STUDY.sources(STUDY.shards[wildcards.shard])


def shard_clicks(wildcards):
    """The clicks on the shard's volumes."""
    return [vars(click) for click in STUDY.clicks_of(wildcards.shard)]


def checkpoint_file(wildcards):
    """The checkpoint of a model; fetched where the catalogue has it."""
    return STUDY.checkpoints[wildcards.model].file


def model_settings(wildcards):
    """What identifies a model, the digest of its checkpoint included."""
    return STUDY.checkpoints[wildcards.model].identity()


def experiment_schemes(wildcards):
    """The definitions of an experiment's schemes."""
    names = STUDY.experiments[wildcards.experiment].schemes
    return {
        name: STUDY.settings.schemes[name].model_dump(
            mode="json", exclude_defaults=True
        )
        for name in names
    }


def gpus_per_job(wildcards):
    """One GPU where the models run on a GPU; `auto` looks at this machine, and a cluster's profile overrides it."""
    device = STUDY.settings.inference.device
    return int(device == "cuda" or (device == "auto" and bool(visible_gpus())))

# The checked study, and what rules ask of it. Paths are spelled out in the rules themselves.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

WORKFLOW = Path(workflow.current_basedir).parent
sys.path.insert(0, str(WORKFLOW / "workflow" / "scripts"))

from volprompt import METHOD_VERSION
from volprompt.checkpoints import read_catalogue
from volprompt.study import read_study
from volprompt.devices import visible_gpus
from volprompt.errors import VolpromptError

try:
    CATALOGUE = read_catalogue(WORKFLOW / "config" / "checkpoints.yaml")
    STUDY = read_study(
        config, CATALOGUE, digests=Path(".snakemake/volprompt/digests.json")
    )
except VolpromptError as error:
    raise WorkflowError(str(error)) from None

LABELS = {
    name: structure.labels for name, structure in STUDY.settings.structures.items()
}
SCORED_LABELS = {name: LABELS[name] for name in STUDY.scored_structures}
IMAGE_SCHEMES = [
    name
    for name, scheme in STUDY.settings.schemes.items()
    if scheme.predictor == "image"
    and any(name in parts.schemes for parts in STUDY.experiments.values())
]
EVERY_JOB = [
    (experiment, model, shard)
    for experiment, parts in STUDY.experiments.items()
    for model in parts.models
    for shard in STUDY.shards
]


def sheet_rows(wildcards):
    """The shard's rows of the sample sheet."""
    return [
        {
            "volume": row.volume,
            "image": row.image,
            "reference": row.reference,
            "group": row.group,
        }
        for row in STUDY.shards[wildcards.shard]
    ]


def source_files(wildcards):
    """Images and references of the shard."""
    return [
        path
        for row in STUDY.shards[wildcards.shard]
        for path in (row.image, row.reference)
        if path
    ]


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

# What jobs ask for: memory by the sizes of models and volumes, time by the number of volumes, a GPU where models run on one.
from volprompt.models.devices import visible_gpus
from volprompt.study.memory import (
    convert_memory_mb,
    largest_frames,
    segment_memory_mb,
    weights_bytes,
)

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

"""How much memory jobs ask for: bounds from the sizes of models and volumes, for which no image is opened.

In MB (10^6 bytes). The terms are measured, `benchmarks/memory.py` on the CPU, and rounded up; docs/cluster.md says what
they add up to. On a GPU features and most of the work are in its own memory; their share here is room for CUDA.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from math import prod
from pathlib import Path

from volprompt.checkpoints.catalogue import CatalogueEntry
from volprompt.families import PUBLISHED_IMAGE_SIZE, family_of
from volprompt.settings.config import Inference
from volprompt.settings.schemes import Scheme, SliceAt
from volprompt.study.models import Checkpoint
from volprompt.study.study import Study

Shape = tuple[int, int, int]  # slice, y, x

# Python with torch, and the two processes of Snakemake in which a job of a cluster runs; without torch.
TORCH_MB, PYTHON_MB = 1400, 600
# Weights as they are read, as the model has them, and cast to bfloat16.
WEIGHTS = 2.5
# Slices whose features are kept: at most (`models.engine.FEATURES_KEPT`), and where all objects set out from one slice.
KEPT, KEPT_FROM_ONE_SLICE = 256, 32
# Bytes per voxel of frames, masks and references that are read, segmented and written together; and with corrections.
SEGMENT_BYTES, CORRECT_BYTES = 12, 40
# A frame at the size of the model's image, and an entry of an object's memory, in MB at the published image size.
FRAME_MB, ENTRY_MB = 1.05, 0.53
# Places of an object in memory unless a click may follow on any of its slices.
PLACES = 26
# Bytes per voxel of an image while it is converted, and voxels per byte of a file that is compressed.
CONVERT_BYTES, VOXELS_PER_BYTE = 22, 2
# What is taken for the volumes of a shard before they are converted.
UNKNOWN: Shape = (256, 512, 512)


def segment_memory_mb(study: Study, experiment: str, model: str, weights_bytes: int, frames: Shape = UNKNOWN) -> int:
    """Bound the memory of a segmentation job.

    weights_bytes: size of the checkpoint; frames: shape of the shard's largest volume.
    """
    schemes = [study.settings.schemes[name] for name in study.experiments[experiment].schemes]
    checkpoint, inference = study.checkpoints[model], study.settings.inference
    family = family_of(checkpoint.family)
    size = checkpoint.image_size or PUBLISHED_IMAGE_SIZE
    area = (size / PUBLISHED_IMAGE_SIZE) ** 2
    corrected = any(scheme.corrections for scheme in schemes)
    lasting = any(scheme.corrections and scheme.predictor == "video" for scheme in schemes)
    kept = min(frames[0], KEPT if lasting or not _from_one_slice(schemes) else KEPT_FROM_ONE_SLICE)
    objects = sum(
        len(scheme.structures or study.scored_structures) for scheme in schemes if scheme.predictor == "video"
    )
    needed = (
        TORCH_MB
        + WEIGHTS * weights_bytes / 1e6
        + family.work_mb * area * _slices_together(inference, size)
        + (family.slice_mb * kept + 3 * FRAME_MB * frames[0]) * area
        + objects * (frames[0] if lasting else PLACES) * ENTRY_MB * area
        + (CORRECT_BYTES if corrected else SEGMENT_BYTES) * prod(frames) / 1e6
    )
    return _rounded(needed)


def _from_one_slice(schemes: Sequence[Scheme]) -> bool:
    """Whether all objects that are carried through a volume set out from one slice."""
    places = {choice for scheme in schemes if not scheme.prompts_every_slice for choice in map(_place, scheme.slices)}
    return len(places) <= 1 and not places & {"nearest", "largest"}


def _place(choice: str | SliceAt) -> str:
    return choice if isinstance(choice, str) else choice.model_dump_json()


def _slices_together(inference: Inference, image_size: int) -> int:
    """Slices in a batch of the encoder on a CPU, see `segmentation.schedule.Schedule`."""
    return inference.batch_size or (8 if image_size <= 512 else 1)


def convert_memory_mb(images: Sequence[str | Path]) -> int:
    """Bound the memory of a job that converts these images, one after another."""
    return _rounded(PYTHON_MB + CONVERT_BYTES * max(map(_voxels_at_most, images), default=0) / 1e6)


def _voxels_at_most(image: str | Path) -> int:
    """About how many voxels a file can hold, from its size alone; 0 if there is none.

    Files in a folder count as large as its first one, so that a series takes two looks at the disk and not hundreds.
    """
    try:
        if not os.path.isdir(image):
            return VOXELS_PER_BYTE * os.stat(image).st_size
        names = os.listdir(image)
        return VOXELS_PER_BYTE * len(names) * os.stat(os.path.join(image, names[0])).st_size if names else 0
    except OSError:
        return 0


def weights_bytes(checkpoint: Checkpoint, catalogue: Mapping[str, CatalogueEntry]) -> int:
    """Size of a model's weights in bytes; of a file that is still to be fetched as the catalogue has it, else 0."""
    if Path(checkpoint.file).is_file():
        return sum(Path(file).stat().st_size for file in checkpoint.files())
    entry = catalogue.get(Path(checkpoint.file).name)
    return entry.bytes or 0 if entry else 0


def largest_frames(folder: str | Path) -> Shape:
    """Shape of the largest volume of a converted shard, from the first bytes of its file; UNKNOWN before that."""
    try:
        return _largest_frames(str(folder), os.stat(folder).st_mtime_ns)
    except OSError:
        return UNKNOWN


@cache
def _largest_frames(folder: str, written: int) -> Shape:
    """The same for a folder as it was when it was last written to: every model of a shard asks."""
    with os.scandir(folder) as entries:
        sizes = {entry.path: entry.stat().st_size for entry in entries if entry.name.endswith("_frames.nii")}
    if not sizes:
        return UNKNOWN
    with open(max(sizes, key=lambda path: sizes[path]), "rb") as stream:
        header = stream.read(48)
    if len(header) < 48:
        return UNKNOWN
    _, depth, height, width = struct.unpack("<4h", header[40:])  # NIfTI-1, as `volumes.convert` writes it
    return depth, height, width


def _rounded(mb: float) -> int:
    """The next 100 MB."""
    return -int(-mb // 100) * 100

"""What each family of models is, said once: configuration, study, checkpoints, run table and report read it here.

Planning reads this module on every call, so it imports nothing heavy; a family's adapter is imported by its jobs alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path

from volprompt.errors import VolpromptError, suggestion

# What a scheme's prompts can be given to: a slice, slices in their order with memory, or the whole volume at once.
PREDICTORS = ("image", "video", "volume")
# Where a package says which families it brings: an entry point each, a `Family`.
GROUP = "volprompt.families"
# Pixels along a side of the published models' images (SAM 3: 1008).
PUBLISHED_IMAGE_SIZE = 1024
ADDRESS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class UnknownFamily(VolpromptError):
    """A name that no family has."""


@dataclass(frozen=True)
class CheckpointKind:
    """A kind of checkpoint, recognised by its tensors.

    title: its name in messages
    signs: beginnings of tensor names; one tensor with one of them is enough
    encoder: beginning of the names of the image encoder's tensors
    published: architectures of the published sizes, by width and number of blocks of the image encoder
    other_size: what a message says of the architecture if the size is not a published one
    paper: the published sizes as the paper names them; empty if it has none of this kind
    supported: whether a model of the family can load it
    """

    title: str
    signs: tuple[str, ...]
    encoder: str = "image_encoder"
    published: Mapping[tuple[int, int], str] = field(default_factory=dict)
    other_size: str = "that it was trained with"
    paper: str = ""
    supported: bool = True


@dataclass(frozen=True)
class Family:
    """One family of models.

    name: as configurations write it
    title: as people write it
    adapter: address of the adapter, a `PromptableModel` or a `VolumeModel`: "module:Class"
    predictors: of which schemes its models can run; what the adapter lacks nevertheless, its jobs tell
    free_image_size: whether the configuration may choose the size of the model's image
    packages: distributions whose versions the run table records
    architectures: the names that the adapter can build, beside YAML files
    config_package: a package whose configuration files are such names instead; with neither, any text is one
    config_files: glob of these files, for suggestions
    settings_file: what a file that describes an architecture is
    checkpoint_kinds: by which a wrong checkpoint is named, the surest sign first
    citation: key of the work that it is from, among those that the report knows
    work_mb: MB that a slice takes in encoder, decoder and memory at PUBLISHED_IMAGE_SIZE, beside weights and features
    slice_mb: MB of a slice's features there, in float32
    """

    name: str
    title: str
    adapter: str
    predictors: tuple[str, ...]
    free_image_size: bool
    packages: tuple[str, ...]
    architectures: tuple[str, ...] = ()
    config_package: str = ""
    config_files: str = ""
    settings_file: str = "YAML file"
    checkpoint_kinds: tuple[CheckpointKind, ...] = ()
    citation: str = ""
    work_mb: int = 6000
    slice_mb: float = 17.0

    @property
    def architectures_in_words(self) -> str:
        """What may be written as `architecture`, beside a YAML file."""
        if self.config_package:
            return f"a configuration of the {self.config_package} package"
        return ", ".join(self.architectures) or "any text"


# Width and number of blocks of the published image encoders.
_VIT = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}
_HIERA = {(96, 12): "t", (96, 16): "s", (112, 24): "b+", (144, 48): "l"}


def _hiera_kind(title: str, folder: str, signs: tuple[str, ...], paper: str = "") -> CheckpointKind:
    """A release of SAM 2, whose configurations are in `folder` of the package."""
    return CheckpointKind(
        title=title,
        signs=signs,
        encoder="image_encoder.trunk",
        published={size: f"configs/{folder}/{folder}_hiera_{letter}.yaml" for size, letter in _HIERA.items()},
        other_size=f"configs/{folder}/{folder}_hiera_*.yaml, or the one it was trained with: its size is none of the "
        "published ones",
        paper=paper,
    )


SAM = Family(
    name="sam",
    title="SAM",
    citation="kirillov2023",
    work_mb=2000,
    slice_mb=4.2,
    adapter="volprompt.models.sam:SamModel",
    predictors=("image",),
    free_image_size=False,
    packages=("segment-anything",),
    architectures=tuple(_VIT.values()),
    checkpoint_kinds=(
        CheckpointKind(
            title="SAM",
            signs=("image_encoder.patch_embed.proj.",),
            published=_VIT,
            other_size="vit_b, vit_l or vit_h",
            paper="SAM ViT-B, L, H",
        ),
        CheckpointKind(
            title="SAM with another image encoder (like MobileSAM's)",
            signs=("prompt_encoder.", "mask_decoder."),
            supported=False,
        ),
    ),
)

SAM2 = Family(
    name="sam2",
    title="SAM 2",
    citation="ravi2024",
    work_mb=2000,
    adapter="volprompt.models.sam2:Sam2Model",
    predictors=("image", "video"),
    free_image_size=True,
    packages=("sam2",),
    config_package="sam2",
    config_files="configs/sam2*/*.yaml",
    checkpoint_kinds=(
        _hiera_kind("SAM 2.1", "sam2.1", ("no_obj_embed_spatial", "obj_ptr_tpos_proj.")),
        _hiera_kind(
            "SAM 2.0",
            "sam2",
            ("image_encoder.trunk.", "sam_mask_decoder.", "memory_attention."),
            paper="SAM 2.0 tiny, small, base+, large",
        ),
    ),
)

SAM3 = Family(
    name="sam3",
    title="SAM 3",
    citation="carion2025",
    adapter="volprompt.models.sam3:Sam3Model",
    predictors=("image", "video"),
    free_image_size=False,
    packages=("transformers",),
    architectures=("sam3",),
    settings_file="config.json",
    checkpoint_kinds=(
        CheckpointKind(
            title="SAM 3",
            signs=("tracker_neck.", "tracker_model.", "vision_encoder.neck.fpn_layers."),
            other_size="sam3",
        ),
    ),
)

EDGETAM = Family(
    name="edgetam",
    title="EdgeTAM",
    citation="zhou2025",
    work_mb=2000,
    adapter="volprompt.models.edgetam:EdgeTamModel",
    predictors=("image", "video"),
    free_image_size=False,
    packages=("transformers", "timm"),
    architectures=("edgetam",),
    settings_file="config.json",
    checkpoint_kinds=(
        CheckpointKind(
            title="EdgeTAM",
            signs=("vision_encoder.backbone.timm_model.", "spatial_perceiver.latents_1d"),
            other_size="edgetam",
        ),
        CheckpointKind(
            title="EdgeTAM as its authors publish it",
            signs=("spatial_perceiver.latents",),
            supported=False,
        ),
    ),
)

# A later family may have grown from an earlier one: its checkpoints are recognised first.
FAMILIES: dict[str, Family] = {family.name: family for family in (SAM, SAM2, SAM3, EDGETAM)}


def family_of(name: str) -> Family:
    """Look up a family: a built-in one, anyone's own by the address of its adapter, or one that a package brings.

    Raises UnknownFamily.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    if ADDRESS.fullmatch(name):
        return Family(name, name.partition(":")[2], name, PREDICTORS, free_image_size=True, packages=())
    if name in (brought := families_of_packages()):
        return brought[name]
    raise UnknownFamily(
        f"there is no family '{name}'; known: {', '.join([*FAMILIES, *brought])}, or the address of an adapter of your "
        f"own, package.module:Class{suggestion(name, FAMILIES)}"
    )


@cache
def families_of_packages() -> dict[str, Family]:
    """The families that installed packages bring, by name; a built-in one keeps its name. Raises UnknownFamily."""
    brought = {}
    for point in entry_points(group=GROUP):
        try:
            family = point.load()
        except Exception as error:
            raise UnknownFamily(f"the family {point.name} ({point.value}) cannot be imported: {error}") from error
        if not isinstance(family, Family) or family.name != point.name:
            raise UnknownFamily(f"{point.value} is no `Family` of the name {point.name}")
        brought[point.name] = family
    return brought


def is_built_in(family: Family) -> bool:
    """Whether a family's adapter is part of this project."""
    return family.adapter.startswith("volprompt.")


def adapter_file(family: Family) -> Path | None:
    """The file of a family's adapter, installed or in the working directory; nothing is imported. None if not found."""
    folders: list[str] | None = search_path()
    *packages, module = family.adapter.partition(":")[0].split(".")
    for package in packages:
        spec = PathFinder.find_spec(package, folders)
        if spec is None or spec.submodule_search_locations is None:
            return None
        folders = list(spec.submodule_search_locations)
    spec = PathFinder.find_spec(module, folders)
    return Path(spec.origin) if spec is not None and spec.origin else None


def search_path() -> list[str]:
    """Where adapters are looked for: where Python looks, and then in the working directory."""
    return [*sys.path, str(Path.cwd())]

"""What each family of models is, said once: configuration, study, checkpoints, run table and report read it here.

Planning reads this module on every call, so it imports nothing heavy; a family's adapter is imported by its jobs alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from volprompt.errors import VolpromptError, suggestion


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
    adapter: address of the adapter, a `PromptableModel`: "module:Class"
    has_memory: whether its models run video schemes
    free_image_size: whether the configuration may choose the size of the model's image
    packages: distributions whose versions the run table records
    architectures: the names that the adapter can build, beside YAML files
    config_package: a package whose configuration files are such names instead; with neither, any text is one
    config_files: glob of these files, for suggestions
    checkpoint_kinds: by which a wrong checkpoint is named, the surest sign first
    """

    name: str
    title: str
    adapter: str
    has_memory: bool
    free_image_size: bool
    packages: tuple[str, ...]
    architectures: tuple[str, ...] = ()
    config_package: str = ""
    config_files: str = ""
    checkpoint_kinds: tuple[CheckpointKind, ...] = ()

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
    adapter="volprompt.models.sam:SamModel",
    has_memory=False,
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
    adapter="volprompt.models.sam2:Sam2Model",
    has_memory=True,
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

# A later family may have grown from an earlier one: its checkpoints are recognised first.
FAMILIES: dict[str, Family] = {family.name: family for family in (SAM, SAM2)}


def family_of(name: str) -> Family:
    """Look up a family by its name. Raises UnknownFamily."""
    if name not in FAMILIES:
        raise UnknownFamily(f"there is no family '{name}'; known: {', '.join(FAMILIES)}{suggestion(name, FAMILIES)}")
    return FAMILIES[name]

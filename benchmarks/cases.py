"""What is measured: volumes, prompts, weights and schemes, made once in a folder that both runners read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from volprompt.models.base import PromptableModel
from volprompt.models.devices import Device
from volprompt.models.loading import adapter_of, load_model
from volprompt.models.segmented import LoadedVolume
from volprompt.phantom.image import make_phantom
from volprompt.phantom.study import write_phantom
from volprompt.prompts.candidates import extract_shard, read_prompts
from volprompt.prompts.schemes import scheme_prompts
from volprompt.segmentation.segment import segment_shard
from volprompt.settings.schemes import Scheme
from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import read_frames

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "results" / "benchmarks"
DEMO: dict[str, Any] = yaml.safe_load((REPOSITORY / "config" / "demo.yaml").read_text(encoding="utf-8"))
LABELS = {name: structure["labels"] for name, structure in DEMO["structures"].items()}
SCORED = ["femur", "tibia"]
SCHEMES = {"sam": ["point", "box"], "sam2": ["point", "point_video", "three_points_video"]}
FULL, FULL_SPACING = (160, 384, 384), (0.7, 0.365, 0.365)
# Object scores of random weights are negative, and masks of absent objects would be empty.
PRESENT = "sam_mask_decoder.pred_obj_score_head"


@dataclass
class Case:
    """One comparison.

    architecture: as in the configuration; checkpoint: None for random weights; shape and spacing: of the phantoms;
    inference: further settings of that section.
    """

    name: str
    family: str
    architecture: str
    checkpoint: str | None
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    volumes: int = 1
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 2
    schemes: list[str] = field(default_factory=list)
    inference: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.schemes = self.schemes or SCHEMES[self.family]

    @property
    def definitions(self) -> dict[str, dict[str, Any]]:
        """The schemes as config/demo.yaml defines them."""
        return {name: DEMO["schemes"][name] for name in self.schemes}

    @property
    def model(self) -> dict[str, str]:
        """What `segment_shard` and `load_model` are told of the model."""
        return {"name": self.name, "family": self.family, "architecture": self.architecture, "digest": "content:"}

    def load(
        self, folder: Path, precision: str | None = None, attention: Literal["auto", "package"] = "auto"
    ) -> tuple[PromptableModel, LoadedVolume, dict[str, Scheme]]:
        """The model, the first volume with its prompts, and the schemes; precision: instead of the case's."""
        assert self.checkpoint
        device = Device(self.device, precision or self.precision, self.device, attention)
        model = load_model(self.model, self.checkpoint, device)
        frames = read_frames(folder / "volumes", "knee_900")
        table = read_prompts(folder / "prompts.parquet")
        schemes = {name: Scheme(**definition) for name, definition in self.definitions.items()}
        prompts = {
            name: scheme_prompts(
                scheme, table[table["volume"] == "knee_900"], list(LABELS), SCORED, len(frames)
            ).prompts
            for name, scheme in schemes.items()
        }
        return model, LoadedVolume("knee_900", model.prepare(frames), frames.shape[1:], prompts), schemes

    def segment(self, folder: Path, masks: Path) -> None:
        """The whole job on the case's volumes: the function behind the rule `segment`."""
        assert self.checkpoint
        segment_shard(
            volumes=folder / "volumes",
            prompts=folder / "prompts.parquet",
            checkpoint=self.checkpoint,
            model=self.model,
            schemes=self.definitions,
            labels=LABELS,
            scored=SCORED,
            inference={"device": self.device, "precision": self.precision, **self.inference},
            masks=masks,
            threads=self.threads,
        )

    def make(self, folder: Path) -> None:
        """Write volumes, prompts, weights and `case.json` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for seed in range(900, 900 + self.volumes):
            image, labels = folder / f"{seed}_image.nii.gz", folder / f"{seed}_labels.nii.gz"
            write_phantom(make_phantom(seed, self.shape, self.spacing), image, labels)
            rows.append({"volume": f"knee_{seed}", "image": str(image), "reference": str(labels)})
        convert_shard(rows, DEMO["frames"], LABELS, folder / "volumes")
        extract_shard(folder / "volumes", LABELS, [], folder / "prompts.parquet")
        if self.checkpoint is None:
            self.checkpoint = str(folder / "random.pt")
            torch.save(random_weights(self.family, self.architecture), self.checkpoint)
        (folder / "case.json").write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")


def read_case(folder: Path) -> Case:
    """A case that `Case.make` wrote."""
    return Case(**json.loads((folder / "case.json").read_text(encoding="utf-8")))


def random_weights(family: str, architecture: str) -> dict[str, Any]:
    """Weights of an official size in the official layout; their masks mean nothing, their cost is the real one."""
    torch.manual_seed(0)
    module = adapter_of(family).build(architecture)
    if family != "sam2":
        return module.state_dict()
    with torch.no_grad():
        head = module.get_submodule(PRESENT)
        bias = head.layers[-1].bias if hasattr(head, "layers") else head.bias
        bias.fill_(3.0)
    return {"model": module.state_dict()}


def demo(family: str, **changes: Any) -> Case:
    """The demo's model on whole phantoms at full resolution."""
    checkpoint, architecture = {"sam": ("demo_sam.pth", "sam_demo.yaml"), "sam2": ("demo_sam2.pt", "sam2_demo.yaml")}[
        family
    ]
    settings = {
        "name": f"demo_{family}",
        "family": family,
        "architecture": str(REPOSITORY / "demo" / architecture),
        "checkpoint": str(REPOSITORY / "demo" / "checkpoints" / checkpoint),
        "shape": FULL,
        "spacing": FULL_SPACING,
    }
    return Case(**{**settings, **changes})


def official(name: str, family: str, architecture: str, slices: int | None, **changes: Any) -> Case:
    """A model of an official size on full frames: a few slices, or whole volumes of 160."""
    shape = (slices, *FULL[1:]) if slices else FULL
    spacing = (112 / slices, *FULL_SPACING[1:]) if slices else FULL_SPACING
    return Case(name, family, architecture, None, shape, spacing, **changes)


# Architectures of the published sizes, by the names of their models.
PUBLISHED_SAM = {f"sam_{size}": size for size in ("vit_b", "vit_l", "vit_h")}
PUBLISHED_SAM2 = {
    f"sam2.1_hiera_{size}": f"configs/sam2.1/sam2.1_hiera_{short}.yaml"
    for size, short in {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}.items()
}
TINY = PUBLISHED_SAM2["sam2.1_hiera_tiny"]


def suite(size: str, device: str) -> list[Case]:
    """The cases of a size: 'demo' (a minute or two), 'official' (a few slices; many minutes), 'full' (for a GPU)."""
    if size == "demo":
        return [demo(family, device=device) for family in ("sam", "sam2")]
    if size == "official":
        return [
            official("sam_vit_b", "sam", "vit_b", 5, device=device),
            official("sam2.1_hiera_tiny", "sam2", TINY, 5, device=device),
        ]
    full: dict[str, Any] = {"slices": None, "device": device, "precision": "bfloat16", "volumes": 4}
    return [
        *(official(name, "sam", architecture, **full) for name, architecture in PUBLISHED_SAM.items()),
        *(official(name, "sam2", architecture, **full) for name, architecture in PUBLISHED_SAM2.items()),
    ]

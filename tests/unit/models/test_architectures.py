"""The official architectures as they are built here: their size, and the tensors of the real checkpoints."""

import json
from pathlib import Path

import pytest
import torch

from volprompt.models.model import ArchitectureError
from volprompt.models.sam import SamModel
from volprompt.models.sam2 import Sam2Model

# Counted from the packages' own constructors by others (SAM ViT-B is "91 M", ViT-L "308 M", ViT-H "636 M" without the
# prompt encoder and decoder in the SAM paper; SAM 2 gives 38.9, 80.8 M).
PARAMETERS = {
    "vit_b": 93_735_472,
    "vit_l": 312_342_832,
    "vit_h": 641_090_608,
    "configs/sam2/sam2_hiera_t.yaml": 38_945_986,
    "configs/sam2/sam2_hiera_b+.yaml": 80_833_666,
    "configs/sam2.1/sam2.1_hiera_t.yaml": 38_962_498,
    "configs/sam2.1/sam2.1_hiera_b+.yaml": 80_850_178,
}

REAL = {
    "sam2.1_hiera_tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "sam2.1_hiera_small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "sam2.1_hiera_base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "sam2.1_hiera_large": "configs/sam2.1/sam2.1_hiera_l.yaml",
    "MedSAM2_pretrain": "configs/sam2/sam2_hiera_t.yaml",  # with images of 512 pixels
}


def built(architecture: str) -> torch.nn.Module:
    """The module; SAM's without memory for its weights, which SAM 2's Hiera does not allow."""
    if not architecture.startswith("vit"):
        return Sam2Model.build(architecture)
    with torch.device("meta"):
        return SamModel.build(architecture)


@pytest.mark.parametrize("architecture", PARAMETERS)
def test_number_of_parameters(architecture: str) -> None:
    module = built(architecture)
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[architecture]


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_tensors_of_real_checkpoints(shared_data: Path, name: str) -> None:
    listed = json.loads((shared_data / "checkpoints" / f"{name}.keys.json").read_text())
    real = {key.removeprefix("model/"): tuple(value["shape"]) for key, value in listed.items()}
    ours = {key: tuple(tensor.shape) for key, tensor in built(REAL[name]).state_dict().items()}
    assert ours == real


def test_sam2_has_three_tensors_fewer_than_sam2_1() -> None:
    older = set(built("configs/sam2/sam2_hiera_t.yaml").state_dict())
    newer = set(built("configs/sam2.1/sam2.1_hiera_t.yaml").state_dict())
    assert newer - older == {"no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"}
    assert not older - newer


def test_another_image_size_has_the_same_tensors() -> None:
    """As MedSAM2's: SAM 2 tiny on images of 512 pixels."""
    usual, small = (Sam2Model.build(REAL["MedSAM2_pretrain"], image_size=size) for size in (None, 512))
    assert (usual.image_size, small.image_size) == (1024, 512)
    assert small.sam_prompt_encoder.image_embedding_size == (32, 32)
    shapes = [{key: tensor.shape for key, tensor in module.state_dict().items()} for module in (usual, small)]
    assert shapes[0] == shapes[1]


def test_sam_has_one_image_size() -> None:
    with pytest.raises(ArchitectureError, match="leave image_size out"):
        SamModel.build("vit_b", image_size=512)

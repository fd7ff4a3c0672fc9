"""SAM 2 of two packages: the demo's weights, converted, in transformers' own video model give the same masks.

The package `sam2`, which the adapter is built on, is not published by the model's authors and does not change any more;
transformers wrote its SAM 2 anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tests.unit.models.in_transformers import PackageSession
from tests.unit.models.official import BOX, DEMO, POINT, POINTS, Given, assert_same, dice, loaded_sam2, prompt, ring
from tests.unit.models.test_equivalence import tracked
from transformers import (
    Sam2HieraDetConfig,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VisionConfig,
)

from volprompt.models.sam2_parts import Sam2Parts

WIDTH, MEMORY_WIDTH, SIDE = 64, 16, 256
# What the names of SAM 2's authors are in transformers, in this order.
NAMES = {
    r"^image_encoder\.trunk\.": "vision_encoder.backbone.",
    r"^image_encoder\.neck\.convs\.(\d+)\.conv\.": r"vision_encoder.neck.convs.\1.",
    r"patch_embed\.proj\.": "patch_embed.projection.",
    r"^sam_prompt_encoder\.": "prompt_encoder.",
    r"^sam_mask_decoder\.": "mask_decoder.",
    r"pe_layer\.positional_encoding_gaussian_matrix": "shared_embedding.positional_embedding",
    r"mask_downscaling\.0\.": "mask_embed.conv1.",
    r"mask_downscaling\.1\.": "mask_embed.layer_norm1.",
    r"mask_downscaling\.3\.": "mask_embed.conv2.",
    r"mask_downscaling\.4\.": "mask_embed.layer_norm2.",
    r"mask_downscaling\.6\.": "mask_embed.conv3.",
    r"output_upscaling\.0\.": "upscale_conv1.",
    r"output_upscaling\.1\.": "upscale_layer_norm.",
    r"output_upscaling\.3\.": "upscale_conv2.",
    r"mask_downsampler\.encoder\.6\.": "mask_downsampler.final_conv.",
    r"mask_downsampler\.encoder\.0\.": "mask_downsampler.layers.0.conv.",
    r"mask_downsampler\.encoder\.1\.": "mask_downsampler.layers.0.layer_norm.",
    r"mask_downsampler\.encoder\.3\.": "mask_downsampler.layers.1.conv.",
    r"mask_downsampler\.encoder\.4\.": "mask_downsampler.layers.1.layer_norm.",
    r"memory_encoder\.pix_feat_proj\.": "memory_encoder.feature_projection.",
    r"memory_encoder\.out_proj\.": "memory_encoder.projection.",
    r"memory_encoder\.fuser\.": "memory_encoder.memory_fuser.",
    r"\.gamma$": ".scale",
    r"\.dwconv\.": ".depthwise_conv.",
    r"\.pwconv": ".pointwise_conv",
    r"\.out_proj\.": ".o_proj.",
    r"\.norm(\d?)\.": r".layer_norm\1.",
    r"\.norm_final_attn\.": ".layer_norm_final_attn.",
    r"^maskmem_tpos_enc$": "memory_temporal_positional_encoding",
    r"^no_mem_embed$": "no_memory_embedding",
    r"^no_mem_pos_enc$": "no_memory_positional_encoding",
    r"^no_obj_ptr$": "no_object_pointer",
    r"^no_obj_embed_spatial$": "occlusion_spatial_embedding_parameter",
    r"^obj_ptr_tpos_proj\.": "temporal_positional_encoding_projection_layer.",
    r"^obj_ptr_proj\.": "object_pointer_proj.",
    # Of two layers the first and the last, of three the first, a middle one, and the last
    r"((?:blocks|transformer\.layers)\.\d+\.mlp)\.layers\.0\.": r"\1.proj_in.",
    r"((?:blocks|transformer\.layers)\.\d+\.mlp)\.layers\.1\.": r"\1.proj_out.",
    r"(mlps\.\d+|_head|pointer_proj)\.layers\.0\.": r"\1.proj_in.",
    r"(mlps\.\d+|_head|pointer_proj)\.layers\.1\.": r"\1.layers.0.",
    r"(mlps\.\d+|_head|pointer_proj)\.layers\.2\.": r"\1.proj_out.",
}


def converted(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """SAM 2's tensors under the names of transformers."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        for old, new in NAMES.items():
            name = re.sub(old, new, name)
        found[name] = tensor
    points = [found.pop(f"prompt_encoder.point_embeddings.{index}.weight") for index in range(4)]
    found["prompt_encoder.point_embed.weight"] = torch.cat(points)
    found["shared_image_embedding.positional_embedding"] = found["prompt_encoder.shared_embedding.positional_embedding"]
    return found


@pytest.fixture(scope="module")
def second() -> Any:
    """The demo's SAM 2 in transformers."""
    encoder = Sam2HieraDetConfig(
        hidden_size=24,
        num_attention_heads=1,
        image_size=[SIDE, SIDE],
        num_query_pool_stages=2,
        blocks_per_stage=[1, 2, 3],
        embed_dim_per_stage=[24, 48, 96],
        num_attention_heads_per_stage=[1, 2, 4],
        window_size_per_stage=[8, 4, 8],
        global_attention_blocks=[4, 5],
    )
    vision = Sam2VisionConfig(
        backbone_config=encoder,
        backbone_channel_list=[96, 48, 24],
        backbone_feature_sizes=[[64, 64], [32, 32], [16, 16]],
        fpn_hidden_size=WIDTH,
        fpn_top_down_levels=[1, 2],
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": SIDE},
        mask_decoder_config={"hidden_size": WIDTH},
        image_size=SIDE,
        memory_attention_hidden_size=WIDTH,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=256,
        memory_attention_rope_feat_sizes=[16, 16],
        memory_encoder_hidden_size=WIDTH,
        memory_encoder_output_channels=MEMORY_WIDTH,
        mask_downsampler_embed_dim=WIDTH,
        mask_downsampler_kernel_size=4,
        mask_downsampler_stride=4,
        mask_downsampler_padding=0,
        memory_fuser_embed_dim=WIDTH,
        memory_fuser_intermediate_dim=4 * WIDTH,
    )
    model: Any = Sam2VideoModel._from_config(config, attn_implementation="sdpa").eval()
    for layer in model.memory_attention.layers:  # the package knows memories of 64 channels only
        for name in ("k_proj", "v_proj"):
            setattr(layer.cross_attn_image, name, torch.nn.Linear(MEMORY_WIDTH, WIDTH))
    tensors = torch.load(DEMO / "checkpoints" / "demo_sam2.pt", weights_only=True)
    model.load_state_dict(converted(tensors.get("model", tensors)))
    return model


GIVEN: dict[str, Given] = {
    "point": POINT[0],
    "points": POINTS[1],
    "box": BOX[0],
    "mask": prompt("femur", 5, [], [], mask=ring((20, 40), 15, 0)),
    "several slices": [prompt("femur", 3, [(40.25, 20.5)], [1]), prompt("femur", 8, [(44.0, 22.0)], [1])],
}


@pytest.mark.usefixtures("resized_in_two_threads")
@pytest.mark.parametrize("kind", GIVEN)
def test_both_packages_find_the_same_masks(second: Any, frames: np.ndarray, kind: str) -> None:
    ours = loaded_sam2(DEMO / "checkpoints" / "demo_sam2.pt", architecture=DEMO / "sam2_demo.yaml")
    grey = ours.resize(torch.from_numpy(frames)[:, None].float() / 255).expand(-1, 3, -1, -1)
    session = PackageSession("sam2", second, (grey - ours.mean) / ours.std, GIVEN[kind])
    theirs = session.tracked()
    # A mask that is a prompt enters memory as it is in transformers, and as the decoder's size shows it in sam2.
    with mock.patch.object(Sam2Parts, "remembers_shown", kind != "mask"):
        (mask,) = tracked(ours, frames, [GIVEN[kind]])
    assert_same(mask, theirs)
    if kind == "mask":
        (mask,) = tracked(ours, frames, [GIVEN[kind]])
        assert 0.95 < dice(mask, theirs) < 0.999

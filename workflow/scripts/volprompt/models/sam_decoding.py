"""SAM 1's prompts and masks for many images at once; the package takes one image and its prompts at a time."""

from __future__ import annotations

from typing import Any

import torch


def decode_each(
    module: Any, embeddings: torch.Tensor, sparse: torch.Tensor, dense: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`MaskDecoder.predict_masks`, which takes one image and its prompts, for one image per prompt.

    Returns mask logits (n, 4, y, x) of the single mask and the three others, and their estimated quality (n, 4).
    """
    decoder = module.mask_decoder
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(len(sparse), -1, -1)
    source = embeddings + dense
    positions = module.prompt_encoder.get_dense_pe().expand(len(sparse), -1, -1, -1)
    tokens, pixels = decoder.transformer(source, positions, torch.cat([tokens, sparse], dim=1))
    upscaled = decoder.output_upscaling(pixels.transpose(1, 2).reshape(source.shape))
    weights = torch.stack([mlp(tokens[:, 1 + n]) for n, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1)
    return (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:]), decoder.iou_prediction_head(tokens[:, 0])


def embed_points(prompt_encoder: Any, points: torch.Tensor, labels: torch.Tensor, pad: bool) -> torch.Tensor:
    """What `PromptEncoder._embed_points` returns, (n, points, channel), without a question to the device.

    points: float32 (n, points, 2) as x, y; labels: (n, points), 1 positive and 0 negative; pad: whether a point that is
    none is added.
    """
    encoder, size = prompt_encoder, prompt_encoder.input_image_size
    kinds = torch.cat([encoder.point_embeddings[0].weight, encoder.point_embeddings[1].weight])
    embedded = encoder.pe_layer.forward_with_coords(points + 0.5, size)
    embedded = embedded + torch.where(labels[..., None] == 1, kinds[1], kinds[0])
    if pad:
        embedded = torch.cat([embedded, encoder.not_a_point_embed.weight.expand(len(points), 1, -1)], dim=1)
    return embedded

"""Prompts as SAM 2 takes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from volprompt.models.base import to_device
from volprompt.prompts.schemes import ObjectPrompt

# Logits of masks that are decoded once more are cut off here, as both of the package's predictors do.
LARGEST_LOGIT = 32.0


def point_inputs(
    prompts: Sequence[ObjectPrompt], size: tuple[int, int], image_size: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Prompts of one form as SAM 2 takes them: coordinates of its own image; a box is two points labelled 2 and 3.

    size: height and width of a frame. Returns point_coords (n, points, 2) float32 and point_labels (n, points) int32.
    """
    height, width = size
    coords: np.ndarray = np.stack([prompt.points for prompt in prompts]).astype(np.float32)
    labels = np.stack([prompt.labels for prompt in prompts]).astype(np.int32)
    if prompts[0].box is not None:
        corners = np.array([prompt.box for prompt in prompts], np.float32).reshape(-1, 2, 2)
        coords = np.concatenate([corners, coords], axis=1)
        labels = np.concatenate([np.full((len(prompts), 2), (2, 3), np.int32), labels], axis=1)
    coords = coords / np.array([width, height], np.float32) * np.float32(image_size)
    return {"point_coords": to_device(coords, device), "point_labels": to_device(labels, device)}


def mask_inputs(prompts: Sequence[ObjectPrompt], image_size: int, device: torch.device) -> torch.Tensor:
    """Mask prompts as SAM 2 takes them: on its own image, (n, 1, y, x) float32 of 0 and 1, as `add_new_mask` does."""
    given = to_device(np.stack([prompt.mask for prompt in prompts if prompt.mask is not None]), device)
    size = (image_size, image_size)
    masks = given[:, None].float()
    if masks.shape[-2:] != size:
        masks = functional.interpolate(masks, size, mode="bilinear", align_corners=False, antialias=True)
    return (masks >= 0.5).float()


def as_mask_input(logits: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Mask logits of an earlier decoding, each float32 (1, y, x), as the package hands them on: (n, 1, y, x), clamped.

    Either all or none of them are there; None for none.
    """
    known = [each for each in logits if each is not None]
    return torch.stack(known).clamp(-LARGEST_LOGIT, LARGEST_LOGIT) if known else None

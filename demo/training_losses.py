"""Losses of promptable segmentation, as in the SAM papers: mask, mask quality, presence."""

from __future__ import annotations

import torch
from torch.nn import functional

FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT, PRESENCE_WEIGHT = 5.0, 1.0, 0.5, 1.0


def mask_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Focal (gamma 2) and Dice loss of each mask; logits and target (..., y, x), target in 0 to 1."""
    chance = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = (entropy * (chance - target).abs().square()).mean(dim=(-2, -1))
    overlap = 2 * (chance * target).sum(dim=(-2, -1)) + 1
    dice = 1 - overlap / (chance.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1)) + 1)
    cross = entropy.mean(dim=(-2, -1))
    return FOCAL_WEIGHT * focal + 0.5 * cross + DICE_WEIGHT * dice


def measured_iou(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Intersection over union of each mask at threshold 0, without gradient."""
    predicted, wanted = logits.detach() > 0, target > 0.5
    union = (predicted | wanted).sum(dim=(-2, -1))
    return (predicted & wanted).sum(dim=(-2, -1)) / union.clamp(min=1)


def decoder_losses(logits: torch.Tensor, iou: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Loss per prompt, (prompts,), of the single mask and of the best of the three others.

    logits: (prompts, 4, y, x), all masks of the decoder; iou: (prompts, 4), its own estimate of their quality;
    target: (prompts, y, x).
    """
    wanted = target[:, None].expand_as(logits)
    each = mask_loss(logits, wanted)
    best = each[:, 1:].min(dim=1).values + 0.1 * each[:, 1:].mean(dim=1)
    quality = (iou.float() - measured_iou(logits, wanted)).square().mean(dim=1)
    return each[:, 0] + best + IOU_WEIGHT * quality


def presence_loss(scores: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of object scores, logits (objects,), and presence, bool (objects,)."""
    return PRESENCE_WEIGHT * functional.binary_cross_entropy_with_logits(scores, present.float())

"""Small holes of masks, filled as the sam2 package does where its CUDA extension is built; here on any machine."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

# Neighbours in a mask, corners included, and none in the mask before or after it.
NEIGHBOURS = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
# The logit that a filled pixel gets, as in the package.
FILLED = 0.1


def fill_holes(logits: torch.Tensor, area: int) -> torch.Tensor:
    """Give each connected region of at most `area` background pixels (logits <= 0) a small positive logit.

    logits: (n, 1, y, x) at the decoder's size, where the package fills too; likewise returned. Neighbours touch by
    sides or corners (8-connectivity). The rule is that of `sam2.utils.misc.fill_holes_in_mask_scores`.
    """
    if not area:
        return logits
    regions, _ = ndimage.label((logits[:, 0] <= 0).cpu().numpy(), NEIGHBOURS)
    small = np.bincount(regions.ravel()) <= area
    small[0] = False  # region 0 is the foreground
    holes = torch.from_numpy(small[regions])[:, None].to(logits.device)
    return torch.where(holes, FILLED, logits)

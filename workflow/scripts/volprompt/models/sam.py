"""SAM 1 (package segment-anything). Results equal those of its `SamPredictor`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from segment_anything import sam_model_registry
from segment_anything.utils.transforms import ResizeLongestSide
from torchvision.transforms.functional import resize

from volprompt.models.base import Decoded, PromptableModel, build_from_yaml, to_device
from volprompt.models.devices import Device
from volprompt.models.kernels import BY_SHAPE
from volprompt.models.model import ArchitectureError
from volprompt.models.sam_attention import fuse_attention
from volprompt.models.sam_decoding import decode_each, embed_points
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.settings.schemes import MaskChoice

# Frames that are resized at the same time.
RESIZERS = 4
# Frames that one of them puts in order together.
RESIZED_TOGETHER = 8


class SamModel(PromptableModel):
    """ViT-B, ViT-L, ViT-H, or a YAML file that builds a `segment_anything.modeling.Sam`."""

    def __init__(self, module: Any, device: Device) -> None:
        super().__init__(module, device)
        if not self.attention_settings.as_package:
            fuse_attention(self.module, self.attention_settings)
        # The package's way looks at the labels on the device, and waits for it.
        self.module.prompt_encoder._embed_points = partial(embed_points, self.module.prompt_encoder)
        self.transform = ResizeLongestSide(self.module.image_encoder.img_size)
        self.speed_up(self.module)

    @staticmethod
    def build(architecture: str, image_size: int | None = None) -> torch.nn.Module:
        """A `segment_anything.modeling.Sam`, of the package or of a YAML file."""
        if image_size is not None:
            raise ArchitectureError("SAM's weights hold its positions for one image size; leave image_size out")
        if architecture in sam_model_registry:
            return sam_model_registry[architecture](checkpoint=None)
        return build_from_yaml(Path(architecture), {})

    @property
    def kernels(self) -> dict[str, str]:
        """Of the attention of encoder and decoder."""
        if self.attention_settings.as_package:
            return {"image": "as the package", "decoder": "as the package"}
        return {"image": "fused, the bias of relative positions in parts", "decoder": BY_SHAPE}

    @property
    def parts(self) -> Sequence[torch.nn.Module]:
        """The encoder, and the transformer of the decoder."""
        return self.module.image_encoder, self.module.mask_decoder.transformer

    @property
    def image_size(self) -> int:
        """1024 for the published models."""
        return int(self.module.image_encoder.img_size)

    def prepare(self, frames: np.ndarray) -> np.ndarray:
        """Resize the longest side as `SamPredictor` does, by PIL, bilinear on 8 bit."""
        size = list(self.transform.get_preprocess_shape(*frames.shape[1:], self.transform.target_length))

        def resized(some: np.ndarray) -> list[np.ndarray]:
            # In files slices alternate voxel by voxel. Some are copied as they lie, so that a cache holds them, and put
            # in order then; PIL would do that with each by itself.
            ordered = np.ascontiguousarray(some.copy(order="K"))
            return [np.asarray(resize(Image.fromarray(frame), size)) for frame in ordered]

        with ThreadPoolExecutor(RESIZERS, "resize") as pool:
            firsts = range(0, len(frames), RESIZED_TOGETHER)
            return np.concatenate(list(pool.map(resized, (frames[at : at + RESIZED_TOGETHER] for at in firsts))))

    def encode(self, frames: np.ndarray) -> list[torch.Tensor]:
        """Normalize, pad to a square and encode: one level."""
        colour = to_device(frames, self.device)[:, None].expand(-1, 3, -1, -1)
        return [self.module.image_encoder(self.module.preprocess(colour))]

    def decode(
        self,
        levels: Sequence[torch.Tensor],
        prompts: Sequence[ObjectPrompt],
        size: tuple[int, int],
        multimask: MaskChoice,
        logits: torch.Tensor | None = None,
    ) -> Decoded:
        """Prompts of any slices are one batch. SAM 1 has no object score."""
        points, boxes = None, None
        if len(prompts[0].points):
            coords = self.transform.apply_coords(np.stack([prompt.points for prompt in prompts]), size)
            labels = np.stack([prompt.labels for prompt in prompts])
            points = self._tensor(coords), to_device(labels, self.device)
        if prompts[0].box is not None:
            boxes = self._tensor(self.transform.apply_boxes(np.array([prompt.box for prompt in prompts]), size))
        sparse, dense = self.module.prompt_encoder(points=points, boxes=boxes, masks=logits)
        low_res, iou = decode_each(self.module, levels[0], sparse, dense)
        kept = {"first": slice(1, 2), "best": slice(1, None)}.get(str(multimask), slice(0, 1))
        low_res, iou = low_res[:, kept], iou[:, kept]
        iou, best = iou.float().max(dim=1)
        low_res = low_res[torch.arange(len(prompts), device=best.device), best][:, None].float()
        input_size = self.transform.get_preprocess_shape(*size, self.transform.target_length)
        masks = self.module.postprocess_masks(low_res, input_size, size)[:, 0] > self.module.mask_threshold
        return Decoded(masks, low_res, torch.stack([iou, torch.full_like(iou, torch.nan)]))

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return to_device(array.astype(np.float32), self.device)

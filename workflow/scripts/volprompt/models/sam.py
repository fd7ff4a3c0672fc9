"""SAM 1 (package segment-anything). Results equal those of its `SamPredictor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from segment_anything import sam_model_registry
from segment_anything.utils.transforms import ResizeLongestSide
from torchvision.transforms.functional import resize

from volprompt.checkpoints import load_into
from volprompt.devices import Device
from volprompt.models.base import PromptableModel, VolumeFeatures, alike, build_from_yaml
from volprompt.schemes import ObjectPrompt


class SamModel(PromptableModel):
    """ViT-B, ViT-L, ViT-H, or a YAML file that builds a `segment_anything.modeling.Sam`."""

    def __init__(self, architecture: str, checkpoint: str, device: Device) -> None:
        super().__init__(device)
        self.module = build_sam(architecture)
        load_into(self.module, checkpoint, f"sam architecture {architecture}")
        self.module.to(self.device)
        self.transform = ResizeLongestSide(self.module.image_encoder.img_size)

    def encode_batch(self, frames: np.ndarray) -> list[torch.Tensor]:
        """Resize as `SamPredictor` does (PIL bilinear on 8 bit, longest side, padded) and encode: one level."""
        size = self.transform.get_preprocess_shape(*frames.shape[1:], self.transform.target_length)
        grey = np.stack([np.asarray(resize(Image.fromarray(frame), list(size))) for frame in frames])
        colour = torch.from_numpy(grey).to(self.device)[:, None].expand(-1, 3, -1, -1)
        return [self.module.image_encoder(self.module.preprocess(colour))]

    @torch.inference_mode()
    def decode(
        self, features: VolumeFeatures, prompts: Sequence[ObjectPrompt], size: tuple[int, int], multimask: bool
    ) -> Iterator[tuple[ObjectPrompt, np.ndarray]]:
        """The decoder takes one image at a time with all of its prompts of one form."""
        input_size = self.transform.get_preprocess_shape(*size, self.transform.target_length)
        for index, on_slice in groupby(sorted(prompts, key=_slice_of), key=_slice_of):
            embedding = features.of([index])[0]
            for batch in alike(on_slice):
                with self.arithmetic():
                    low_res, iou = self._low_res_masks(embedding, batch, size, multimask)
                    logits = self.module.postprocess_masks(low_res.float(), input_size, size)
                best = iou.argmax(dim=1)
                masks = logits[torch.arange(len(batch)), best] > self.module.mask_threshold
                yield from zip(batch, masks.cpu().numpy(), strict=True)

    def _low_res_masks(
        self, embedding: torch.Tensor, batch: Sequence[ObjectPrompt], size: tuple[int, int], multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        points, boxes = None, None
        if len(batch[0].points):
            coords = self.transform.apply_coords(np.stack([prompt.points for prompt in batch]), size)
            labels = np.stack([prompt.labels for prompt in batch])
            points = self._tensor(coords), torch.as_tensor(labels, device=self.device)
        if batch[0].box is not None:
            boxes = self._tensor(self.transform.apply_boxes(np.array([prompt.box for prompt in batch]), size))
        sparse, dense = self.module.prompt_encoder(points=points, boxes=boxes, masks=None)
        return self.module.mask_decoder(
            image_embeddings=embedding,
            image_pe=self.module.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self.device)


def build_sam(architecture: str) -> torch.nn.Module:
    """Build a SAM model without its weights. Raises ArchitectureError."""
    if architecture in sam_model_registry:
        return sam_model_registry[architecture](checkpoint=None)
    return build_from_yaml(Path(architecture), {})


def _slice_of(prompt: ObjectPrompt) -> int:
    return prompt.slice

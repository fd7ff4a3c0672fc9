"""SAM 2 and 2.1 (package sam2). Results equal those of its `SAM2ImagePredictor` and `SAM2VideoPredictor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import sam2
import torch
from torch.nn import functional
from torchvision.transforms import Normalize, Resize

from volprompt.checkpoints import load_into
from volprompt.devices import Device
from volprompt.models.base import PromptableModel, VolumeFeatures, alike, build_from_yaml
from volprompt.models.tracking import FrameFeatures, point_inputs, track_objects
from volprompt.schemes import ObjectPrompt

# The colours' mean and standard deviation that the package normalises with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Prompts per decoder batch.
DECODER_BATCH = 16
# What the package's build functions set beside the configuration file: a single mask that is not stable gives way to
# the best of three, and a mask from clicks enters memory as the user sees it, binary.
BUILD_SETTINGS: dict[str, object] = {
    "_target_": "sam2.modeling.sam2_base.SAM2Base",
    "sam_mask_decoder_extra_args.dynamic_multimask_via_stability": True,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": 0.05,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": 0.98,
    "binarize_mask_from_pts_for_mem_enc": True,
}


class Sam2Model(PromptableModel):
    """A configuration of the sam2 package, or a YAML file of the same form.

    Frames are resized as the image predictor does (torchvision, bilinear with antialias), for image and video schemes
    alike, so that both share a slice's features.
    """

    def __init__(self, architecture: str, checkpoint: str, device: Device) -> None:
        super().__init__(device)
        self.module = build_sam2(architecture)
        load_into(self.module, checkpoint, f"sam2 architecture {architecture}")
        self.module.to(self.device)
        self.resize = Resize((self.module.image_size, self.module.image_size))
        self.normalize = Normalize(MEAN, STD)
        self.positions: list[torch.Tensor] = []

    def encode_batch(self, frames: np.ndarray) -> list[torch.Tensor]:
        """Resize and encode: the levels that the mask decoder and the memory use, finest first."""
        grey = torch.from_numpy(frames)[:, None].float().div(255)
        colour = self.normalize(self.resize(grey).expand(-1, 3, -1, -1)).to(self.device)
        encoded = self.module.forward_image(colour)
        used = self.module.num_feature_levels
        self.positions = [position[:1] for position in encoded["vision_pos_enc"][-used:]]
        return encoded["backbone_fpn"][-used:]

    @torch.inference_mode()
    def decode(
        self, features: VolumeFeatures, prompts: Sequence[ObjectPrompt], size: tuple[int, int], multimask: bool
    ) -> Iterator[tuple[ObjectPrompt, np.ndarray]]:
        """Prompts of one form are decoded in batches, across slices."""
        for group in alike(prompts):
            for start in range(0, len(group), DECODER_BATCH):
                batch = group[start : start + DECODER_BATCH]
                with self.arithmetic():
                    low_res, iou = self._low_res_masks(features, batch, size, multimask)
                logits = functional.interpolate(low_res.float(), size, mode="bilinear", align_corners=False)
                masks = logits[torch.arange(len(batch)), iou.argmax(dim=1)] > 0
                yield from zip(batch, masks.cpu().numpy(), strict=True)

    def track(
        self,
        features: VolumeFeatures,
        prompts: Sequence[ObjectPrompt],
        size: tuple[int, int],
        reset_between_directions: bool,
    ) -> list[np.ndarray]:
        """See `tracking.track_objects`."""
        with self.arithmetic():
            frames = FrameFeatures(features, self.positions)
            return track_objects(self.module, frames, prompts, size, reset_between_directions)

    def _low_res_masks(
        self, features: VolumeFeatures, batch: Sequence[ObjectPrompt], size: tuple[int, int], multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        *fine, coarse = features.of([prompt.slice for prompt in batch])
        if self.module.directly_add_no_mem_embed:
            coarse = coarse + self.module.no_mem_embed.reshape(1, -1, 1, 1)
        inputs = point_inputs(batch, size, self.module.image_size, self.device)
        sparse, dense = self.module.sam_prompt_encoder(
            points=(inputs["point_coords"], inputs["point_labels"]), boxes=None, masks=None
        )
        low_res, iou, _, _ = self.module.sam_mask_decoder(
            image_embeddings=coarse,
            image_pe=self.module.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=False,
            high_res_features=fine,
        )
        return low_res, iou


def build_sam2(architecture: str) -> torch.nn.Module:
    """Build a SAM 2 model without its weights, from a file or the package. Raises ArchitectureError."""
    path = Path(architecture)
    if not path.is_file():
        path = Path(sam2.__path__[0]) / architecture
    return build_from_yaml(path, BUILD_SETTINGS)

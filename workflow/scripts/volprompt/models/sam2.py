"""SAM 2 and 2.1 (package sam2). Results equal those of its `SAM2ImagePredictor` and `SAM2VideoPredictor`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sam2
import torch
from PIL import Image
from torchvision.transforms import Resize

from volprompt.models.base import Decoded, build_from_yaml, to_device
from volprompt.models.devices import Device
from volprompt.models.kernels import BY_SHAPE
from volprompt.models.memory_model import MemoryModel, decoded_of
from volprompt.models.memory_tracking import MemoryTracker
from volprompt.models.model import ArchitectureError
from volprompt.models.sam2_inputs import point_inputs
from volprompt.models.sam2_on_cpu import suit_cpu
from volprompt.models.sam2_parts import Sam2Parts
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.settings.schemes import MaskChoice

# The colours' mean and standard deviation that the package normalises with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What the package's build functions set beside the configuration file: a single mask that is not stable gives way to
# the best of three, and a mask from clicks enters memory as the user sees it, binary.
BUILD_SETTINGS: dict[str, object] = {
    "_target_": "sam2.modeling.sam2_base.SAM2Base",
    "sam_mask_decoder_extra_args.dynamic_multimask_via_stability": True,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": 0.05,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": 0.98,
    "binarize_mask_from_pts_for_mem_enc": True,
    # The package tracks one object at a time, where this has no effect; in a batch it would mix objects.
    "non_overlap_masks_for_mem_enc": False,
}


class Sam2Model(MemoryModel):
    """A configuration of the sam2 package, or a YAML file of the same form.

    Frames are resized as the image predictor does (torchvision, bilinear with antialias), for image and video schemes
    alike, so that both share a slice's features; `encode_for_video` resizes as the video loader does.
    """

    parts_class = Sam2Parts

    def __init__(self, module: Any, device: Device) -> None:
        super().__init__(module, device)
        if self.speeds_up_cpu:
            suit_cpu(self.module, self.attention_settings)
        self.chosen = _ChosenMask()
        self.module.sam_mask_decoder.register_forward_hook(self.chosen)
        self.resize = Resize((self.module.image_size, self.module.image_size))
        # Made once: torchvision's `Normalize` uploads them, and asks the device whether one is 0, at every call.
        self.mean, self.std = (torch.tensor(each, device=self.device).view(-1, 1, 1) for each in (MEAN, STD))

    @property
    def parts(self) -> Sequence[torch.nn.Module]:
        """The encoder, the attention to memory, the decoder, and the memory encoder."""
        module = self.module
        return module.image_encoder, self.tracking.attention, module.sam_mask_decoder, module.memory_encoder

    @property
    def kernels(self) -> dict[str, str]:
        """Of the attention to memory, and of encoder and decoder unless they are the package's."""
        others = {"image": BY_SHAPE, "decoder": BY_SHAPE} if self.speeds_up_cpu else {}
        return {**super().kernels, **others}

    @staticmethod
    def build(architecture: str, image_size: int | None = None) -> torch.nn.Module:
        """A `sam2.modeling.sam2_base.SAM2Base`, of a YAML file or the package."""
        path = Path(architecture)
        if not path.is_file():
            path = Path(sam2.__path__[0]) / architecture
        size = {} if image_size is None else {"image_size": image_size}
        return build_from_yaml(path, {**BUILD_SETTINGS, **size})

    def encode(self, frames: np.ndarray) -> list[torch.Tensor]:
        """Resize and encode: the levels that the mask decoder and the memory use, finest first."""
        return self._encode_resized(self.resize(to_device(frames, self.device)[:, None].float().div(255)))

    def encode_for_video(self, frames: np.ndarray) -> list[torch.Tensor]:
        """Like `encode`, resized by PIL, bicubic on 8 bit, as the package's `load_video_frames` does."""
        size = (self.module.image_size, self.module.image_size)
        resized = np.stack([np.asarray(Image.fromarray(frame).resize(size)) for frame in frames])
        return self._encode_resized(to_device(resized, self.device)[:, None].float().div(255))

    def _encode_resized(self, grey: torch.Tensor) -> list[torch.Tensor]:
        """Levels of frames, float (n, 1, y, x) from 0 to 1 at the size of the model's image."""
        colour = (grey - self.mean) / self.std
        levels = self.module.forward_image(colour)["backbone_fpn"]
        return [level.to(self.level_type) for level in levels[-self.module.num_feature_levels :]]

    def decode(
        self,
        levels: Sequence[torch.Tensor],
        prompts: Sequence[ObjectPrompt],
        size: tuple[int, int],
        multimask: MaskChoice,
        logits: torch.Tensor | None = None,
    ) -> Decoded:
        """Prompts of any slices are one batch."""
        *fine, coarse = levels
        if self.module.directly_add_no_mem_embed:
            coarse = coarse + self.module.no_mem_embed.reshape(1, -1, 1, 1)
        inputs = point_inputs(prompts, size, self.module.image_size, self.device)
        sparse, dense = self.module.sam_prompt_encoder(
            points=(inputs["point_coords"], inputs["point_labels"]), boxes=None, masks=logits
        )
        self.chosen.first = multimask == "first"
        low_res, iou, _, presence = self.module.sam_mask_decoder(
            image_embeddings=coarse,
            image_pe=self.module.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=bool(multimask),
            repeat_image=False,
            high_res_features=fine,
        )
        self.chosen.first = False
        return decoded_of(low_res, iou, presence, size)

    def tracker(self, hole_area: int = 0) -> MemoryTracker:
        """A tracker for some volumes."""
        if not self.module.num_maskmem or not self.module.directly_add_no_mem_embed:
            raise ArchitectureError("tracking needs num_maskmem of at least 1 and directly_add_no_mem_embed: true")
        return super().tracker(hole_area)


class _ChosenMask:
    """A hook of the mask decoder: of its masks the best by predicted IoU, or the first, before any is resized."""

    first = False

    def __call__(self, decoder: Any, inputs: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return masks, predicted IoU and tokens of one mask, and the presence of the object."""
        masks, iou, tokens, presence = output
        rows = torch.arange(len(masks), device=masks.device)
        chosen = torch.zeros_like(rows) if self.first else iou.argmax(dim=1)
        if tokens.shape[1] > 1:
            tokens = tokens[rows, chosen, None]
        return masks[rows, chosen, None], iou[rows, chosen, None], tokens, presence

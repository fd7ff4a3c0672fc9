"""Train the demo's small SAM from scratch: python demo/train_sam.py (an hour on two CPU cores; see --help)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from training_data import FORMS, Bank, draw_clip, draw_prompt, load_bank, mask_targets, model_images
from training_loop import options, seeded, train
from training_losses import decoder_losses

from volprompt.models.sam import SamModel, decode_each

IMAGES_PER_STEP = 8
OBJECTS_PER_IMAGE = 2
FORMS_PER_STEP = (("point",), ("box",), ("one_negative", "two_negatives"))


class SamTraining:
    """One step: images of random appearance, each with a few objects, each object under every kind of prompt."""

    def __init__(self, module: Any, bank: Bank, rng: np.random.Generator, device: str) -> None:
        self.module, self.bank, self.rng, self.device = module, bank, rng, device

    def step(self, progress: float) -> Mapping[str, torch.Tensor]:
        # More objects than are segmented: the others receive negative points.
        clips = [draw_clip(self.bank, self.rng, 1, 0, OBJECTS_PER_IMAGE + 1) for _ in range(IMAGES_PER_STEP)]
        picked = [(at, own) for at, clip in enumerate(clips) for own in range(min(OBJECTS_PER_IMAGE, len(clip.masks)))]
        images = self.module.preprocess(model_images(clips).to(self.device))
        with torch.autocast(self.device, torch.bfloat16):
            embeddings = self.module.image_encoder(images)
        rows = torch.tensor([at for at, _ in picked], device=self.device)
        size = self.module.prompt_encoder.mask_input_size[0]
        target = torch.stack([mask_targets(clips[at].masks[own, 0], size) for at, own in picked]).to(self.device)
        losses = {}
        for forms in FORMS_PER_STEP:
            form = str(self.rng.choice(forms))
            coords = np.stack([draw_prompt(form, clips[at].masks[:, 0], own, self.rng) for at, own in picked])
            logits, iou = self._decode(embeddings.float()[rows], form, torch.from_numpy(coords).to(self.device))
            losses[forms[0]] = decoder_losses(logits, iou, target).mean()
        return losses

    def _decode(self, embeddings: torch.Tensor, form: str, coords: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        prompts: dict[str, Any] = {"points": None, "boxes": None, "masks": None}
        if form == "box":
            prompts["boxes"] = coords.flatten(1)
        else:
            prompts["points"] = coords, torch.tensor([FORMS[form]], device=self.device).expand(len(coords), -1)
        sparse, dense = self.module.prompt_encoder(**prompts)
        return decode_each(self.module, embeddings, sparse, dense)


def check_decoder(module: Any) -> None:
    """The batched decoder must be the package's decoder."""
    size = module.prompt_encoder.embed_dim, *module.prompt_encoder.image_embedding_size
    device = next(module.parameters()).device
    with torch.inference_mode():
        embedding, boxes = torch.randn(1, *size, device=device), 256 * torch.rand(2, 4, device=device)
        sparse, dense = module.prompt_encoder(points=None, boxes=boxes, masks=None)
        positions = module.prompt_encoder.get_dense_pe()
        theirs = module.mask_decoder.predict_masks(embedding, positions, sparse, dense)
        ours = decode_each(module, embedding.expand(2, -1, -1, -1), sparse, dense)
        for one, other in zip(theirs, ours, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def main(given: argparse.Namespace) -> None:
    """Train and write the checkpoint: the state dict itself, as official ones."""
    rng = seeded(given)
    module = SamModel.build(given.architecture).to(given.device)
    if given.start:
        module.load_state_dict(torch.load(given.start, weights_only=True, map_location=given.device))
    check_decoder(module)
    bank = load_bank(given.cache, given.knees, given.shapes)
    train(module, SamTraining(module, bank, rng, given.device).step, given, dict)


if __name__ == "__main__":
    main(options(__doc__, "demo_sam.pth", "sam_demo.yaml", steps=9000, learning_rate=1e-3).parse_args())

"""Train the demo's small SAM 2: python demo/train_sam2.py (an hour on two CPU cores; see --help).

It begins with the mask decoder of the small SAM, which `train_sam.py` has trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torchvision.transforms.functional import normalize
from training_data import FORMS, Bank, Clip, draw_clip, draw_prompt, load_bank, mask_targets, model_images
from training_loop import HERE, options, seeded, train
from training_losses import decoder_losses, presence_loss

from volprompt.models.sam import SamModel
from volprompt.models.sam2 import MEAN, STD, Sam2Model

IMAGES_PER_STEP, CLIPS_PER_STEP = 8, 3
OBJECTS_PER_CLIP = 2
SLICES_PER_CLIP = (4, 8)
# Images alone come first; memory has nothing to carry before the first masks are good.
IMAGES_ONLY, VIDEO_SHARE = 0.2, 0.6
# A single point is ambiguous: this often it means a large bone with the small one beside it. A box or negative points
# settle it.
WHOLE_SHARE = 0.8


class Sam2Training:
    """One step: images, each object under several kinds of prompt; or clips, each object prompted on one slice."""

    def __init__(
        self, module: Any, teacher: Any, bank: Bank, rng: np.random.Generator, given: argparse.Namespace
    ) -> None:
        self.module, self.teacher, self.bank, self.rng = module, teacher, bank, rng
        self.device, self.images_only, self.video_share = given.device, given.images_only, given.video_share
        self.mask_size = module.sam_prompt_encoder.mask_input_size[0]

    def step(self, progress: float) -> Mapping[str, torch.Tensor]:
        video = progress >= self.images_only and self.rng.random() < self.video_share
        return self.video_step() if video else self.image_step(max(0.0, 1 - progress / max(self.images_only, 1e-9)))

    def image_step(self, guidance: float) -> Mapping[str, torch.Tensor]:
        """guidance: weight of the small SAM's features as a target for this model's."""
        clips = [self._clip(1, 0) for _ in range(IMAGES_PER_STEP)]
        picked = _picked(clips)
        features, _ = self._encode(clips, [at for at, _ in picked])
        *fine, coarse = (level[0] for level in features)
        losses = {}
        if guidance:
            losses["features"] = (
                2 * guidance * functional.mse_loss(coarse, self._taught(clips)[[at for at, _ in picked]])
            )
        coarse = coarse + self.module.no_mem_embed.reshape(1, -1, 1, 1)
        for name, form in (
            ("point", "point"),
            ("box", "box"),
            ("negatives", self._form("one_negative", "two_negatives")),
        ):
            points = self._points(form, clips, picked, 0)
            with recording(self.module.sam_mask_decoder) as records:
                self.module._forward_sam_heads(coarse, point_inputs=points, high_res_features=fine)
            losses[name] = self._losses(records, self._meant(form, clips, picked), [0])
        return losses

    def video_step(self) -> Mapping[str, torch.Tensor]:
        depth = int(self.rng.integers(SLICES_PER_CLIP[0], SLICES_PER_CLIP[1] + 1))
        start = int(self.rng.integers(depth))
        clips = [self._clip(depth, start) for _ in range(CLIPS_PER_STEP)]
        picked = _picked(clips)
        features, positions = self._encode(clips, [at for at, _ in picked])
        form = self._form("point", "point", "two_negatives", "two_negatives", "box")
        points = self._points(form, clips, picked, start)
        meant = self._meant(form, clips, picked)
        order = [*range(start, depth), *range(start - 1, -1, -1)]
        memory: dict[str, dict] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        with recording(self.module.sam_mask_decoder) as records:
            for index in order:
                prompted = index == start
                out = self.module.track_step(
                    frame_idx=index,
                    is_init_cond_frame=prompted,
                    current_vision_feats=[level[index].flatten(2).permute(2, 0, 1) for level in features],
                    current_vision_pos_embeds=positions,
                    feat_sizes=[tuple(level.shape[-2:]) for level in features],
                    point_inputs=points if prompted else None,
                    mask_inputs=None,
                    output_dict=memory,
                    num_frames=depth,
                    track_in_reverse=index < start,
                )
                memory["cond_frame_outputs" if prompted else "non_cond_frame_outputs"][index] = out
        present = torch.stack([masks[order].flatten(1).any(1) for masks in meant], dim=1)
        scores = torch.stack([record[3][:, 0] for record in records])
        return {
            "video": self._losses(records, meant, order),
            "presence": presence_loss(scores, present.to(self.device)),
        }

    @torch.no_grad()
    def _taught(self, clips: Sequence[Clip]) -> torch.Tensor:
        """The small SAM's image embeddings (clip, channel, y, x)."""
        with torch.autocast(self.device, torch.bfloat16):
            return self.teacher.image_encoder(self.teacher.preprocess(model_images(clips).to(self.device))).float()

    def _form(self, *forms: str) -> str:
        return str(self.rng.choice(forms))

    def _clip(self, depth: int, prompted: int) -> Clip:
        # More objects than are segmented: the others receive negative points.
        return draw_clip(self.bank, self.rng, depth, prompted, OBJECTS_PER_CLIP + 1)

    def _encode(self, clips: Sequence[Clip], rows: Sequence[int]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Features per level (slice, row, channel, y, x), the clip of each row as listed, and their positions."""
        images = normalize(model_images(clips).to(self.device) / 255, MEAN, STD)
        encoded = self.module.forward_image(images)
        levels = [level.reshape(len(clips), -1, *level.shape[1:]) for level in encoded["backbone_fpn"]]
        positions = [position[:1].expand(len(rows), -1, -1, -1) for position in encoded["vision_pos_enc"]]
        flat = [position.flatten(2).permute(2, 0, 1) for position in positions]
        return [level[rows].transpose(0, 1) for level in levels], flat

    def _points(
        self, form: str, clips: Sequence[Clip], picked: Sequence[tuple[int, int]], index: int
    ) -> dict[str, torch.Tensor]:
        coords = np.stack([draw_prompt(form, clips[at].masks[:, index], own, self.rng) for at, own in picked])
        labels = torch.tensor([FORMS[form]], dtype=torch.int32).expand(len(picked), -1)
        return {"point_coords": torch.from_numpy(coords).to(self.device), "point_labels": labels.to(self.device)}

    def _meant(self, form: str, clips: Sequence[Clip], picked: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """What each prompt means: masks bool (slice, y, x) of the object, or of it and the small bone beside it."""
        wholes = [form == "point" and self.rng.random() < WHOLE_SHARE for _ in picked]
        return [
            clips[at].wholes[own] if whole else clips[at].masks[own]
            for (at, own), whole in zip(picked, wholes, strict=True)
        ]

    def _losses(self, records: Sequence[tuple], meant: Sequence[torch.Tensor], order: Sequence[int]) -> torch.Tensor:
        """Mean over objects and slices of the decoder's losses, where the object is on the slice."""
        per_row = [mask_targets(masks[order], self.mask_size) for masks in meant]
        target = torch.stack(per_row, dim=1).flatten(0, 1).to(self.device)
        logits, iou = (torch.cat([record[part] for record in records]) for part in (0, 1))
        there = target.flatten(1).amax(1) > 0
        return (decoder_losses(logits, iou, target) * there).sum() / there.sum()


def _picked(clips: Sequence[Clip]) -> list[tuple[int, int]]:
    """The objects to segment: number of the clip, number of the object in it."""
    return [(at, own) for at, clip in enumerate(clips) for own in range(min(OBJECTS_PER_CLIP, len(clip.masks)))]


@contextmanager
def recording(decoder: Any) -> Iterator[list[tuple]]:
    """All four masks, their estimated quality, tokens and object scores of each call of the decoder in the block.

    The model itself goes on with the one mask that it would use in inference.
    """
    records: list[tuple] = []

    def predict_masks(*args: Any, **kwargs: Any) -> tuple:
        records.append(type(decoder).predict_masks(decoder, *args, **kwargs))
        return records[-1]

    decoder.predict_masks = predict_masks
    try:
        yield records
    finally:
        del decoder.predict_masks


def content(state: dict) -> dict:
    """The layout of an official SAM 2 checkpoint."""
    return {"model": dict(state)}


def initialise(module: Any, sam: Mapping[str, torch.Tensor]) -> None:
    """Take over the small SAM's prompt encoder and mask decoder, as far as the two families have them in common.

    From random weights the small SAM 2 stays for thousands of steps where it does not look at its prompts.
    """
    own = module.state_dict()
    for name, value in sam.items():
        target = _name_in_sam2(name)
        if target in own and "iou_prediction_head" not in target:
            # Where the layer is wider here, the further units start without effect.
            place = own[target]
            if target.endswith("mlp.layers.1.weight"):
                place.zero_()
            place[tuple(slice(length) for length in value.shape)] = value
    decoder = module.sam_mask_decoder
    for layer in (decoder.conv_s0, decoder.conv_s1):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    # At first every object is taken to be present: absent ones have no mask to learn from.
    torch.nn.init.constant_(decoder.pred_obj_score_head.layers[-1].bias, 2.0)


def _name_in_sam2(name: str) -> str:
    name = name.replace("prompt_encoder.", "sam_prompt_encoder.").replace("mask_decoder.", "sam_mask_decoder.")
    return name.replace("mlp.lin1", "mlp.layers.0").replace("mlp.lin2", "mlp.layers.1")


def main(given: argparse.Namespace) -> None:
    """Train and write the checkpoint."""
    rng = seeded(given)
    # The mode of inference throughout, so that memory holds in training what it holds there; the model has no dropout.
    module = Sam2Model.build(given.architecture).to(given.device)
    teacher = SamModel.build(given.sam_architecture).to(given.device)
    teacher.load_state_dict(torch.load(given.sam, weights_only=True, map_location=given.device))
    initialise(module, teacher.state_dict())
    if given.start:
        module.load_state_dict(torch.load(given.start, weights_only=True, map_location=given.device)["model"])
    bank = load_bank(given.cache, given.knees, given.shapes)
    train(module, Sam2Training(module, teacher, bank, rng, given).step, given, content)


def arguments() -> argparse.ArgumentParser:
    """The shared options, and the small SAM to begin from."""
    parser = options(__doc__, "demo_sam2.pt", "sam2_demo.yaml", steps=4000, learning_rate=8e-4)
    parser.add_argument(
        "--sam", type=Path, default=HERE / "checkpoints" / "demo_sam.pth", help="trained by train_sam.py"
    )
    parser.add_argument("--sam-architecture", default=str(HERE / "sam_demo.yaml"))
    parser.add_argument("--images-only", type=float, default=IMAGES_ONLY, help="first share of the schedule, no clips")
    parser.add_argument("--video-share", type=float, default=VIDEO_SHARE, help="share of clips in the steps after it")
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())

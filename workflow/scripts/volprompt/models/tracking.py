"""SAM 2's memory carries prompts through a volume: all objects that are prompted on one slice move as one batch.

The package's `SAM2VideoPredictor` is what the results equal; it tracks objects one after another. Per object it does
this: the prompted slice is segmented without memory; its mask enters memory in binary form; every other slice attends
to the prompted one, to the slices before it in the direction of travel, and to the objects' pointers. The reverse pass
follows the forward pass in the same state, so that its first slices also see memories of the forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from volprompt.models.base import VolumeFeatures
from volprompt.schemes import ObjectPrompt


class FrameFeatures:
    """A volume's features in the form that the package's tracking steps take."""

    def __init__(self, features: VolumeFeatures, positions: Sequence[torch.Tensor]) -> None:
        self.features = features
        self.positions = positions
        self.depth = len(features.row)

    def of(self, index: int, objects: int) -> dict[str, Any]:
        """Features and position encodings of one slice for a batch of objects, each (pixels, objects, channels)."""
        return {
            "current_vision_feats": _flat(self.features.of([index]), objects),
            "current_vision_pos_embeds": _flat(self.positions, objects),
            "feat_sizes": self.sizes,
        }

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each level."""
        return [(level.shape[-2], level.shape[-1]) for level in self.features.levels]


def _flat(levels: Iterable[torch.Tensor], objects: int) -> list[torch.Tensor]:
    return [level.expand(objects, -1, -1, -1).flatten(2).permute(2, 0, 1) for level in levels]


def point_inputs(
    prompts: Sequence[ObjectPrompt], size: tuple[int, int], image_size: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Prompts of one form as SAM 2 takes them: coordinates of its own image; a box is two points labelled 2 and 3.

    size: height and width of a frame. Returns point_coords (n, points, 2) float32 and point_labels (n, points) int32.
    """
    height, width = size
    coords = torch.as_tensor(np.stack([prompt.points for prompt in prompts]), dtype=torch.float32)
    labels = torch.as_tensor(np.stack([prompt.labels for prompt in prompts]), dtype=torch.int32)
    if prompts[0].box is not None:
        corners = torch.as_tensor(np.array([prompt.box for prompt in prompts]), dtype=torch.float32)
        coords = torch.cat([corners.reshape(-1, 2, 2), coords], dim=1)
        labels = torch.cat([torch.tensor([[2, 3]], dtype=torch.int32).expand(len(prompts), 2), labels], dim=1)
    coords = coords / torch.tensor([width, height]) * image_size
    return {"point_coords": coords.to(device), "point_labels": labels.to(device)}


@torch.inference_mode()
def track_objects(
    model: Any,
    frames: FrameFeatures,
    prompts: Sequence[ObjectPrompt],
    size: tuple[int, int],
    reset_between_directions: bool,
) -> list[np.ndarray]:
    """Segment each prompted object on every slice.

    model: a `sam2.modeling.sam2_base.SAM2Base`; size: height and width of a frame. Returns one mask per prompt, bool
    (slice, y, x). With `reset_between_directions` the reverse pass sees nothing of the forward pass but the prompted
    slice.
    """
    masks = [np.zeros((frames.depth, *size), dtype=bool) for _ in prompts]
    for index in sorted({prompt.slice for prompt in prompts}):
        together = [number for number, prompt in enumerate(prompts) if prompt.slice == index]
        batch = _Batch(model, frames, [prompts[number] for number in together], size)
        for at, logits in batch.both_directions(reset_between_directions):
            resized = functional.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
            for number, mask in zip(together, (resized[:, 0] > 0).cpu().numpy(), strict=True):
                masks[number][at] = mask
    return masks


class _Batch:
    """Objects that are prompted on the same slice, and their memory."""

    def __init__(self, model: Any, frames: FrameFeatures, prompts: Sequence[ObjectPrompt], size: tuple[int, int]):
        self.model = model
        self.frames = frames
        self.objects = len(prompts)
        self.start = prompts[0].slice
        # The farthest slice whose memory or pointer a step reads.
        self.reach = max(model.max_obj_ptrs_in_encoder, model.num_maskmem * model.memory_temporal_stride_for_eval)
        self.memory: dict[str, dict[int, dict[str, Any]]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        prompted = [self._prompted(prompt, size) for prompt in prompts]
        self.memory["cond_frame_outputs"][self.start] = _together(prompted)

    def both_directions(self, reset: bool) -> Iterable[tuple[int, torch.Tensor]]:
        """Yield each slice with the objects' mask logits (objects, 1, height, width), at the decoder's size."""
        yield self.start, self.memory["cond_frame_outputs"][self.start]["pred_masks"]
        for index in range(self.start + 1, self.frames.depth):
            yield index, self._step(index, reverse=False)
        if reset:
            self.memory["non_cond_frame_outputs"].clear()
        for index in range(self.start - 1, -1, -1):
            yield index, self._step(index, reverse=True)

    def _prompted(self, prompt: ObjectPrompt, size: tuple[int, int]) -> dict[str, Any]:
        """Segment one object on its prompted slice, alone: prompts of different lengths do not share a batch."""
        seen = self.frames.of(self.start, 1)
        inputs = point_inputs([prompt], size, self.model.image_size, seen["current_vision_feats"][-1].device)
        out = self._track(self.start, seen, inputs, reverse=False)
        high_res = functional.interpolate(
            out["pred_masks"], size=(self.model.image_size,) * 2, mode="bilinear", align_corners=False
        )
        features, positions = self.model._encode_new_memory(
            current_vision_feats=seen["current_vision_feats"],
            feat_sizes=seen["feat_sizes"],
            pred_masks_high_res=high_res,
            object_score_logits=out["object_score_logits"],
            is_mask_from_pts=True,
        )
        return _entry({**out, "maskmem_features": features, "maskmem_pos_enc": positions})

    def _step(self, index: int, reverse: bool) -> torch.Tensor:
        out = self._track(index, self.frames.of(index, self.objects), None, reverse)
        steps = self.memory["non_cond_frame_outputs"]
        steps[index] = _entry(out)
        # Later steps read the last `reach` slices of this direction, and the reverse pass those behind the start.
        passed = index + self.reach if reverse else index - self.reach
        if passed > self.start + self.reach or reverse:
            steps.pop(passed, None)
        return out["pred_masks"]

    def _track(
        self, index: int, seen: dict[str, Any], inputs: dict[str, torch.Tensor] | None, reverse: bool
    ) -> dict[str, Any]:
        return self.model.track_step(
            frame_idx=index,
            is_init_cond_frame=inputs is not None,
            point_inputs=inputs,
            mask_inputs=None,
            output_dict=self.memory,
            num_frames=self.frames.depth,
            track_in_reverse=reverse,
            run_mem_encoder=inputs is None,
            **seen,
        )


def _entry(out: dict[str, Any]) -> dict[str, Any]:
    """What later steps read of a step; memory is kept in bfloat16, as the package does."""
    return {
        "maskmem_features": out["maskmem_features"].to(torch.bfloat16),
        "maskmem_pos_enc": out["maskmem_pos_enc"],
        "obj_ptr": out["obj_ptr"],
        "pred_masks": out["pred_masks"],
    }


def _together(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Entries of single objects as one entry of a batch."""
    joined: dict[str, Any] = {
        key: torch.cat([entry[key] for entry in entries]) for key in ("maskmem_features", "obj_ptr", "pred_masks")
    }
    levels = zip(*(entry["maskmem_pos_enc"] for entry in entries), strict=True)
    joined["maskmem_pos_enc"] = [torch.cat(level) for level in levels]
    return joined

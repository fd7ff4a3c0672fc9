"""Small models of transformers with random weights, and the package's own way with one object: the oracle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tests.unit.models.official import CPU, SIZE, Given
from transformers import (
    EdgeTamVideoConfig,
    EdgeTamVideoInferenceSession,
    EdgeTamVisionConfig,
    Sam2VideoInferenceSession,
    Sam3TrackerVideoConfig,
    Sam3TrackerVideoInferenceSession,
    Sam3VisionConfig,
    Sam3ViTConfig,
    TimmWrapperConfig,
)

from volprompt.checkpoints.load import load_into
from volprompt.models.devices import Device
from volprompt.models.edgetam import EdgeTamModel
from volprompt.models.loading import load_model
from volprompt.models.sam3 import Sam3Model
from volprompt.models.transformers_model import TransformersModel
from volprompt.prompts.corrections import Click
from volprompt.prompts.schemes import ObjectPrompt

ADAPTERS: dict[str, type[TransformersModel]] = {"sam3": Sam3Model, "edgetam": EdgeTamModel}
SESSIONS = {
    "sam2": Sam2VideoInferenceSession,
    "sam3": Sam3TrackerVideoInferenceSession,
    "edgetam": EdgeTamVideoInferenceSession,
}
WIDTH = 128  # memories are 64 wide in every model of the package
LOGIT = 32.0  # where logits are cut off before they are decoded once more


def small_settings(family: str) -> dict[str, Any]:
    """The settings of a small model, as its `config.json` holds them."""
    memory = {
        "memory_attention_hidden_size": WIDTH,
        "memory_attention_num_layers": 2,
        "memory_encoder_hidden_size": WIDTH,
        "mask_downsampler_embed_dim": WIDTH,
        "memory_fuser_embed_dim": WIDTH,
        "memory_fuser_intermediate_dim": 64,
        "max_object_pointers_in_encoder": 5,
        "num_maskmem": 4,
    }
    decoder = {"hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
    if family == "sam3":
        encoder = Sam3ViTConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=112,
            patch_size=14,
            window_size=4,
            global_attn_indexes=[2],
            pretrain_image_size=56,
        )
        vision = Sam3VisionConfig(
            backbone_config=encoder, fpn_hidden_size=WIDTH, backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]]
        )
        config: Any = Sam3TrackerVideoConfig(
            vision_config=vision,
            prompt_encoder_config={"hidden_size": WIDTH, "image_size": 112, "patch_size": 14},
            mask_decoder_config=decoder,
            memory_attention_feed_forward_hidden_size=64,
            memory_attention_rope_feat_sizes=[8, 8],
            image_size=112,
            **memory,
        )  # fmt: skip
        return config.to_dict()
    levels = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    vision = EdgeTamVisionConfig(
        backbone_config=TimmWrapperConfig(architecture="repvit_m0_9.dist_300e_in1k", model_args=levels),
        fpn_hidden_size=WIDTH,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )
    config = EdgeTamVideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": 128, "patch_size": 16},
        mask_decoder_config=decoder,
        image_size=128,
        memory_attention_mlp_hidden_size=64,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_attention_rope_k_sizes=[4, 4],
        perceiver_resampler_num_latents=12,
        perceiver_resampler_num_latents_2d=16,
        enable_temporal_pos_encoding_for_object_pointers=False,
        enable_occlusion_spatial_embedding=False,
        **memory,
    )
    return config.to_dict()


def answering(module: Any, seed: int, memory: float) -> None:
    """Make a randomly initialised model answer prompts with masks that differ; `memory` scales what it remembers."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1 and "timm_model" not in name:
                fan = parameter[0].numel()
                parameter.copy_(noise(parameter) * fan**-0.5)
            if "hypernetworks" in name or "iou" in name or "_embed" in name:
                parameter.add_(noise(parameter) * 0.2)
            if "mem" in name and "norm" not in name:
                parameter.mul_(memory)
            if name.endswith("memory_fuser.layers.0.scale") or name.endswith("memory_fuser.layers.1.scale"):
                parameter.fill_(1)
        for name in ("no_memory_embedding", "memory_temporal_positional_encoding", "no_object_pointer"):
            module.get_parameter(name).copy_(noise(module.get_parameter(name)))
        module.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(3.0)
        # Two parts share it.
        module.shared_image_embedding.positional_embedding.copy_(
            module.prompt_encoder.shared_embedding.positional_embedding
        )


def saved(family: str, folder: Path, memory: float = 1.0) -> Path:
    """A small model's `config.json` and its weights, in a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(small_settings(family)))
    torch.manual_seed(3)
    module = ADAPTERS[family].build(str(folder / "config.json"))
    answering(module, 3, memory)
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, folder / "model.safetensors")
    return folder


def loaded(family: str, folder: Path, device: Device = CPU) -> TransformersModel:
    """The adapter of a folder's model."""
    settings = {"family": family, "architecture": str(folder / "config.json")}
    model = load_model(settings, str(folder / "model.safetensors"), device)
    assert isinstance(model, TransformersModel)
    return model


def package_model(family: str, folder: Path) -> Any:
    """The package's own model of a folder. It keeps the features of one frame; here those of all are remembered."""
    adapter = ADAPTERS[family]
    module: Any = adapter.build(str(folder / "config.json"))
    load_into(module, folder / "model.safetensors", family, adapter.weights_of)
    encode, encoded = module.get_image_features, {}

    def remembered(images: torch.Tensor, **more: Any) -> Any:
        key = images.numpy().tobytes()
        if key not in encoded:
            encoded[key] = encode(images, **more)
        return encoded[key]

    module.get_image_features = remembered
    return module


class PackageSession:
    """One object in the package's own model: its session, with masks and rounds of corrections."""

    def __init__(self, family: str, module: Any, images: torch.Tensor, given: Given, reset: bool = False) -> None:
        self.module, self.reset = module, reset
        self.session = SESSIONS[family](video=images, video_height=SIZE[0], video_width=SIZE[1], dtype=torch.float32)
        self.session.obj_id_to_idx(1)
        self.mask = np.zeros((len(images), *SIZE), bool)
        self.reversed: dict[int, bool] = {}  # the direction in which each slice was passed last, prompted or not
        self.given = given if isinstance(given, list) else [given]
        for each in sorted(self.given, key=lambda one: one.slice):
            self._prompt(each)
        self.start = min(each.slice for each in self.given)

    def tracks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Forward, then in reverse: slice, mask bool (y, x)."""
        for reverse in (False, True):
            if self.reset:
                self.session.output_dict_per_obj[0]["non_cond_frame_outputs"].clear()
            for found in self.module.propagate_in_video_iterator(
                self.session, start_frame_idx=self.start, reverse=reverse
            ):
                self.reversed[found.frame_idx] = reverse
                self._show(found.frame_idx, found.pred_masks)
                yield found.frame_idx, self.mask[found.frame_idx]

    def tracked(self) -> np.ndarray:
        """Masks of all slices, bool (slice, y, x)."""
        for _ in self.tracks():
            pass
        return self.mask

    @torch.inference_mode()
    def click(self, click: Click) -> np.ndarray:
        """Add a correction as the official predictor of SAM 2 does, by this package's functions; track once more.

        The package itself neither hands the logits of a slice on nor makes the slice a prompted one.
        """
        outputs = self.session.output_dict_per_obj[0]
        before = outputs["cond_frame_outputs"].get(click.slice) or outputs["non_cond_frame_outputs"].get(click.slice)
        points = self._with_click(click)
        current = self.module._run_single_frame_inference(
            inference_session=self.session,
            obj_idx=0,
            frame_idx=click.slice,
            batch_size=1,
            is_init_cond_frame=False,
            point_inputs=points,
            mask_inputs=None,
            reverse=self.reversed[click.slice],
            prev_sam_mask_logits=None if before is None else before["pred_masks"].clamp(-LOGIT, LOGIT),
            **self._more(),
        )
        outputs["non_cond_frame_outputs"].pop(click.slice, None)
        self.session.store_output(0, click.slice, output_value=current, is_conditioning_frame=True)
        if "high_res_masks" in current:
            self.module._batch_encode_memories(
                self.session, click.slice, [0], [current["high_res_masks"]], [current["object_score_logits"]], [True]
            )
        self._show(click.slice, current["pred_masks"])
        return self.tracked()

    def _more(self) -> dict[str, bool]:
        return {"run_mem_encoder": True} if isinstance(self.session, EdgeTamVideoInferenceSession) else {}

    def _with_click(self, click: Click) -> dict[str, torch.Tensor]:
        points = self._in_pixels([[click.x, click.y]])[None, None]
        labels = torch.tensor([[[click.label]]], dtype=torch.int32)
        before = self.session.point_inputs_per_obj[0].get(click.slice)
        if before is not None:
            points = torch.cat([before["point_coords"], points], dim=2)
            labels = torch.cat([before["point_labels"], labels], dim=2)
        given = {"point_coords": points, "point_labels": labels}
        self.session.add_point_inputs(0, click.slice, given)
        return given

    def _prompt(self, given: ObjectPrompt) -> None:
        if given.mask is not None:
            size = (self.module.image_size,) * 2
            mask = torch.from_numpy(given.mask)[None, None].float()
            mask = torch.nn.functional.interpolate(mask, size, mode="bilinear", antialias=True, align_corners=False)
            self.session.add_mask_inputs(0, given.slice, (mask >= 0.5).float())
        else:
            corners = [] if given.box is None else given.box.reshape(2, 2)
            points = self._in_pixels([*corners, *given.points])[None, None]
            labels = [*([] if given.box is None else [2, 3]), *given.labels]
            self.session.add_point_inputs(
                0,
                given.slice,
                {"point_coords": points, "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None]},
            )
        self.session.obj_with_new_inputs = [1]
        self._show(given.slice, self.module(self.session, frame_idx=given.slice).pred_masks)

    def _in_pixels(self, points: Sequence[Any]) -> torch.Tensor:
        """Points of a frame as those of the model's image."""
        scale = torch.tensor([self.module.image_size / SIZE[1], self.module.image_size / SIZE[0]])
        return torch.from_numpy(np.array(points, np.float32)) * scale

    def _show(self, index: int, logits: torch.Tensor) -> None:
        resized = torch.nn.functional.interpolate(logits.float(), SIZE, mode="bilinear", align_corners=False)
        self.mask[index] = (resized[0, 0] > 0).numpy()


def images_of(model: TransformersModel, frames: np.ndarray) -> torch.Tensor:
    """Frames as the model's encoder is given them (n, 3, y, x)."""
    grey = torch.from_numpy(model.prepare(frames))[:, None].float()
    return (grey - model.shift) / model.scale

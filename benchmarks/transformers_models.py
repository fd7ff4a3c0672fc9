"""SAM 3's tracker and EdgeTAM: volprompt against transformers' own video models, at their published size.

Random weights, a few slices of a phantom, two video schemes of two structures. The package's way is one session for
each scheme, with both structures in it, forwards and then in reverse; it encodes a slice again in each session and
direction. Both run in one process, one after the other in turn, and neither writes masks. The lowest Dice stands beside
the ratio. Prints a table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import EdgeTamVideoInferenceSession, Sam3TrackerVideoInferenceSession

from volprompt.models.base import without_initialisation
from volprompt.models.devices import Device
from volprompt.models.engine import segment_volumes
from volprompt.models.loading import adapter_of
from volprompt.models.segmented import LoadedVolume
from volprompt.models.transformers_model import TransformersModel
from volprompt.phantom.image import make_phantom
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.segmentation.masks import unpack_bits
from volprompt.settings.schemes import Scheme

SESSIONS = {"sam3": Sam3TrackerVideoInferenceSession, "edgetam": EdgeTamVideoInferenceSession}
SIZE = (384, 384)
CENTRES = {"femur": (150.0, 120.0), "tibia": (190.0, 290.0)}


def frames_of(slices: int) -> np.ndarray:
    """Slices of a phantom, uint8 (slice, y, x)."""
    image = make_phantom(900, (slices, *SIZE), (0.7, 0.365, 0.365)).image
    return np.ascontiguousarray((image / image.max() * 255).astype(np.uint8))


def prompts_of(slices: int) -> dict[str, list[ObjectPrompt]]:
    """A point, and a box, of each structure on the middle slice."""
    points, labels = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    given: dict[str, list[ObjectPrompt]] = {"point_video": [], "box_video": []}
    for name, (x, y) in CENTRES.items():
        point = np.array([[x, y]], np.float32)
        given["point_video"].append(ObjectPrompt(name, slices // 2, point, np.ones(1, np.int32)))
        box = np.array([x - 70, y - 60, x + 70, y + 60], np.float32)
        given["box_video"].append(ObjectPrompt(name, slices // 2, points, labels, box))
    return given


def random_model(family: str) -> tuple[TransformersModel, Any]:
    """The published model with random weights that answer, in our adapter and in the package."""
    adapter: Any = adapter_of(family)
    with without_initialisation():
        package = adapter.build(family)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*package.named_parameters(), *package.named_buffers()]:
            if tensor.is_floating_point() and "inv_freq" not in name:
                wide = tensor.dim() > 1
                tensor.normal_(std=tensor[0].numel() ** -0.5) if wide else tensor.fill_(float("norm" in name))
            if name.endswith((".bn.weight", "running_var")):
                tensor.fill_(1)
        package.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(3)
    ours = adapter.build(family)
    ours.load_state_dict(package.state_dict())
    return adapter(ours, Device("cpu", "float32", "CPU")), package


def by_package(family: str, module: Any, images: torch.Tensor, given: dict[str, list[ObjectPrompt]]) -> Any:
    """Masks per scheme and structure, bool (slice, y, x)."""
    found = {}
    scale = torch.tensor([module.image_size / SIZE[1], module.image_size / SIZE[0]])
    for scheme, prompts in given.items():
        session = SESSIONS[family](video=images, video_height=SIZE[0], video_width=SIZE[1], dtype=torch.float32)
        masks = {prompt.structure: np.zeros((len(images), *SIZE), bool) for prompt in prompts}
        for number, prompt in enumerate(prompts):
            index = session.obj_id_to_idx(number)
            points = prompt.points if prompt.box is None else prompt.box.reshape(2, 2)
            labels = [1] if prompt.box is None else [2, 3]
            session.add_point_inputs(
                index,
                prompt.slice,
                {
                    "point_coords": (torch.from_numpy(points) * scale)[None, None],
                    "point_labels": torch.tensor([[labels]], dtype=torch.int32),
                },
            )
        session.obj_with_new_inputs = list(range(len(prompts)))
        outputs = [module(session, frame_idx=prompts[0].slice)]
        for reverse in (False, True):
            outputs += module.propagate_in_video_iterator(session, prompts[0].slice, reverse=reverse)
        for output in outputs:
            logits = torch.nn.functional.interpolate(output.pred_masks.float(), SIZE, mode="bilinear")
            for number, prompt in enumerate(prompts):
                masks[prompt.structure][output.frame_idx] = (logits[number, 0] > 0).numpy()
        found[scheme] = masks
    return found


def by_ours(model: TransformersModel, frames: np.ndarray, given: dict[str, list[ObjectPrompt]]) -> Any:
    """The same."""
    schemes = {
        "point_video": Scheme(predictor="video", point="interior"),
        "box_video": Scheme(predictor="video", box=True),
    }
    (found,) = segment_volumes(model, [LoadedVolume("knee", model.prepare(frames), SIZE, given)], schemes, 1)
    return {
        scheme: {name: unpack_bits(bits, SIZE[1]) for name, bits in parts.items()}
        for scheme, parts in found.masks.items()
    }


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long something takes, and what it returns."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def row(family: str, slices: int, runs: int) -> str:
    """A line of the table."""
    frames, given = frames_of(slices), prompts_of(slices)
    model, package = random_model(family)
    images = (torch.from_numpy(model.prepare(frames))[:, None].float() - model.shift) / model.scale
    pairs, dice = [], 1.0
    for _ in range(runs):
        theirs, expected = seconds(lambda: by_package(family, package, images, given))
        ours, found = seconds(lambda: by_ours(model, frames, given))
        pairs.append((theirs, ours))
        for scheme, masks in expected.items():
            for name, mask in masks.items():
                total = int(mask.sum()) + int(found[scheme][name].sum())
                dice = min(dice, 2 * int((mask & found[scheme][name]).sum()) / total if total else 1.0)
    before, after = (float(np.median(side)) for side in zip(*pairs, strict=True))
    ratio = float(np.median([one / other for one, other in pairs]))
    return f"| {family} | {slices} | {before:.1f} | {after:.1f} | **{ratio:.2f}** | {dice:.4f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", default=["edgetam", "sam3"], choices=list(SESSIONS))
    parser.add_argument("--slices", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1)
    arguments = parser.parse_args()
    print("| model | slices | package, s | ours, s | ratio | lowest Dice |")
    print("|---|---:|---:|---:|---:|---:|")
    for family in arguments.families:
        print(row(family, arguments.slices, arguments.runs), flush=True)


if __name__ == "__main__":
    main()

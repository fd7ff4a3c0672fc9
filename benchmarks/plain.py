"""The plain way: the packages' own predictors, one structure and one scheme after another. Prints its timings as JSON.

As the paper's procedure goes: image schemes call `set_image` and `predict` per structure and slice; video schemes make
a state per scheme, add each structure's prompt, and propagate forwards and then in reverse. Two things are better than
in that procedure, so that only inference is compared: frames reach the video predictor without JPEG files, and the
model is loaded once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from cases import LABELS, SCORED, read_case

from volprompt.prompts.candidates import read_prompts
from volprompt.prompts.schemes import ObjectPrompt, scheme_prompts
from volprompt.segmentation.masks import mask_path, write_mask
from volprompt.segmentation.runs import Stopwatch, peak_memory
from volprompt.settings.schemes import Scheme
from volprompt.volumes.converted import grid_of_row, read_frames, read_volume_table


def load_sam(architecture: str, checkpoint: str, device: str) -> tuple[Any, None]:
    """`SamPredictor` of a registered model, or of one that a YAML file describes; SAM has no video predictor."""
    from segment_anything import SamPredictor, sam_model_registry

    if architecture in sam_model_registry:
        model = sam_model_registry[architecture](checkpoint=checkpoint)
    else:
        from volprompt.models.sam import SamModel

        model = SamModel.build(architecture)
        model.load_state_dict(torch.load(checkpoint, weights_only=True))
    return SamPredictor(model.to(device)), None


def load_sam2(architecture: str, checkpoint: str, device: str) -> tuple[Any, Any]:
    """The image and the video predictor."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from sam2.build_sam import build_sam2, build_sam2_video_predictor
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    path = Path(architecture)
    if path.is_file():
        GlobalHydra.instance().clear()
        initialize_config_dir(str(path.parent), version_base="1.2").__enter__()
        architecture = path.stem
    image = SAM2ImagePredictor(build_sam2(architecture, checkpoint, device=device))
    side = image.model.image_size
    image._bb_feat_sizes = [(side // stride, side // stride) for stride in (4, 8, 16)]
    video = build_sam2_video_predictor(architecture, checkpoint, device=device)
    video.fill_hole_area = 0
    return image, video


# How to load the package's own predictors of each family, for images and for video.
LOADERS: dict[str, Callable[[str, str, str], tuple[Any, Any]]] = {"sam": load_sam, "sam2": load_sam2}


def image_scheme(
    predictor: Any, frames: np.ndarray, prompts: list[ObjectPrompt], watch: Stopwatch
) -> dict[str, np.ndarray]:
    """Per structure and slice: encode, then predict."""
    masks = {prompt.structure: np.zeros(frames.shape, bool) for prompt in prompts}
    for prompt in prompts:
        with watch.phase("encode"):
            predictor.set_image(np.repeat(frames[prompt.slice][..., None], 3, axis=-1))
        points = {"point_coords": prompt.points, "point_labels": prompt.labels} if len(prompt.points) else {}
        with watch.phase("prompt"):
            found, _, _ = predictor.predict(**points, box=prompt.box, multimask_output=False)
        masks[prompt.structure][prompt.slice] = found[0].astype(bool)
    return masks


def video_scheme(
    predictor: Any, images: torch.Tensor, size: tuple[int, int], prompts: list[ObjectPrompt], watch: Stopwatch
) -> dict[str, np.ndarray]:
    """One state for the scheme; all structures are added, then propagated in both directions."""
    masks = {prompt.structure: np.zeros((len(images), *size), bool) for prompt in prompts}
    names = [prompt.structure for prompt in prompts]
    with watch.phase("track"):
        with mock.patch("sam2.sam2_video_predictor.load_video_frames", return_value=(images, *size)):
            state = predictor.init_state("frames")
        for number, prompt in enumerate(prompts):
            points = {"points": prompt.points, "labels": prompt.labels} if len(prompt.points) else {}
            predictor.add_new_points_or_box(state, prompt.slice, number, box=prompt.box, **points)
        for reverse in (False, True):
            steps = predictor.propagate_in_video(state, start_frame_idx=prompts[0].slice, reverse=reverse)
            for index, numbers, logits in steps:
                for number, logit in zip(numbers, logits, strict=True):
                    masks[names[number]][index] = (logit[0] > 0).cpu().numpy()
    return masks


def resized(predictor: Any, frames: np.ndarray, device: str) -> torch.Tensor:
    """Frames as the image predictor resizes them, so that both kinds of schemes and both runners see the same."""
    return torch.stack([predictor._transforms(np.repeat(frame[..., None], 3, axis=-1)) for frame in frames]).to(device)


def main(folder: Path, out: Path, precision: str) -> None:
    """Segment the case's volumes under each of its schemes, and write the masks."""
    case = read_case(folder)
    torch.set_num_threads(case.threads)
    half = precision == "bfloat16"
    started = time.perf_counter()
    assert case.checkpoint
    image, video = LOADERS[case.family](case.architecture, case.checkpoint, case.device)
    startup = time.perf_counter() - started
    watch = Stopwatch()
    candidates = read_prompts(folder / "prompts.parquet")
    table = read_volume_table(folder / "volumes")
    started = time.perf_counter()
    for row in table.itertuples():
        frames = read_frames(folder / "volumes", row.volume)
        for name, definition in case.definitions.items():
            scheme = Scheme(**definition)
            own = candidates[candidates["volume"] == row.volume]
            prompts = scheme_prompts(scheme, own, list(LABELS), SCORED, len(frames)).prompts
            with torch.inference_mode(), torch.autocast(case.device, torch.bfloat16) if half else nullcontext():
                if scheme.predictor == "image":
                    masks = image_scheme(image, frames, prompts, watch)
                else:
                    with watch.phase("read"):
                        images = resized(image, frames, case.device)
                    masks = video_scheme(video, images, frames.shape[1:], prompts, watch)
            with watch.phase("write"):
                for structure, mask in masks.items():
                    write_mask(mask, grid_of_row(row), mask_path(out, name, row.volume, structure))
    seconds = time.perf_counter() - started
    slices = int(sum(pd.Series(table["shape"]).map(lambda shape: shape[0])))
    print(json.dumps({"startup": startup, "seconds": seconds, "slices": slices, **watch.seconds, **peak_memory()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

"""Score the demo's checkpoints on held-out phantoms and, with --knee, on a real volume.

python demo/evaluate.py [--knee IMAGE LABELS]: writes *.scores.json and *.png beside each checkpoint. Prompts, masks and
scores are made by the functions that the workflow uses, with the schemes of config/demo.yaml.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np
import torch
import yaml

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from volprompt.files import atomic, write_text
from volprompt.models import engine
from volprompt.models.base import PromptableModel
from volprompt.models.devices import choose_device
from volprompt.models.loading import load_model
from volprompt.models.segmented import LoadedVolume
from volprompt.phantom.image import make_phantom
from volprompt.prompts.candidates import volume_prompts
from volprompt.prompts.schemes import scheme_prompts
from volprompt.scores.scores import Reference, score_volume
from volprompt.segmentation.masks import unpack_bits
from volprompt.settings.schemes import Scheme
from volprompt.volumes.convert import window
from volprompt.volumes.references import structure_mask

HERE = Path(__file__).parent
HELD_OUT_SEEDS = range(900, 908)
SHAPE, SPACING = (40, 96, 96), (2.8, 1.46, 1.46)
STRUCTURES = {"femur": [1], "tibia": [3], "patella": [5]}
SCORED = ("femur", "tibia")
SCHEMES = {"sam": ("point", "box"), "sam2": ("point", "point_video", "three_points_video")}
ENCODER_BATCH = 8
SLICES_SHOWN = 5


@dataclass(frozen=True)
class Volume:
    """A volume as the workflow converts it: frames uint8 and labels, (slice, y, x), spacing in mm likewise."""

    name: str
    frames: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float]


def as_frames(name: str, image: np.ndarray, labels: np.ndarray, spacing: Sequence[float]) -> Volume:
    """A volume stored along R, A, S as sagittal frames."""
    grey, _, _ = window(np.asarray(image, dtype=np.float32), (0.5, 99.5), name)
    turned = [array[:, ::-1, ::-1].transpose(0, 2, 1).copy() for array in (grey, labels)]
    right, anterior, superior = (float(mm) for mm in spacing)
    return Volume(name, turned[0], turned[1], (right, superior, anterior))


def held_out(count: int) -> Iterator[Volume]:
    """Knees that no training has seen, as in the demo."""
    for seed in HELD_OUT_SEEDS[:count]:
        phantom = make_phantom(seed, SHAPE, SPACING, contrast="dess")
        yield as_frames(f"phantom_{seed}", phantom.image, phantom.labels, SPACING)


def read_knee(image: str, labels: str) -> Volume:
    """A real volume whose bones carry the phantoms' labels."""
    pair = [nib.as_closest_canonical(nib.load(path)) for path in (image, labels)]
    grey, numbers = (np.asarray(each.dataobj) for each in pair)
    return as_frames(Path(image).name, grey, numbers, pair[0].header.get_zooms()[:3])


def demo_schemes(names: Sequence[str]) -> dict[str, Scheme]:
    """Schemes as config/demo.yaml defines them."""
    config = yaml.safe_load((HERE.parent / "config" / "demo.yaml").read_text(encoding="utf-8"))
    return {name: Scheme(**config["schemes"][name]) for name in names}


def segment(
    model: PromptableModel, volume: Volume, schemes: Mapping[str, Scheme]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Per scheme the masks of the scored structures, bool (slice, y, x)."""
    depth, *size = volume.frames.shape
    table = volume_prompts(volume.labels, STRUCTURES, [], volume.frames.shape, volume.spacing[1:])
    prompts = {
        name: scheme_prompts(scheme, table, list(STRUCTURES), SCORED, depth).prompts for name, scheme in schemes.items()
    }
    given = LoadedVolume(volume.name, model.prepare(volume.frames), (size[0], size[1]), prompts)
    (segmented,) = engine.segment_volumes(model, [given], schemes, ENCODER_BATCH)
    for name, masks in segmented.masks.items():
        yield name, {structure: unpack_bits(bits, size[1]) for structure, bits in masks.items()}


def score(volume: Volume, masks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Dice of each scored structure and of both taken together."""
    reference = {name: structure_mask(volume.labels, STRUCTURES[name]) for name in SCORED}
    table, _ = score_volume(masks, Reference(reference, volume.spacing), tolerance_mm=1.0)
    dice = table.set_index("structure")["dice"]
    return {name: round(float(dice[name]), 4) for name in (*SCORED, "combined")}


def evaluate(
    model: PromptableModel, family: str, volumes: Sequence[Volume]
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, dict[str, np.ndarray]]]:
    """Scores by volume and scheme, and the last volume's masks by scheme."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    shown: dict[str, dict[str, np.ndarray]] = {}
    for volume in volumes:
        for scheme, masks in segment(model, volume, demo_schemes(SCHEMES[family])):
            scores.setdefault(volume.name, {})[scheme] = score(volume, masks)
            shown[scheme] = masks
    return scores, shown


def medians(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Median Dice over volumes, by scheme and structure."""
    schemes = next(iter(scores.values()))
    return {
        scheme: {
            name: round(float(np.median([row[scheme][name] for row in scores.values()])), 4)
            for name in (*SCORED, "combined")
        }
        for scheme in schemes
    }


def draw(volume: Volume, masks: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """Outlines per scheme (rows) on slices through the bones: reference green, prediction red."""
    occupied = np.flatnonzero(np.isin(volume.labels, [1, 3]).any(axis=(1, 2)))
    slices = occupied[np.linspace(0, len(occupied) - 1, SLICES_SHOWN + 2).astype(int)[1:-1]]
    figure, axes = plt.subplots(len(masks), SLICES_SHOWN, figsize=(3 * SLICES_SHOWN, 3 * len(masks)), squeeze=False)
    for row, (scheme, predicted) in zip(axes, masks.items(), strict=True):
        for axis, index in zip(row, slices, strict=True):
            axis.imshow(volume.frames[index], cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
            axis.set_title(f"{scheme}, slice {index}", fontsize=8)
            for name in SCORED:
                reference = structure_mask(volume.labels, STRUCTURES[name])[index]
                for mask, colour in ((reference, "lime"), (predicted[name][index], "red")):
                    if mask.any():
                        axis.contour(mask, levels=[0.5], colors=colour, linewidths=0.8)
    figure.tight_layout()
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=60)
    plt.close(figure)


def main(given: argparse.Namespace) -> None:
    """Evaluate the checkpoints that are there."""
    torch.set_num_threads(given.threads)
    device = choose_device(given.device, "float32")
    phantoms = list(held_out(given.phantoms))
    knee = read_knee(*given.knee) if given.knee else None
    for family, checkpoint, architecture in (
        ("sam", given.sam, given.sam_architecture),
        ("sam2", given.sam2, given.sam2_architecture),
    ):
        if not checkpoint.exists():
            print(f"{checkpoint}: not there, left out")
            continue
        model = load_model({"family": family, "architecture": str(architecture)}, str(checkpoint), device)
        scores, masks = evaluate(model, family, phantoms)
        result = {"phantoms_median": medians(scores), "phantoms": scores}
        draw(phantoms[-1], masks, checkpoint.with_suffix(".phantom.png"))
        if knee:
            scores, masks = evaluate(model, family, [knee])
            result["knee"] = scores[knee.name]
            draw(knee, masks, checkpoint.with_suffix(".knee.png"))
        write_text(checkpoint.with_suffix(".scores.json"), json.dumps(result, indent=2) + "\n")
        print(json.dumps({name: result[name] for name in ("phantoms_median", "knee") if name in result}, indent=1))


def options() -> argparse.ArgumentParser:
    """The options of the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = HERE / "checkpoints"
    parser.add_argument("--sam", type=Path, default=folder / "demo_sam.pth")
    parser.add_argument("--sam2", type=Path, default=folder / "demo_sam2.pt")
    parser.add_argument("--sam-architecture", type=Path, default=HERE / "sam_demo.yaml")
    parser.add_argument("--sam2-architecture", type=Path, default=HERE / "sam2_demo.yaml")
    parser.add_argument("--phantoms", type=int, default=len(HELD_OUT_SEEDS), help="how many of the held-out phantoms")
    parser.add_argument("--knee", nargs=2, metavar=("IMAGE", "LABELS"), help="NIfTI files, labels 1 femur, 3 tibia")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    return parser


if __name__ == "__main__":
    main(options().parse_args())

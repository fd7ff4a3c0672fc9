"""Where a study differs from the paper: its authors' code, and the settings that made these masks.

Paper: Yu et al., arXiv 2408.04762; the authors' code is their public fork of SAM 2 (asy51/sam2, commit d9aa4d1).
docs/methods.md has the whole comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from volprompt.families import FAMILIES
from volprompt.numbers import number
from volprompt.report.shards import StudyDesign
from volprompt.settings.config import Frames, Inference
from volprompt.settings.schemes import Noise, Scheme, SliceAt


@dataclass(frozen=True)
class Deviation:
    """One setting: what the authors' code does, what was done here, and what is known about the effect."""

    setting: str
    paper: str
    here: str
    effect: str = ""


def deviations(design: StudyDesign, volumes: int, precisions: Sequence[str]) -> list[Deviation]:
    """List the deviations of a study. volumes: number of its volumes; precisions: those of its runs."""
    used = {name for _, schemes in design.experiments.values() for name in schemes}
    schemes = {name: scheme for name, scheme in design.schemes.items() if name in used}
    rows = [
        Deviation(
            "Volumes", "488 knees of the Osteoarthritis Initiative with OAI-ZIB masks", f"{volumes} of this study"
        )
    ]
    rows += _frame_deviations(design.frames)
    for name, scheme in schemes.items():
        rows += _scheme_deviations(name, scheme, design)
    if any(scheme.predictor == "video" for scheme in schemes.values()):
        rows += _tracking_deviations(design.inference)
    other = [precision for precision in precisions if precision != "bfloat16"]
    if other:
        rows.append(Deviation("Precision", "bfloat16 autocast and TF32", ", ".join(dict.fromkeys(other))))
    return merge([*rows, *_model_deviations(design)])


def merge(rows: Sequence[Deviation]) -> list[Deviation]:
    """Merge rows that differ only in the scheme or the model into one row that names them all."""
    names: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        what, _, name = row.setting.partition(" of ")
        names.setdefault((what, row.paper, row.here, row.effect), []).append(name)
    return [
        Deviation(f"{what} of {', '.join(of)}" if of[0] else what, paper, here, effect)
        for (what, paper, here, effect), of in names.items()
    ]


def _frame_deviations(frames: Frames) -> Iterator[Deviation]:
    if frames.coding == "lossless":
        yield Deviation("Frame coding", "JPEG at quality 75", "lossless")
    if frames.axis != "sagittal":
        yield Deviation("Slice axis", "sagittal", str(frames.axis))
    if frames.window:
        limits = " to ".join(number(value, "given") for value in frames.window)
        yield Deviation("Intensities", "percentiles 0.5 and 99.5 of each volume", f"a window from {limits}")
    elif frames.intensity_percentiles != (0.5, 99.5):
        low, high = frames.intensity_percentiles
        yield Deviation("Intensity percentiles", "0.5 and 99.5", f"{low} and {high}")


BY_MEMORY = "by memory, or a prompt on every slice"
WHOLE_VOLUME = "the model takes the whole volume"
MASKS_OF_THREE = {"first": "the first of three", "best": "the best of three by predicted IoU"}


def _scheme_deviations(name: str, scheme: Scheme, design: StudyDesign) -> Iterator[Deviation]:
    if scheme.multimask:
        yield Deviation(f"Masks of {name}", "one mask", MASKS_OF_THREE[str(scheme.multimask)])
    if scheme.prompts_every_slice:
        if scheme.origins and scheme.origins != ("centroid",):
            yield Deviation(f"Point of {name}", "centroid of the reference", ", else ".join(scheme.origins))
        return
    if scheme.propagate:
        yield Deviation(f"Propagation of {name}", BY_MEMORY, propagation_in_words(scheme))
    elif scheme.predictor == "volume":
        yield Deviation(f"Propagation of {name}", BY_MEMORY, WHOLE_VOLUME)
    elif scheme.origins and scheme.origins != ("click",):
        here = ", else ".join(scheme.origins)
        yield Deviation(f"Points of {name}", "human clicks (the paper's text says centroids)", here)
    if scheme.noise:
        yield Deviation(f"Noise on prompts of {name}", "none", noise_in_words(scheme.noise))
    if scheme.presence:
        here = "from the reference: masks are emptied elsewhere"
        yield Deviation(f"Slices with the structure, {name}", "found by the model", here)
    if scheme.slices not in (("middle",), (SliceAt(index=80),)):
        yield Deviation(f"Prompted slice of {name}", "index 80 of 160, the middle", prompted_slice(scheme))
    if scheme.propagate:
        return
    objects = scheme.structures or design.scored
    untracked = [structure for structure in design.labels if structure not in objects]
    if untracked:
        here = f"{', '.join(objects)}; not {', '.join(untracked)}"
        effect = "none: objects have separate memories and do not change each other's masks"
        yield Deviation(f"Tracked objects of {name}", "every structure, the patella included", here, effect)


def _tracking_deviations(inference: Inference) -> Iterator[Deviation]:
    if inference.video_resize != "bicubic":
        measured = "measured on one real knee: Dice against the reference moves by less than 0.001"
        here = "bilinear with antialias, as in the image predictor"
        yield Deviation("Resize before the video encoder", "PIL bicubic on 8 bit", here, measured)
    if inference.fill_holes != 8:
        here = f"up to {inference.fill_holes} pixels" if inference.fill_holes else "none"
        yield Deviation(
            "Hole filling", "up to 8 pixels, only where a CUDA extension is built", f"{here}, on any machine"
        )
    if inference.reset_between_directions:
        yield Deviation("Directions", "the reverse pass remembers the forward pass", "independent of each other")


def _model_deviations(design: StudyDesign) -> Iterator[Deviation]:
    kinds = [(family.name, kind) for family in FAMILIES.values() for kind in family.checkpoint_kinds if kind.paper]
    paper = {(family, architecture) for family, kind in kinds for architecture in kind.published.values()}
    for name, model in design.models.items():
        family, architecture = model.get("family"), model.get("architecture")
        if (family, architecture) not in paper:
            words = "; ".join(kind.paper for _, kind in kinds)
            yield Deviation(f"Model of {name}", words, f"{family}, {architecture}")


def prompted_slice(scheme: Scheme) -> str:
    """Say in words which slices a scheme prompts that does not prompt every slice."""
    words = {
        "middle": "the middle slice",
        "nearest": "the slice nearest the middle with every needed prompt",
        "largest": "each structure's slice of largest area",
    }
    slices = []
    for choice in scheme.slices:
        if not isinstance(choice, SliceAt):
            slices.append(words[choice])
        elif choice.index is not None:
            slices.append(f"index {choice.index}")
        else:
            slices.append(f"{number(choice.fraction, 'given')} of the way through")
    return ", ".join(slices)


def propagation_in_words(scheme: Scheme) -> str:
    """Say in words what an image scheme is prompted with on the slices behind the prompted one."""
    return f"by the box of the last slice's mask, widened by {number(scheme.widening, 'given')} mm"


def noise_in_words(noise: Noise) -> str:
    """Say in words how far the prompts of a scheme are displaced."""
    distances = {"points": noise.points_mm, "boxes": noise.boxes_mm}
    return (
        ", ".join(f"{kind} {number(mm, 'given')} mm" for kind, mm in distances.items() if mm) + f", seed {noise.seed}"
    )


def prompts_in_words(scheme: Scheme) -> str:
    """Say in words what a scheme prompts a model with, and on which slices."""
    count = "one positive point" if scheme.points == 1 else f"{scheme.points} positive points, the first"
    prompts = [f"{count} ({', else '.join(scheme.origins)})"] if scheme.origins else []
    prompts += ["a tight box of the reference"] if scheme.box else []
    prompts += ["the reference mask"] if scheme.mask else []
    if scheme.negatives == "others":
        prompts.append("the other structures' points as negatives")
    if scheme.prompts_every_slice:
        where = "on every slice that shows the structure in the reference; each slice by itself"
    elif scheme.propagate:
        where = f"on {prompted_slice(scheme)}; from there both ways {propagation_in_words(scheme)}"
    elif scheme.predictor == "volume":
        where = f"on {prompted_slice(scheme)}; {WHOLE_VOLUME}"
    else:
        where = f"on {prompted_slice(scheme)}; memory carries it both ways"
    displaced = f" Displaced at random: {noise_in_words(scheme.noise)}." if scheme.noise else ""
    emptied = " Masks are emptied where the reference lacks the structure." if scheme.presence else ""
    return f"Per structure {', '.join(prompts)}, {where}.{displaced}{emptied}"

"""Draw the gallery of docs/schemes.md: each kind of scheme with its prompts on slices of a synthetic knee.

`make pictures` writes docs/gallery/*.png and the document's section between its two marks. The same versions of the
libraries give the same bytes.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from volprompt.files import atomic, write_text
from volprompt.palette import structure_colours
from volprompt.phantom.image import make_phantom
from volprompt.prompts.available import FrameGrid
from volprompt.prompts.candidates import volume_prompts
from volprompt.prompts.schemes import scheme_prompts, with_masks
from volprompt.report.drawing import draw_prompts, png
from volprompt.settings.reading import read_settings

FOLDER = Path(__file__).parent / "gallery"
DOCUMENT = Path(__file__).parent / "schemes.md"
BEGIN, END = "<!-- gallery: written by docs/gallery.py -->\n", "<!-- end of gallery -->\n"
SHAPE, SPACING = (40, 96, 96), (2.8, 1.46, 1.46)
STRUCTURES = {"femur": [1], "tibia": [3], "patella": [5]}
SCORED = ["femur", "tibia"]
USUAL = (12, 20, 27)
PANEL_INCHES, DOTS_PER_INCH = 1.7, 80

# Title, and the lines under `schemes:`.
VARIETIES = [
    ("A point on every slice, at the centroid", "point: {predictor: image, point: centroid}"),
    ("A point deep inside instead", "interior: {predictor: image, point: interior}"),
    ("The best of three masks", "multimask: {predictor: image, point: interior, multimask: true}"),
    ("A box on every slice", "box: {predictor: image, box: true}"),
    (
        "A box on one slice, carried on by the box of each mask, without memory",
        "propagated_box: {predictor: image, slice: largest, box: true, propagate: box}",
    ),
    ("Box and point", "box_and_point: {predictor: image, box: true, point: centroid}"),
    (
        "Noise: five repetitions as schemes of their own, the first of them drawn",
        "noisy: {predictor: image, point: centroid, box: true, noise: {points_mm: 3, boxes_mm: 3, repetitions: 5}}",
    ),
    ("A point on the middle slice, carried on by memory", "point_video: {predictor: video, point: centroid}"),
    (
        "The other structures' points as negative ones (the femur's prompts are drawn)",
        "three_points_video: {predictor: video, slice: nearest, point: [click, centroid], negatives: others}",
    ),
    (
        "The slice of the largest area, each structure's own",
        "largest_video: {predictor: video, slice: largest, point: interior}",
    ),
    ("A slice by its place", "fraction_video: {predictor: video, slice: {fraction: 0.3}, point: centroid}"),
    ("A slice by its number", "index_video: {predictor: video, slice: {index: 27}, point: centroid}"),
    ("A box on one slice", "box_video: {predictor: video, box: true}"),
    ("The reference mask of one slice", "mask_video: {predictor: video, mask: true}"),
    (
        "Several slices",
        "several_video: {predictor: video, slice: [{fraction: 0.3}, middle, {fraction: 0.7}], point: centroid}",
    ),
]


def schemes(lines: str) -> dict[str, Any]:
    """The schemes that lines of configuration define, as a study reads them: repetitions are schemes of their own."""
    study = {
        "structures": {name: {"labels": labels, "scored": name in SCORED} for name, labels in STRUCTURES.items()},
        "schemes": yaml.safe_load(lines),
        "models": {"any": {"family": "sam2", "architecture": "any", "checkpoint": "any.pt"}},
        "experiments": {"all": {"models": ["any"], "schemes": list(yaml.safe_load(lines))}},
    }
    return read_settings(study).schemes


class Knee:
    """A synthetic knee as frames, uint8 (slice, y, x), labels likewise, and its prompt table."""

    def __init__(self) -> None:
        phantom = make_phantom(100, SHAPE, SPACING, contrast="dess", noise=0)
        # Axes R, A, S become slice, y, x: see docs/inputs.md.
        image, self.labels = (each[:, ::-1, ::-1].transpose(0, 2, 1) for each in (phantom.image, phantom.labels))
        low, high = np.percentile(image, [0.5, 99.5])
        self.frames = (np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        self.grid = FrameGrid((SHAPE[2], SHAPE[1]), (SPACING[2], SPACING[1]))
        table = volume_prompts(self.labels, STRUCTURES, [], self.frames.shape, self.grid.spacing)
        self.table: pd.DataFrame = table.assign(volume="knee")

    def draw(self, lines: str) -> Figure:
        """Three slices with the prompts of a scheme: those that it prompts, if not every slice, and usual ones."""
        scheme = next(iter(schemes(lines).values()))
        prompts = scheme_prompts(scheme, self.table, list(STRUCTURES), SCORED, SHAPE[0], self.grid).prompts
        if scheme.mask:
            prompts = with_masks(prompts, self.labels, STRUCTURES)
        if scheme.negatives == "others":  # each object's points are the others' negative ones, on the same pixels
            prompts = [prompt for prompt in prompts if prompt.structure == SCORED[0]]
        prompted = sorted({prompt.slice for prompt in prompts}) if not scheme.prompts_every_slice else []
        distant = sorted(
            set(USUAL) - set(prompted), key=lambda index: -min((abs(index - p) for p in prompted), default=0)
        )
        shown = sorted([*prompted, *distant][:3])
        figure = Figure(figsize=(PANEL_INCHES * 3, PANEL_INCHES + 0.25), layout="constrained")
        for axes, index in zip(figure.subplots(1, 3), shown, strict=True):
            axes.set_axis_off()
            axes.imshow(self.frames[index], cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"slice {index}" + (", prompted" if index in prompted else ""), fontsize=8)
            colours = structure_colours(STRUCTURES)
            given = [prompt for prompt in prompts if prompt.slice == index]
            for prompt in given:
                if prompt.mask is not None:
                    layer = np.zeros((*prompt.mask.shape, 4))
                    layer[prompt.mask] = to_rgba(colours[prompt.structure], 0.6)
                    axes.imshow(layer, interpolation="nearest")
            draw_prompts(axes, given, colours)
        return figure


def section() -> str:
    """The document's section, between its marks."""
    parts = []
    for title, lines in VARIETIES:
        name = next(iter(yaml.safe_load(lines)))
        parts.append(f"**{title}**\n\n```yaml\n{lines}\n```\n\n![Prompts of {name}](gallery/{name}.png)\n")
    return "\n" + "\n".join(parts) + "\n"


def main() -> None:
    """Write the drawings and the section."""
    knee = Knee()
    for _, lines in VARIETIES:
        with atomic(FOLDER / f"{next(iter(yaml.safe_load(lines)))}.png") as temporary:
            picture = Image.open(io.BytesIO(png(knee.draw(lines), DOTS_PER_INCH))).convert("RGB")
            # A palette halves the file.
            few = picture.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            few.save(temporary, format="png", optimize=True)
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    write_text(DOCUMENT, before + BEGIN + section() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()

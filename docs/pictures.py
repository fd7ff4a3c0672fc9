"""Make the pictures of README.md and docs/schemes.md from the demo's results: `make pictures`.

docs/pictures/stages.png draws what image and video schemes do, on a knee of the demo with the demo's masks. report.png
and masks.png are the first screen of the demo's report and one of its figures, as Chromium shows them.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from volprompt.files import atomic
from volprompt.palette import structure_colours
from volprompt.prompts.candidates import read_prompts
from volprompt.report.drawing import png
from volprompt.segmentation.masks import mask_path, read_mask
from volprompt.volumes.converted import grid_of_row, read_frames, read_volume_table

REPOSITORY = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "pictures"
RESULTS = REPOSITORY / "results" / "demo"
VOLUME = "phantom_100"
STRUCTURES = ("femur", "tibia")
STEP = 4  # slices from one that is drawn to the next
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Knee:
    """A knee of the demo: frames, uint8 (slice, y, x), the slice that video schemes prompt, and the points there."""

    def __init__(self) -> None:
        self.shard = next(path.parent for path in RESULTS.glob(f"volumes/*/{VOLUME}_frames.nii"))
        row = next(row for row in read_volume_table(self.shard).itertuples() if row.volume == VOLUME)
        self.grid = grid_of_row(row)
        self.frames = read_frames(self.shard, VOLUME)
        table = read_prompts(RESULTS / "prompts" / f"{self.shard.name}.parquet")
        points = table[(table["volume"] == VOLUME) & (table["origin"] == "centroid")]
        present = [set(points.loc[points["structure"] == name, "slice"]) for name in STRUCTURES]
        middle = len(self.frames) // 2
        self.slice = min(set.intersection(*present), key=lambda index: abs(index - middle))
        self.points = points[(points["slice"] == self.slice) & points["structure"].isin(STRUCTURES)]

    def masks(self, experiment: str, model: str, scheme: str) -> dict[str, np.ndarray]:
        """Masks of a configuration by structure, bool (slice, y, x)."""
        folder = RESULTS / "masks" / experiment / model / self.shard.name
        return {name: read_mask(mask_path(folder, scheme, VOLUME, name), self.grid) for name in STRUCTURES}

    def show(self, axes: Axes, index: int, masks: dict[str, np.ndarray] | None = None, points: bool = False) -> None:
        """Draw slice `index`, with masks and with the points of the prompted slice if they are asked for."""
        colours = structure_colours(STRUCTURES)
        axes.set_axis_off()
        axes.imshow(self.frames[index], cmap="gray", vmin=0, vmax=255)
        for name, mask in (masks or {}).items():
            layer = np.zeros((*mask.shape[1:], 4))
            layer[mask[index]] = to_rgba(colours[name], 0.55)
            axes.imshow(layer, interpolation="nearest")
        for point in self.points.itertuples() if points else ():
            axes.scatter(point.x, point.y, marker="*", s=70, color=colours[point.structure], edgecolors="white", lw=0.8)


def box(figure: Figure, centre: tuple[float, float], text: str, width: float) -> None:
    """Draw a box with text; places are shares of the figure."""
    height = 0.085
    corner = (centre[0] - width / 2, centre[1] - height / 2)
    style = "round,pad=0.004,rounding_size=0.01"
    figure.add_artist(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor="#e8eef6", edgecolor="#445"))
    figure.text(*centre, text, ha="center", va="center", fontsize=8)


def arrow(figure: Figure, start: tuple[float, float], end: tuple[float, float], bend: float = 0) -> None:
    """Draw an arrow between two places; bend: of its arc."""
    style = f"arc3,rad={bend}"
    figure.add_artist(
        FancyArrowPatch(start, end, connectionstyle=style, arrowstyle="-|>", mutation_scale=9, color="#445", lw=1)
    )


def stages(knee: Knee) -> Figure:
    """Draw both kinds of schemes: a slice through the image predictor, and memory that carries masks both ways."""
    figure = Figure(figsize=(9, 4.6), facecolor="white")
    figure.text(0.02, 0.94, "Image scheme: every slice by itself", fontsize=10, weight="bold")
    side = 0.13
    tall = side * 9 / 4.6

    def place(x: float, y: float) -> Axes:
        return figure.add_axes((x - side / 2, y - tall / 2, side, tall))

    high, low = 0.75, 0.27
    knee.show(place(0.12, high), knee.slice, points=True)
    box(figure, (0.36, high + 0.07), "image encoder", 0.16)
    box(figure, (0.36, high - 0.07), "points or boxes", 0.16)
    box(figure, (0.58, high), "mask decoder", 0.14)
    knee.show(place(0.80, high), knee.slice, knee.masks("sam1", "demo_sam", "point"))
    arrow(figure, (0.19, high + 0.05), (0.275, high + 0.07))
    arrow(figure, (0.19, high - 0.05), (0.275, high - 0.07))
    arrow(figure, (0.445, high + 0.07), (0.505, high + 0.02))
    arrow(figure, (0.445, high - 0.07), (0.505, high - 0.02))
    arrow(figure, (0.655, high), (0.73, high))

    figure.text(
        0.02, 0.485, "Video scheme: one prompted slice, carried both ways by memory", fontsize=10, weight="bold"
    )
    masks = knee.masks("sam2", "demo_sam2", "point_video")
    shown = [knee.slice + STEP * step for step in (-3, -2, -1, 0, 1, 2, 3)]
    places = np.linspace(0.08, 0.92, len(shown))
    prompted = shown.index(knee.slice)
    for x, index in zip(places, shown, strict=True):
        axes = place(x, low)
        knee.show(axes, index, masks, points=index == knee.slice)
        axes.set_title(f"slice {index}" + (", prompted" if index == knee.slice else ""), fontsize=7, pad=2)
    edge = low - tall / 2
    for first, last in zip(places[prompted:-1], places[prompted + 1 :], strict=True):
        arrow(figure, (first, edge), (last, edge), bend=0.25)
    for first, last in zip(places[prompted:0:-1], places[prompted - 1 :: -1], strict=True):
        arrow(figure, (first, edge), (last, edge), bend=-0.25)
    figure.text(0.72, 0.02, "1. forward: each slice attends to the last ones", ha="center", fontsize=8)
    figure.text(0.28, 0.02, "2. in reverse, to the first slice", ha="center", fontsize=8)
    return figure


@contextmanager
def browser_page(width: int, height: int) -> Iterator[Page]:
    """A page of Chromium, light, of this size. Raises SystemExit where there is no browser."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        raise SystemExit(f"no browser: found none of {', '.join(BROWSERS)}; install one (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield chromium.new_page(
            viewport={"width": width, "height": height}, color_scheme="light", device_scale_factor=2
        )
        chromium.close()


def save(picture: bytes, name: str, width: int, colours: int = 128) -> None:
    """Write a PNG that is `width` pixels wide, with a palette, which halves the file."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    few = image.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    with atomic(FOLDER / name) as temporary:
        few.save(temporary, format="png", optimize=True)


def main() -> None:
    """Make the pictures."""
    save(png(stages(Knee()), 130), "stages.png", 1100)
    with browser_page(980, 760) as page:
        page.goto((RESULTS / "report" / "index.html").resolve().as_uri())
        page.wait_for_load_state("networkidle")
        save(page.screenshot(), "report.png", 980)
        figure = RESULTS / "report" / "figures" / "overlay_sam1.svg"
        page.goto(figure.resolve().as_uri())
        save(page.locator("svg").first.screenshot(), "masks.png", 1000)


if __name__ == "__main__":
    main()

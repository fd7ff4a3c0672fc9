"""Synthetic knee MRIs with exact labels, for the demo, the tests and the training of small models.

A knee is a set of implicit shapes in millimetres: functions that are negative inside a structure and about
the distance to its surface outside. The structures are painted over one another, from the skin to the
marrow, with edges as soft as a voxel is wide; texture, blur, a bias field and Rician noise follow. All
lengths are physical: one seed gives the same knee on every grid. The shapes are those of a right knee; a
left one is its mirror image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d

from volprompt.phantom.knee import POPLITEAL_VESSELS, SHANK_MUSCLES, THIGH_MUSCLES, Anatomy, Knee
from volprompt.phantom.shapes import Array, Triple, cut, rod, smooth_step

Contrast = Literal["dess", "random"]
Side = Literal["left", "right"]
Shape = tuple[int, int, int]
VOXELS_PER_SLAB = 600_000
LATTICE_HALF_EXTENT: Triple = (72.0, 92.0, 92.0)

# Mean, then relative strength of the texture that is coarse, fine, and drawn out along the limb.
DESS: dict[str, tuple[float, float, float, float]] = {
    "air": (0, 0, 0, 0),
    "skin": (270, 0.05, 0.10, 0),
    "fat": (125, 0.12, 0.14, 0.10),
    "muscle": (290, 0.06, 0.05, 0.11),
    "tendon": (45, 0.1, 0.1, 0.3),
    "vessel": (340, 0.1, 0.05, 0.1),
    "synovium": (250, 0.2, 0.25, 0),
    "fluid": (850, 0.05, 0.03, 0),
    "meniscus": (60, 0.1, 0.1, 0),
    "cartilage": (560, 0.07, 0.04, 0),
    "cortex": (35, 0.1, 0.1, 0),
    "marrow": (185, 0.08, 0.15, 0.04),
}


@dataclass(frozen=True)
class Phantom:
    """A synthetic knee.

    Attributes:
        image: (r, a, s) float32, intensities as whole numbers >= 0 of an arbitrary unit, mostly below 1000.
        labels: (r, a, s) uint8, 0 background and the values of `LABELS`.
        spacing: voxel edge lengths in mm along r, a, s.
        affine: (4, 4) float64, from voxel (i, j, k) to world RAS millimetres; the centre of the grid is at 0.
    """

    image: Array
    labels: Array
    spacing: Triple
    affine: Array


class Lattice:
    """Smooth noise of unit variance: random coefficients of cubic B-splines on a lattice fixed in space."""

    def __init__(self, rng: np.random.Generator, step: Triple, axes: Sequence[Array]) -> None:
        counts = [2 * math.ceil(half / mm) + 4 for half, mm in zip(LATTICE_HALF_EXTENT, step, strict=True)]
        # A B-spline sum of independent unit coefficients has variance near 0.48 along each axis.
        coefficients = rng.standard_normal(counts, dtype=np.float32) * np.float32(0.48**-1.5)
        weights = [_spline_weights(axis, mm, n) for axis, mm, n in zip(axes, step, counts, strict=True)]
        self._across = weights[0]
        self._planes = np.matmul(np.matmul(weights[1], coefficients), weights[2].T)

    def slab(self, part: slice) -> Array:
        """(slices, a, s) float32: the noise in some slices along r."""
        rows = self._across[part]
        used = np.flatnonzero(rows.any(axis=0))
        near = slice(int(used[0]), int(used[-1]) + 1)
        return np.tensordot(rows[:, near], self._planes[near], 1)


def _spline_weights(axis: Array, step: float, count: int) -> Array:
    """(len(axis), count) float32: weights at positions in mm of `count` cubic B-splines."""
    knots = (np.arange(count) - (count - 1) / 2) * step
    t = np.abs(np.clip(axis, knots[1], knots[-2])[:, None] - knots[None, :]) / step
    near, far = 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, near, far).astype(np.float32)


class Canvas:
    """Image slab that tissues are painted on, each with its texture."""

    def __init__(self, tissues: dict[str, Array], textures: Sequence[Array], width: float) -> None:
        self._width = width
        self._colours: dict[str, Array] = {}
        for name, tissue in tissues.items():
            mean, coarse, fine, drawn_out = tissue.tolist()
            relief = 1 + coarse * textures[0] + fine * textures[1] + drawn_out * textures[2]
            self._colours[name] = mean * np.maximum(relief, 0)
        self.image = self._colours["air"].copy()

    def paint(self, tissue: str, *shapes: Array) -> None:
        """Cover the inside of shapes (negative values, mm), softly over one voxel width at their edges."""
        for shape in shapes:
            cover = np.clip(0.5 - shape / self._width, 0, 1)
            self.image += cover * (self._colours[tissue] - self.image)


def _draw_tissues(rng: np.random.Generator, contrast: Contrast) -> dict[str, Array]:
    """Mean and textures of each tissue; most random draws keep the marrow apart from its neighbours."""
    if contrast == "dess":
        return {name: np.array(values) * rng.uniform(0.9, 1.1) for name, values in DESS.items()}
    for _ in range(30):
        drawn = {name: np.array([rng.uniform(60, 900), *rng.uniform(0.0, 0.15, 3)]) for name in DESS}
        apart = {name: abs(drawn["marrow"][0] - tissue[0]) for name, tissue in drawn.items()}
        if (
            min(apart[name] for name in ("muscle", "cartilage", "synovium")) > 120
            and max(apart["fat"], apart["cortex"]) > 200
        ):
            break
    return drawn | {"air": np.array([rng.uniform(0, 20), 0, 0, 0])}


def paint_knee(knee: Knee, canvas: Canvas) -> None:
    """Paint from the skin inwards."""
    x, a, s = knee.at
    skin, fat = knee.limb()
    canvas.paint("skin", skin)
    canvas.paint("fat", skin + 1.8)
    for at, muscles in ((knee.at, THIGH_MUSCLES), (knee.shank, SHANK_MUSCLES)):
        for muscle in muscles:
            belly = np.maximum(rod(at, *muscle) + 1.5 * knee.bumps[1], skin + fat)
            canvas.paint("fat", belly - 1.0)
            canvas.paint("muscle", belly)
    wavy = (x + 3.0 * knee.bumps[0], a + 3.0 * knee.bumps[1], s)
    canvas.paint("vessel", *(rod(wavy, *vessel) for vessel in POPLITEAL_VESSELS))
    behind = cut(np.abs(a + 10.0) - 22.0, -10.0 - s, 12.0)
    canvas.paint("synovium", cut(knee.notch + 1.0, behind, 8.0) + 2.0 * knee.bumps[2])
    canvas.paint("fluid", knee.fluid())
    canvas.paint("tendon", knee.bands())
    canvas.paint("meniscus", knee.menisci())
    canvas.paint("cartilage", knee.patellar_cartilage, knee.tibial_cartilage, knee.femoral_cartilage)
    canvas.paint("cortex", knee.fibula, knee.patella, knee.tibia, knee.femur)
    # The cortex is thin at the joint and thick along the shafts.
    canvas.paint("marrow", knee.fibula + 1.2, knee.patella + 1.1)
    canvas.paint("marrow", knee.tibia + 1.1 + 2.0 * smooth_step(knee.shank[2], -22, -60))
    canvas.paint("marrow", knee.femur + 1.1 + 2.2 * smooth_step(s, 38, 78))


def _degrade(image: Array, spacing: Triple, bias: Lattice, noise: float, rng: np.random.Generator) -> None:
    """Blur (r, a, s) in place, by the scanner and the box of a voxel; then apply bias field and noise."""
    for axis, mm in enumerate(spacing):
        gaussian_filter1d(image, math.hypot(0.3, 0.4 * mm) / mm, axis, output=image, truncate=3.0)
    for i, plane in enumerate(image):
        real, imaginary = noise * rng.standard_normal((2, *plane.shape), dtype=np.float32)
        plane *= np.exp(0.15 * bias.slab(slice(i, i + 1))[0])
        plane[:] = np.rint(np.hypot(plane + real, imaginary))


def make_phantom(
    seed: int,
    shape: Shape = (160, 384, 384),
    spacing: Triple = (0.7, 0.365, 0.365),
    *,
    contrast: Contrast = "dess",
    side: Side | None = None,
    noise: float | None = None,
) -> Phantom:
    """Make the knee of a seed.

    Args:
        seed: draws the anatomy, the contrast and the noise; the anatomy depends on nothing else.
        shape: voxels along r, a, s (patient right, anterior, superior).
        spacing: voxel edge lengths in mm along r, a, s; 112 x 140 x 140 mm hold a knee.
        contrast: "dess", as in water-excited double-echo images, or "random", a random mean for each tissue.
        side: which knee; None draws it. The left knee is the mirror image of the right one.
        noise: standard deviation of the Rician noise in units of the image (tissues are 0 to about 900); None
            draws it between 8 and 30.
    """
    # One stream per purpose: the size of the grid changes how much noise is drawn, and nothing else.
    draw, tissue_rng, field_rng, noise_rng = (np.random.default_rng([seed, stream]) for stream in range(4))
    body = Anatomy(draw)
    drawn_side, drawn_noise = draw.choice(["left", "right"]), draw.uniform(8, 30)
    tissues = _draw_tissues(tissue_rng, contrast)
    axes = [((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32) for n, mm in zip(shape, spacing, strict=True)]
    bumps = [Lattice(field_rng, (step, step, step), axes) for step in (17.0, 14.0, 12.0)]
    textures = [Lattice(field_rng, step, axes) for step in ((5.0, 5.0, 5.0), (1.4, 1.4, 1.4), (2.0, 2.0, 14.0))]
    bias = Lattice(field_rng, (70.0, 70.0, 70.0), axes)

    image, labels = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    depth = max(1, VOXELS_PER_SLAB // (shape[1] * shape[2]))
    for start in range(0, shape[0], depth):
        part = slice(start, start + depth)
        relief = [body.roughness * lattice.slab(part) for lattice in bumps]
        knee = Knee(body, [axes[0][part], *axes[1:]], relief)
        canvas = Canvas(tissues, [lattice.slab(part) for lattice in textures], spacing[1] / body.scale)
        paint_knee(knee, canvas)
        image[part], labels[part] = canvas.image, knee.labels()

    _degrade(image, spacing, bias, drawn_noise if noise is None else noise, noise_rng)
    # x is lateral here: to the right in a right knee.
    flip = slice(None, None, -1 if (side or drawn_side) == "left" else 1)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * mm for n, mm in zip(shape, spacing, strict=True)]
    return Phantom(np.ascontiguousarray(image[flip]), np.ascontiguousarray(labels[flip]), spacing, affine)

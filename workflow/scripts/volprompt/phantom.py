"""Synthetic knee MRIs with exact labels, for the demo, the tests and the training of small models.

A knee is a set of implicit shapes in millimetres: functions that are negative inside a structure and about
the distance to its surface outside. The structures are painted over one another, from the skin to the
marrow, with edges as soft as a voxel is wide; texture, blur, a bias field and Rician noise follow. All
lengths are physical: one seed gives the same knee on every grid. The shapes are those of a right knee; a
left one is its mirror image.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from volprompt.files import atomic, write_text

Array = np.ndarray
Contrast = Literal["dess", "random"]
Side = Literal["left", "right"]
Shape = tuple[int, int, int]
Triple = tuple[float, float, float]
Rod = tuple[Triple, Triple, float, float]

LABELS: dict[str, int] = {"femur": 1, "femoral_cartilage": 2, "tibia": 3, "tibial_cartilage": 4, "patella": 5}
ORIENTATIONS = ("RAS", "LPS", "PIR", "LAS", "AIL", "SRP")
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

# Muscle bellies as tapered rods: ends, then their radii (mm lateral, anterior, superior of the joint).
THIGH_MUSCLES: tuple[Rod, ...] = (
    ((-31, 17, 34), (-29, 14, 92), 7, 21),  # vastus medialis
    ((34, 13, 46), (29, 12, 96), 6, 21),  # vastus lateralis
    ((2, 27, 66), (2, 27, 104), 4, 13),  # vastus intermedius
    ((36, -20, -10), (28, -34, 72), 3, 14),  # biceps femoris
    ((-29, -28, -10), (-19, -42, 72), 3, 15),  # semimembranosus
    ((-33, -38, 0), (-6, -54, 82), 2, 8),  # semitendinosus
    ((-42, -24, -20), (-44, -18, 82), 2.5, 7),  # sartorius
)
SHANK_MUSCLES: tuple[Rod, ...] = (
    ((-17, -32, 30), (-21, -42, -72), 5, 18),  # gastrocnemius, medial head
    ((19, -32, 28), (18, -42, -72), 5, 17),  # gastrocnemius, lateral head
    ((6, -25, -22), (4, -26, -82), 5, 15),  # popliteus and soleus
    ((25, 8, -24), (23, 10, -82), 4, 15),  # tibialis anterior
    ((41, -6, -30), (38, -6, -82), 3, 11),  # peroneus longus
)
POPLITEAL_VESSELS: tuple[Rod, ...] = (
    ((3, -32, 95), (2, -40, -75), 3.2, 2.6),
    ((-7, -38, 95), (-3, -46, -75), 2.8, 2.3),
)


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


class _Anatomy:
    """The variable part of a knee, drawn: lengths in mm before `scale`, angles in radians."""

    def __init__(self, rng: np.random.Generator) -> None:
        def around(mean: float, share: float = 0.06) -> float:
            return mean * (1 + share * rng.uniform(-1, 1))

        self.scale = rng.uniform(0.92, 1.07)
        turns = [rng.uniform(-limit, limit) for limit in (4, 7, 4)]
        self.rotation = Rotation.from_euler("xzy", turns, degrees=True).as_matrix()
        self.translation = (rng.uniform(-3, 3), rng.uniform(-4, 4), rng.uniform(-11, -3))
        self.flexion = math.radians(rng.uniform(0, 15))
        self.roughness = rng.uniform(0.4, 1.1)
        self.femoral_cartilage_mm, self.tibial_cartilage_mm = around(2.3, 0.2), around(2.3, 0.2)
        self.gap = self.femoral_cartilage_mm + self.tibial_cartilage_mm + rng.uniform(0, 0.8)
        self.condyle_radii = (around(20.5), around(19.5))
        self.condyle_offset, self.condyle_half_width = around(23.5, 0.04), around(14.5)
        self.trochlea_radius, self.groove_depth = around(21.5), around(5.0, 0.3)
        self.notch_half_width = around(9.5, 0.15)
        self.shaft_radius = around(15.5)
        self.plateau_half_width, self.plateau_half_depth = around(38.0, 0.04), around(24.5)
        self.eminence_height = around(8.0, 0.25)
        self.patella_half_height, self.patella_half_width = around(21.0, 0.1), around(22.0, 0.1)
        height = rng.uniform(27, 33) - 0.35 * math.degrees(self.flexion)
        self.patella_centre = (rng.uniform(0, 5), self.trochlea_radius + 18.5, height)
        self.limb_half_width, self.fat_mm = around(51, 0.05), rng.uniform(4, 11)
        self.effusion_mm = rng.uniform(0.2, 1.8)


class _Lattice:
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


def _step(values: Array, start: float, stop: float) -> Array:
    """Smooth step from 0 at `start` to 1 at `stop`; `stop` may be the smaller."""
    t = np.clip((values - start) / (stop - start), 0, 1)
    return t * t * (3 - 2 * t)


def _bump(values: Array, width: float) -> Array:
    return np.exp(-np.square(values / width))


def _join(first: Array, second: Array, blend: float) -> Array:
    """Union of two shapes with a fillet of about `blend` mm."""
    overlap = np.maximum(blend - np.abs(first - second), 0)
    return np.minimum(first, second) - overlap * overlap / (4 * blend)


def _cut(first: Array, second: Array, blend: float) -> Array:
    """Intersection of two shapes with an edge rounded by about `blend` mm."""
    return -_join(-first, -second, blend)


def _box(u: Array, v: Array, radius: float | Array) -> Array:
    """Rectangle with rounded corners; u and v are the distances beyond its two pairs of sides."""
    u, v = u + radius, v + radius
    return np.hypot(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0) - radius


def _rod(at: Sequence[Array], start: Sequence[float], stop: Sequence[float], first: float, last: float) -> Array:
    """Hull of two balls of radii `first` and `last`, in space or (two discs) in a plane."""
    length = math.dist(start, stop)
    slope = (first - last) / length
    rise = math.sqrt(1 - slope * slope)
    rays = [axis - origin for axis, origin in zip(at, start, strict=True)]
    along = sum((ray * (b - a) for ray, a, b in zip(rays, start, stop, strict=True)), np.float32(0)) / length
    square = sum((ray * ray for ray in rays), np.float32(0))
    across = np.sqrt(np.maximum(square - along * along, 0))
    side = rise * along - slope * across
    ends = np.where(side < 0, np.hypot(across, along) - first, np.hypot(across, along - length) - last)
    return np.where((side >= 0) & (side <= rise * length), across * rise + along * slope - first, ends)


class _Knee:
    """The shapes of one knee at the points of a slab; x lateral, a anterior, s superior of the joint, mm."""

    def __init__(self, body: _Anatomy, axes: Sequence[Array], bumps: Sequence[Array]) -> None:
        """`axes`: positions along r, a and s in scanner mm; `bumps`: (r, a, s) displacements in mm."""
        self.body, self.bumps = body, bumps
        r, a, s = np.ix_(*(axis - shift for axis, shift in zip(axes, body.translation, strict=True)))
        turned = (body.rotation.T / body.scale).astype(np.float32)
        self.at = [row[0] * r + row[1] * a + row[2] * s for row in turned]
        self.shank = [self.at[0], *self._bend(self.at[1], self.at[2], body.flexion)]
        self._femur()
        self._tibia()
        self._patella()
        self._cartilages()

    def _bend(self, a: Any, s: Any, angle: float) -> tuple[Any, Any]:
        """Turn about the centre of the posterior condyles, from the frame of the femur to the tibia's."""
        da, ds, cos, sin = a + 14.0, s - 22.5, math.cos(angle), math.sin(angle)
        return da * cos - ds * sin - 14.0, da * sin + ds * cos + 22.5

    def _condyle(self, sign: int, radius: float) -> tuple[Array, Array]:
        """One condyle and its sagittal outline; sign is -1 medial, +1 lateral."""
        (x, a, s), body, front = self.at, self.body, self.body.trochlea_radius
        start, stop = (-14.0, body.gap / 2 + radius), (6.0 + 1.5 * sign, body.gap / 2 + 2.0 + front)
        outline = _rod((a, s), start, stop, radius, front)
        # The condyles diverge backwards.
        middle = sign * (body.condyle_offset - 0.1 * (a + 5.0))
        return _box(outline, np.abs(x - middle) - body.condyle_half_width, 9.0), outline

    def _femur(self) -> None:
        (x, a, s), body, front = self.at, self.body, self.body.trochlea_radius
        medial, medial_outline = self._condyle(-1, body.condyle_radii[0])
        lateral, lateral_outline = self._condyle(1, body.condyle_radii[1])
        outline = np.where(x < 0, medial_outline, lateral_outline)
        flare = _step(s, 82, 24)
        wide = body.shaft_radius + 2.0 + (body.condyle_offset + 11.5 - body.shaft_radius) * flare
        deep = body.shaft_radius + 4.5 * flare
        shaft = _cut(_box(np.abs(x) - wide, np.abs(a - 4.0) - deep, 0.88 * body.shaft_radius), 20.0 - s, 10.0)
        trochlea = _rod((a, s), (7.0, body.gap / 2 + 3.0 + front), (4.0, 42.0), front - 0.5, 18.0)
        whole = _join(_join(medial, lateral, 4.0), _box(trochlea, np.abs(x) - 18.0, 6.0), 5.0)
        groove = body.groove_depth * _bump(x - 1.5, 10.0) * _step(a, 2, 16) * _step(s, 58, 40)
        roof = (a - 9.0) * 0.64 + (s - 5.0) * 0.77
        self.notch = _cut(np.abs(x - 0.5) - body.notch_half_width, roof, 9.0)
        self.femur = _cut(_join(whole, shaft, 9.0) + groove + self.bumps[0], -self.notch, 6.0)
        self.articular = _cut(-(outline + groove) - 4.0, s - 37.0 - 0.25 * a, 2.0)

    def _tibia(self) -> None:
        (x, a, s), body = self.shank, self.body
        flare = _step(s, -66, -12)
        wide = body.shaft_radius + 3.0 + (body.plateau_half_width - body.shaft_radius - 3.0) * flare
        deep = body.shaft_radius + (body.plateau_half_depth - body.shaft_radius) * flare
        outline = _box(np.abs(x) - wide, np.abs(a - 1.0 + 5.0 * flare) - deep, 0.78 * deep)
        self.outline = outline + 5.0 * _bump(x, 10.0) * _step(a, -12, -26) * _step(s, -30, -8)
        spines = body.eminence_height * _bump(a + 5.0, 10.0) * (_bump(x + 5.5, 4.0) + 0.8 * _bump(x - 5.5, 4.0))
        dish = 1.3 * _bump(x + 22.0, 12.0) * _bump(a + 6.0, 16.0)
        self.above_plateau = s - spines + dish + body.gap / 2 - 0.07 * (a + 8.0)
        tuberosity = _rod(self.shank, (3, 11, -26), (3, 10, -44), 8, 6)
        whole = _join(_cut(self.outline, self.above_plateau, 5.0), tuberosity, 9.0) + 0.8 * self.bumps[1]
        self.tibia = _cut(whole, body.gap - self.femur, 1.5)
        head = _rod(self.shank, (34, -19, -17), (33, -17, -30), 7.5, 5.5)
        fibula = _join(head, _rod(self.shank, (33, -17, -30), (31, -15, -90), 5.5, 6), 4.0)
        self.fibula = _cut(fibula + self.bumps[1], 2.5 - self.tibia, 2.0)

    def _patella(self) -> None:
        x, a, s = (axis - middle for axis, middle in zip(self.at, self.body.patella_centre, strict=True))
        tall = self.body.patella_half_height
        # Broad above, pointed below; the apex lies in front.
        wide = self.body.patella_half_width * (0.42 + 0.58 * _step(s, -tall, 0.1 * tall))
        rim = _box(np.abs(x) - wide, np.abs(s) - tall, 0.72 * wide)
        front = a - 9.0 + 0.012 * x * x + 0.006 * s * s
        back = 0.38 * np.abs(x - 1.5) + 7.0 * _step(s, -0.2 * tall, -tall) + 3.0 * _step(s, 8, tall) - a - 10.5
        whole = _cut(_cut(front, back, 5.0), rim, 6.0) + 0.7 * self.bumps[2]
        self.patella = _cut(whole, self.body.femoral_cartilage_mm + 2.6 - self.femur, 1.5)
        facets = np.maximum(np.maximum(a + 1.0, np.abs(s - 2.0) - 0.68 * tall), rim + 2.5)
        layer = _cut(self.patella - 2.8, facets, 1.5)
        self.patellar_cartilage = np.maximum(layer, self.body.femoral_cartilage_mm - self.femur)

    def _cartilages(self) -> None:
        x, body = np.abs(self.at[0]), self.body
        bearing = _cut(self.articular, _cut(x - body.condyle_offset - 10.5, 2.0 - self.notch, 2.0), 2.0)
        self.femoral_cartilage = _cut(self.femur - body.femoral_cartilage_mm, bearing, 1.5)
        bearing = np.maximum(np.maximum(self.outline + 2.0, 9.5 - x), -self.above_plateau - 2.0)
        layer = _cut(self.tibia - body.tibial_cartilage_mm, bearing, 1.2)
        self.tibial_cartilage = np.maximum(layer, -self.femoral_cartilage)

    def labels(self) -> Array:
        """(r, a, s) uint8 label map; where shapes touch, bone goes before cartilage."""
        out = np.zeros(self.femur.shape, np.uint8)
        for name in ("femoral_cartilage", "tibial_cartilage", "patella", "tibia", "femur"):
            out[getattr(self, name) < 0] = LABELS[name]
        return out

    def menisci(self) -> Array:
        """Wedges on the rim of both compartments of the plateau."""
        x, a = np.abs(self.shank[0]), self.shank[1]
        radius = np.hypot((x - 21.0) / 0.85, a + 5.0)
        ring = np.maximum(np.maximum(10.5 - radius, self.outline - 2.0), 7.0 - x)
        wedge = np.abs(self.above_plateau - 2.0) - 0.7 * np.maximum(radius - 10.0, 0)
        return np.maximum(ring, wedge)

    def bands(self) -> Array:
        """The cruciate ligaments, and the flat quadriceps and patellar tendons."""
        (x0, a0, s0), (x, a, s), tall = self.body.patella_centre, self.at, self.body.patella_half_height
        front, back, tuberosity = (
            self._bend(*point, -self.body.flexion) for point in ((9.0, -1.0), (-27.0, -10.0), (18.5, -34.0))
        )
        anterior = _rod(self.at, (6.5, -12.0, 25.0), (-1.0, *front), 3.5, 4.0)
        posterior = _rod(self.at, (-5.0, -4.0, 16.0), (-1.0, -22.0, 20.0), 4.5, 4.0)
        posterior = np.minimum(posterior, _rod(self.at, (-1.0, -22.0, 20.0), (0.0, *back), 4.0, 4.0))
        quadriceps = _rod((a, s), (a0 + 2.5, s0 + 0.8 * tall), (a0 - 8.0, s0 + tall + 50.0), 3.2, 2.8)
        patellar = _rod((a, s), (a0 + 4.0, s0 - 0.8 * tall), tuberosity, 2.6, 2.4)
        tendons = np.maximum(np.minimum(quadriceps, patellar), np.abs(x - x0) - 14.0)
        return np.minimum(np.minimum(anterior, posterior), tendons)

    def fluid(self) -> Array:
        """Joint fluid: the suprapatellar pouch, and a film on the femoral cartilage."""
        (x, a, s), (x0, a0, s0), half = self.at, self.body.patella_centre, self.body.effusion_mm
        top = s0 + self.body.patella_half_height
        pouch = _rod((a, s), (a0 - 9.0, top - 6.0), (a0 - 15.0, top + 16.0), half, half) + 0.8 * self.bumps[2]
        film = np.maximum(self.femoral_cartilage - 0.25 * half, np.abs(x) - 30.0)
        return np.minimum(np.maximum(pouch, np.abs(x - x0) - 18.0), film)

    def limb(self) -> tuple[Array, Array]:
        """The skin surface, and the thickness (mm) of the fat under it."""
        (x, a, s), body = self.at, self.body
        follow = np.logaddexp(np.float32(0), -(s + 5.0) / 8.0) * 8.0 * math.tan(body.flexion)
        front = 27.0 + (body.patella_centre[1] - 12.0) * _step(s, -58, 22) - 3.0 * _step(s, 45, 80)
        back = -57.0 - 6.0 * _step(s, 15, 75) - 4.0 * _step(s, -15, -65)
        half, wide = (front - back) / 2, body.limb_half_width + 4.0 * _step(s, 10, 75)
        depth = np.abs(a + follow - (front + back) / 2) - half
        skin = _box(np.abs(x) - wide, depth, 0.86 * np.minimum(half, wide)) + self.bumps[2]
        return skin, 4.0 + body.fat_mm * (0.35 + 0.65 * _step(a, 35, -10)) * (0.75 - 0.25 * np.tanh(x / 20))


class _Canvas:
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


def _paint_knee(knee: _Knee, canvas: _Canvas) -> None:
    """Paint from the skin inwards."""
    x, a, s = knee.at
    skin, fat = knee.limb()
    canvas.paint("skin", skin)
    canvas.paint("fat", skin + 1.8)
    for at, muscles in ((knee.at, THIGH_MUSCLES), (knee.shank, SHANK_MUSCLES)):
        for muscle in muscles:
            belly = np.maximum(_rod(at, *muscle) + 1.5 * knee.bumps[1], skin + fat)
            canvas.paint("fat", belly - 1.0)
            canvas.paint("muscle", belly)
    wavy = (x + 3.0 * knee.bumps[0], a + 3.0 * knee.bumps[1], s)
    canvas.paint("vessel", *(_rod(wavy, *vessel) for vessel in POPLITEAL_VESSELS))
    behind = _cut(np.abs(a + 10.0) - 22.0, -10.0 - s, 12.0)
    canvas.paint("synovium", _cut(knee.notch + 1.0, behind, 8.0) + 2.0 * knee.bumps[2])
    canvas.paint("fluid", knee.fluid())
    canvas.paint("tendon", knee.bands())
    canvas.paint("meniscus", knee.menisci())
    canvas.paint("cartilage", knee.patellar_cartilage, knee.tibial_cartilage, knee.femoral_cartilage)
    canvas.paint("cortex", knee.fibula, knee.patella, knee.tibia, knee.femur)
    # The cortex is thin at the joint and thick along the shafts.
    canvas.paint("marrow", knee.fibula + 1.2, knee.patella + 1.1)
    canvas.paint("marrow", knee.tibia + 1.1 + 2.0 * _step(knee.shank[2], -22, -60))
    canvas.paint("marrow", knee.femur + 1.1 + 2.2 * _step(s, 38, 78))


def _degrade(image: Array, spacing: Triple, bias: _Lattice, noise: float, rng: np.random.Generator) -> None:
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
    body = _Anatomy(draw)
    drawn_side, drawn_noise = draw.choice(["left", "right"]), draw.uniform(8, 30)
    tissues = _draw_tissues(tissue_rng, contrast)
    axes = [((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32) for n, mm in zip(shape, spacing, strict=True)]
    bumps = [_Lattice(field_rng, (step, step, step), axes) for step in (17.0, 14.0, 12.0)]
    textures = [_Lattice(field_rng, step, axes) for step in ((5.0, 5.0, 5.0), (1.4, 1.4, 1.4), (2.0, 2.0, 14.0))]
    bias = _Lattice(field_rng, (70.0, 70.0, 70.0), axes)

    image, labels = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    depth = max(1, VOXELS_PER_SLAB // (shape[1] * shape[2]))
    for start in range(0, shape[0], depth):
        part = slice(start, start + depth)
        relief = [body.roughness * lattice.slab(part) for lattice in bumps]
        knee = _Knee(body, [axes[0][part], *axes[1:]], relief)
        canvas = _Canvas(tissues, [lattice.slab(part) for lattice in textures], spacing[1] / body.scale)
        _paint_knee(knee, canvas)
        image[part], labels[part] = canvas.image, knee.labels()

    _degrade(image, spacing, bias, drawn_noise if noise is None else noise, noise_rng)
    # x is lateral here: to the right in a right knee.
    flip = slice(None, None, -1 if (side or drawn_side) == "left" else 1)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * mm for n, mm in zip(shape, spacing, strict=True)]
    return Phantom(np.ascontiguousarray(image[flip]), np.ascontiguousarray(labels[flip]), spacing, affine)


def write_phantom(phantom: Phantom, image_path: str | Path, labels_path: str | Path, orientation: str = "RAS") -> None:
    """Write the image (int16) and the labels (uint8) as two NIfTI files (.nii.gz), each atomically.

    `orientation` gives the axes in the files by nibabel's codes, such as "PIR"; the affine is made to match.
    """
    stored, wanted = (nib.orientations.axcodes2ornt(codes) for codes in ("RAS", orientation))
    turn = nib.orientations.ornt_transform(stored, wanted)
    for array, path in ((phantom.image.astype(np.int16), image_path), (phantom.labels, labels_path)):
        nifti = nib.Nifti1Image(array, phantom.affine).as_reoriented(turn)
        nifti.header.set_xyzt_units("mm")
        with atomic(path) as temporary:
            nib.save(nifti, temporary)


def write_study(
    folder: str | Path,
    seeds: Iterable[int],
    shape: Shape = (160, 384, 384),
    spacing: Triple = (0.7, 0.365, 0.365),
    contrast: Contrast = "dess",
    *,
    verbose: bool = False,
) -> Path:
    """Write one phantom per seed, and their sample sheet; sides and stored orientations alternate.

    `folder` receives phantom_SEED_image.nii.gz, phantom_SEED_labels.nii.gz and volumes.tsv (tab-separated
    volume, image, reference, group: paths as `folder` is given, each knee its own group). Nothing is written
    where the sheet and all its files are there already. `verbose` prints a line per phantom.
    Returns the path of the sheet.
    """
    sheet = Path(folder) / "volumes.tsv"
    names = {seed: f"phantom_{seed:03d}" for seed in seeds}
    files = {seed: [sheet.with_name(f"{n}_{kind}.nii.gz") for kind in ("image", "labels")] for seed, n in names.items()}
    rows = [f"{names[seed]}\t{image}\t{labels}\t{names[seed]}\n" for seed, (image, labels) in files.items()]
    text = "".join(["volume\timage\treference\tgroup\n", *rows])
    done = sheet.exists() and sheet.read_text(encoding="utf-8") == text
    done = done and all(path.exists() for pair in files.values() for path in pair)
    for place, (seed, (image, labels)) in enumerate(files.items()):
        side: Side = "left" if place % 2 else "right"
        orientation = ORIENTATIONS[place % len(ORIENTATIONS)]
        if not done:
            write_phantom(make_phantom(seed, shape, spacing, contrast=contrast, side=side), image, labels, orientation)
        if verbose:
            print(f"{image}: {side} knee, axes {orientation}{', already there' if done else ''}", flush=True)
    if not done:
        write_text(sheet, text)
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a study of phantoms."""
    parser = argparse.ArgumentParser(prog="python -m volprompt.phantom", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 384, 384), help="voxels along r, a, s")
    parser.add_argument("--spacing", type=float, nargs=3, default=(0.7, 0.365, 0.365), help="mm along r, a, s")
    parser.add_argument("--contrast", choices=("dess", "random"), default="dess")
    given = parser.parse_args(arguments)
    seeds = range(given.first_seed, given.first_seed + given.count)
    write_study(given.folder, seeds, tuple(given.shape), tuple(given.spacing), given.contrast, verbose=True)


if __name__ == "__main__":
    main()

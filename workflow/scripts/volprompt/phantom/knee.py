"""The anatomy of a synthetic knee."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from volprompt.phantom.shapes import Array, Triple, bump, cut, join, rod, rounded_box, smooth_step

Rod = tuple[Triple, Triple, float, float]

LABELS: dict[str, int] = {"femur": 1, "femoral_cartilage": 2, "tibia": 3, "tibial_cartilage": 4, "patella": 5}

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


class Anatomy:
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


class Knee:
    """The shapes of one knee at the points of a slab; x lateral, a anterior, s superior of the joint, mm."""

    def __init__(self, body: Anatomy, axes: Sequence[Array], bumps: Sequence[Array]) -> None:
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
        outline = rod((a, s), start, stop, radius, front)
        # The condyles diverge backwards.
        middle = sign * (body.condyle_offset - 0.1 * (a + 5.0))
        return rounded_box(outline, np.abs(x - middle) - body.condyle_half_width, 9.0), outline

    def _femur(self) -> None:
        (x, a, s), body, front = self.at, self.body, self.body.trochlea_radius
        medial, medial_outline = self._condyle(-1, body.condyle_radii[0])
        lateral, lateral_outline = self._condyle(1, body.condyle_radii[1])
        outline = np.where(x < 0, medial_outline, lateral_outline)
        flare = smooth_step(s, 82, 24)
        wide = body.shaft_radius + 2.0 + (body.condyle_offset + 11.5 - body.shaft_radius) * flare
        deep = body.shaft_radius + 4.5 * flare
        shaft = cut(rounded_box(np.abs(x) - wide, np.abs(a - 4.0) - deep, 0.88 * body.shaft_radius), 20.0 - s, 10.0)
        trochlea = rod((a, s), (7.0, body.gap / 2 + 3.0 + front), (4.0, 42.0), front - 0.5, 18.0)
        whole = join(join(medial, lateral, 4.0), rounded_box(trochlea, np.abs(x) - 18.0, 6.0), 5.0)
        groove = body.groove_depth * bump(x - 1.5, 10.0) * smooth_step(a, 2, 16) * smooth_step(s, 58, 40)
        roof = (a - 9.0) * 0.64 + (s - 5.0) * 0.77
        self.notch = cut(np.abs(x - 0.5) - body.notch_half_width, roof, 9.0)
        self.femur = cut(join(whole, shaft, 9.0) + groove + self.bumps[0], -self.notch, 6.0)
        self.articular = cut(-(outline + groove) - 4.0, s - 37.0 - 0.25 * a, 2.0)

    def _tibia(self) -> None:
        (x, a, s), body = self.shank, self.body
        flare = smooth_step(s, -66, -12)
        wide = body.shaft_radius + 3.0 + (body.plateau_half_width - body.shaft_radius - 3.0) * flare
        deep = body.shaft_radius + (body.plateau_half_depth - body.shaft_radius) * flare
        outline = rounded_box(np.abs(x) - wide, np.abs(a - 1.0 + 5.0 * flare) - deep, 0.78 * deep)
        self.outline = outline + 5.0 * bump(x, 10.0) * smooth_step(a, -12, -26) * smooth_step(s, -30, -8)
        spines = body.eminence_height * bump(a + 5.0, 10.0) * (bump(x + 5.5, 4.0) + 0.8 * bump(x - 5.5, 4.0))
        dish = 1.3 * bump(x + 22.0, 12.0) * bump(a + 6.0, 16.0)
        self.above_plateau = s - spines + dish + body.gap / 2 - 0.07 * (a + 8.0)
        tuberosity = rod(self.shank, (3, 11, -26), (3, 10, -44), 8, 6)
        whole = join(cut(self.outline, self.above_plateau, 5.0), tuberosity, 9.0) + 0.8 * self.bumps[1]
        self.tibia = cut(whole, body.gap - self.femur, 1.5)
        head = rod(self.shank, (34, -19, -17), (33, -17, -30), 7.5, 5.5)
        fibula = join(head, rod(self.shank, (33, -17, -30), (31, -15, -90), 5.5, 6), 4.0)
        self.fibula = cut(fibula + self.bumps[1], 2.5 - self.tibia, 2.0)

    def _patella(self) -> None:
        x, a, s = (axis - middle for axis, middle in zip(self.at, self.body.patella_centre, strict=True))
        tall = self.body.patella_half_height
        # Broad above, pointed below; the apex lies in front.
        wide = self.body.patella_half_width * (0.42 + 0.58 * smooth_step(s, -tall, 0.1 * tall))
        rim = rounded_box(np.abs(x) - wide, np.abs(s) - tall, 0.72 * wide)
        front = a - 9.0 + 0.012 * x * x + 0.006 * s * s
        back = (
            0.38 * np.abs(x - 1.5) + 7.0 * smooth_step(s, -0.2 * tall, -tall) + 3.0 * smooth_step(s, 8, tall) - a - 10.5
        )
        whole = cut(cut(front, back, 5.0), rim, 6.0) + 0.7 * self.bumps[2]
        self.patella = cut(whole, self.body.femoral_cartilage_mm + 2.6 - self.femur, 1.5)
        facets = np.maximum(np.maximum(a + 1.0, np.abs(s - 2.0) - 0.68 * tall), rim + 2.5)
        layer = cut(self.patella - 2.8, facets, 1.5)
        self.patellar_cartilage = np.maximum(layer, self.body.femoral_cartilage_mm - self.femur)

    def _cartilages(self) -> None:
        x, body = np.abs(self.at[0]), self.body
        bearing = cut(self.articular, cut(x - body.condyle_offset - 10.5, 2.0 - self.notch, 2.0), 2.0)
        self.femoral_cartilage = cut(self.femur - body.femoral_cartilage_mm, bearing, 1.5)
        bearing = np.maximum(np.maximum(self.outline + 2.0, 9.5 - x), -self.above_plateau - 2.0)
        layer = cut(self.tibia - body.tibial_cartilage_mm, bearing, 1.2)
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
        anterior = rod(self.at, (6.5, -12.0, 25.0), (-1.0, *front), 3.5, 4.0)
        posterior = rod(self.at, (-5.0, -4.0, 16.0), (-1.0, -22.0, 20.0), 4.5, 4.0)
        posterior = np.minimum(posterior, rod(self.at, (-1.0, -22.0, 20.0), (0.0, *back), 4.0, 4.0))
        quadriceps = rod((a, s), (a0 + 2.5, s0 + 0.8 * tall), (a0 - 8.0, s0 + tall + 50.0), 3.2, 2.8)
        patellar = rod((a, s), (a0 + 4.0, s0 - 0.8 * tall), tuberosity, 2.6, 2.4)
        tendons = np.maximum(np.minimum(quadriceps, patellar), np.abs(x - x0) - 14.0)
        return np.minimum(np.minimum(anterior, posterior), tendons)

    def fluid(self) -> Array:
        """Joint fluid: the suprapatellar pouch, and a film on the femoral cartilage."""
        (x, a, s), (x0, a0, s0), half = self.at, self.body.patella_centre, self.body.effusion_mm
        top = s0 + self.body.patella_half_height
        pouch = rod((a, s), (a0 - 9.0, top - 6.0), (a0 - 15.0, top + 16.0), half, half) + 0.8 * self.bumps[2]
        film = np.maximum(self.femoral_cartilage - 0.25 * half, np.abs(x) - 30.0)
        return np.minimum(np.maximum(pouch, np.abs(x - x0) - 18.0), film)

    def limb(self) -> tuple[Array, Array]:
        """The skin surface, and the thickness (mm) of the fat under it."""
        (x, a, s), body = self.at, self.body
        follow = np.logaddexp(np.float32(0), -(s + 5.0) / 8.0) * 8.0 * math.tan(body.flexion)
        front = 27.0 + (body.patella_centre[1] - 12.0) * smooth_step(s, -58, 22) - 3.0 * smooth_step(s, 45, 80)
        back = -57.0 - 6.0 * smooth_step(s, 15, 75) - 4.0 * smooth_step(s, -15, -65)
        half, wide = (front - back) / 2, body.limb_half_width + 4.0 * smooth_step(s, 10, 75)
        depth = np.abs(a + follow - (front + back) / 2) - half
        skin = rounded_box(np.abs(x) - wide, depth, 0.86 * np.minimum(half, wide)) + self.bumps[2]
        return skin, 4.0 + body.fat_mm * (0.35 + 0.65 * smooth_step(a, 35, -10)) * (0.75 - 0.25 * np.tanh(x / 20))

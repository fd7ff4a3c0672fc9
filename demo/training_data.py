"""Training pictures of the demo models: many anatomies once, a new appearance each time.

A bank holds volumes of tissue numbers: knees of the project's phantom generator, and volumes of arbitrary shapes. A
picture is one of their slices, or a run of slices, under random contrast, texture, placement, scale, rotation, field of
view, resolution, bias field and noise. Nothing but the outlines repeats, so a model can rely on outlines only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional

# One anatomy under many contrasts needs the tissue of each voxel, which the public function does not return.
from volprompt.phantom.image import DESS, Lattice, paint_knee
from volprompt.phantom.knee import Anatomy, Knee

TISSUES = tuple(DESS)
MARROW, CORTEX, FAT, MUSCLE, CARTILAGE = (
    TISSUES.index(name) for name in ("marrow", "cortex", "fat", "muscle", "cartilage")
)
DARK = [TISSUES.index(name) for name in ("cortex", "tendon", "meniscus")]
FIBULA = 6
BONES = {"femur": 1, "tibia": 3, "patella": 5, "fibula": FIBULA}
# The small bone beside a large one, which a single point on the large one may mean as well.
NEIGHBOUR_OF = {BONES["femur"]: BONES["patella"], BONES["tibia"]: FIBULA}

# Slices, rows and columns of a bank volume, and their size in mm.
GRID = (80, 192, 192)
SPACING = (1.4, 0.73, 0.73)
OBJECTS = 8
# Anatomies 100 to 199 belong to the demo, those from 900 to the evaluation.
FIRST_SEED = 200
IMAGE_SIZE = 256
# Sizes of frames before they are resized for the model, and how often each is drawn.
FRAME_SIZES, FRAME_SHARES = (96, 128, 160, 192, 256), (0.35, 0.15, 0.15, 0.15, 0.2)
SMALLEST_AREA = 24


@dataclass(frozen=True)
class Bank:
    """Volumes as frames: uint8 (volume, slice, y, x).

    Attributes:
        tissues: number in `TISSUES` of each voxel.
        objects: 0 background, otherwise the number of a bone or body.
        areas: int (volume, slice, object), voxels of each object on each slice.
        knees: how many of the volumes, the first ones, are knees; the others hold arbitrary shapes.
    """

    tissues: np.ndarray
    objects: np.ndarray
    areas: np.ndarray
    knees: int


@dataclass(frozen=True)
class Clip:
    """Consecutive slices as frames, and the objects on them.

    Attributes:
        frames: float32 (slice, y, x), grey values 0 to 255 as whole numbers.
        masks: bool (object, slice, y, x).
        wholes: the same with the small bone beside a large one, see `NEIGHBOUR_OF`.
    """

    frames: torch.Tensor
    masks: torch.Tensor
    wholes: torch.Tensor


class _TissueMap:
    """Takes the place of the phantom's canvas and notes which tissue was painted last."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.numbers = np.zeros(shape, np.uint8)

    def paint(self, tissue: str, *shapes: np.ndarray) -> None:
        for shape in shapes:
            self.numbers[np.broadcast_to(shape < 0, self.numbers.shape)] = TISSUES.index(tissue)


def knee_volume(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tissues and objects, as frames, of the knee that `make_phantom` draws for this seed (as a right knee)."""
    body, field_rng = Anatomy(np.random.default_rng([seed, 0])), np.random.default_rng([seed, 2])
    axes = [((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32) for n, mm in zip(GRID, SPACING, strict=True)]
    bumps = [Lattice(field_rng, (step, step, step), axes) for step in (17.0, 14.0, 12.0)]
    tissues, objects = np.empty(GRID, np.uint8), np.empty(GRID, np.uint8)
    for start in range(0, GRID[0], 16):
        part = slice(start, start + 16)
        knee = Knee(body, [axes[0][part], *axes[1:]], [body.roughness * lattice.slab(part) for lattice in bumps])
        canvas = _TissueMap(knee.femur.shape)
        paint_knee(knee, canvas)
        tissues[part] = canvas.numbers
        objects[part] = _bones(knee)
    turn = (slice(None), slice(None, None, -1), slice(None, None, -1))
    return tissues[turn].transpose(0, 2, 1), objects[turn].transpose(0, 2, 1)


def _bones(knee: Knee) -> np.ndarray:
    labels = knee.labels()
    labels[~np.isin(labels, list(BONES.values()))] = 0
    labels[(knee.fibula < 0) & (labels == 0)] = FIBULA
    return labels


def shape_volume(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tissues and objects of rounded bodies, some with a thin rind, in a background of patches."""
    rng = np.random.default_rng([seed, 10])
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in GRID]
    at = np.meshgrid(0.8 * axes[0], axes[1], axes[2], indexing="ij")
    kinds = rng.permutation(len(TISSUES)).astype(np.uint8)
    patches = np.stack([_smooth_noise(rng, (4, 6, 6)) for _ in range(4)])
    tissues, objects = kinds[patches.argmax(axis=0)], np.zeros(GRID, np.uint8)
    relief = _smooth_noise(rng, (7, 10, 10))
    for number in range(1, rng.integers(4, OBJECTS)):
        depth = _body(rng, at) + rng.uniform(0.0, 0.03) * relief
        rind = rng.uniform(0.012, 0.035) if rng.random() < 0.65 else 0.0
        tissues[depth < 0] = kinds[rng.integers(4, 8)]
        tissues[depth < -rind] = kinds[rng.integers(0, len(kinds))]
        objects[depth < 0] = number
    return tissues, objects


def _body(rng: np.random.Generator, at: Sequence[np.ndarray]) -> np.ndarray:
    """About the signed distance to one ellipsoid or two that overlap, in half widths of the volume."""
    centre, size = rng.uniform(-0.65, 0.65, 3), rng.uniform(0.14, 0.42)
    depth = _ellipsoid(rng, at, centre, size)
    if rng.random() < 0.5:
        beside = centre + 0.9 * size * rng.uniform(-1, 1, 3)
        depth = np.minimum(depth, _ellipsoid(rng, at, beside, size * rng.uniform(0.6, 1.0)))
    return depth


def _ellipsoid(rng: np.random.Generator, at: Sequence[np.ndarray], centre: np.ndarray, size: float) -> np.ndarray:
    turn = Rotation.random(random_state=rng).as_matrix()
    radii = size * np.exp(rng.uniform(-0.5, 0.5, 3))
    rays = [(axis - c).astype(np.float32) for axis, c in zip(at, centre, strict=True)]
    square = np.zeros(GRID, np.float32)
    for row, radius in zip(turn, radii, strict=True):
        square += np.square(sum(np.float32(part / radius) * ray for part, ray in zip(row, rays, strict=True)))
    return (np.sqrt(square) - 1) * np.float32(radii.min())


def _smooth_noise(rng: np.random.Generator, knots: tuple[int, int, int]) -> np.ndarray:
    coarse = torch.from_numpy(rng.standard_normal((1, 1, *knots), dtype=np.float32))
    return functional.interpolate(coarse, GRID, mode="trilinear", align_corners=True)[0, 0].numpy()


def load_bank(folder: Path, knees: int, shapes: int) -> Bank:
    """Read the bank, made first where it is not there (about 2 s a volume)."""
    arrays = [folder / f"{kind}_{knees}_{shapes}.npy" for kind in ("tissues", "objects", "areas")]
    if not arrays[-1].exists():
        _make_bank(arrays, knees, shapes)
    tissues, objects, areas = (np.load(path, mmap_mode="r") for path in arrays)
    return Bank(tissues, objects, np.asarray(areas), knees)


def _make_bank(arrays: Sequence[Path], knees: int, shapes: int) -> None:
    arrays[0].parent.mkdir(parents=True, exist_ok=True)
    size = (knees + shapes, *GRID)
    tissues, objects = (np.lib.format.open_memmap(path, "w+", np.uint8, size) for path in arrays[:2])
    for place in range(len(tissues)):
        make = knee_volume if place < knees else shape_volume
        tissues[place], objects[place] = make(FIRST_SEED + place)
        print(f"bank: volume {place + 1} of {len(tissues)}", flush=True)
    areas = np.stack([(objects == number).sum(axis=(2, 3), dtype=np.int32) for number in range(OBJECTS)], axis=2)
    np.save(arrays[2], areas)


def draw_clip(
    bank: Bank, rng: np.random.Generator, depth: int, prompted: int, most: int, knee_share: float = 0.7
) -> Clip:
    """A random clip of `depth` slices whose objects, at most `most`, all appear on the slice number `prompted`."""
    while True:
        place = rng.integers(bank.knees) if rng.random() < knee_share else rng.integers(bank.knees, len(bank.tissues))
        knee = bool(place < bank.knees)
        areas = bank.areas[place]
        slices = _draw_slices(areas, rng, depth, prompted)
        present = np.flatnonzero(areas[slices[prompted], 1:] > 4 * SMALLEST_AREA) + 1
        if len(present) == 0:
            continue
        chosen = rng.permutation(present)[:most]
        clip = render(bank.tissues[place, slices], bank.objects[place, slices], chosen, knee, rng)
        seen = clip.masks[:, prompted].sum(dim=(1, 2)) >= SMALLEST_AREA
        if seen.any():
            return Clip(clip.frames, clip.masks[seen], clip.wholes[seen])


def _draw_slices(areas: np.ndarray, rng: np.random.Generator, depth: int, prompted: int) -> np.ndarray:
    """Slice numbers, upwards or downwards in thin or thick steps, the prompted one inside an object.

    In half of the clips an object is likely to end: its last slice is about as far away as the clip reaches.
    """
    occupied = np.flatnonzero(areas[:, 1:].sum(axis=1))
    step = rng.choice([0.5, 1, 2, 3], p=[0.15, 0.2, 0.4, 0.25]) * rng.choice([-1, 1])
    steps = np.floor((np.arange(depth) - prompted) * step).astype(int)
    start = rng.choice(occupied)
    if depth > 1 and rng.random() < 0.5:
        number = rng.choice(np.flatnonzero(areas[start]))
        own = np.flatnonzero(areas[:, number] > 4 * SMALLEST_AREA) if number else occupied
        if len(own):
            reach = rng.choice(steps[[0, -1]]) * rng.uniform(0.2, 0.9)
            start = np.clip((own[-1] if reach > 0 else own[0]) - reach, own[0], own[-1])
    return np.clip(int(start) + steps, 0, len(areas) - 1)


def render(
    tissues: np.ndarray, objects: np.ndarray, chosen: Sequence[int], knee: bool, rng: np.random.Generator
) -> Clip:
    """Slices (slice, y, x) under a random appearance and in a random view; see `Clip`."""
    image = _paint(torch.from_numpy(tissues.astype(np.int64)), knee, rng)
    number = torch.from_numpy(np.ascontiguousarray(objects)).float()
    size = int(rng.choice(FRAME_SIZES, p=FRAME_SHARES))
    grid = _view(len(image), rng)
    image = functional.grid_sample(image[:, None], grid, align_corners=False)
    number = functional.grid_sample(number[:, None], grid, mode="nearest", align_corners=False)
    masks = torch.cat([(number == value).float() for value in chosen], dim=1)
    beside = [number == NEIGHBOUR_OF[value] if knee and value in NEIGHBOUR_OF else number < 0 for value in chosen]
    wholes = torch.maximum(masks, torch.cat(beside, dim=1).float())
    if rng.random() < 0.5:
        image = _blur(image, rng.uniform(0.5, 2.5))
    image, masks, wholes = (
        functional.interpolate(each, (size, size), mode="area").transpose(0, 1) for each in (image, masks, wholes)
    )
    image, masks, wholes = _acquire(image[0], rng), masks > 0.5, wholes > 0.5
    if rng.random() < 0.3:
        _cut_field_of_view(image, (masks, wholes), rng)
    return Clip(_window(image, rng), masks, wholes)


def _paint(tissues: torch.Tensor, knee: bool, rng: np.random.Generator) -> torch.Tensor:
    """Grey values, mostly 0 to 1, of tissue numbers (slice, y, x)."""
    count, height, width = tissues.shape
    image = torch.from_numpy(_contrast(knee, rng))[tissues]
    strengths = rng.uniform(0, 0.16, (3, len(TISSUES))) * rng.choice([0.3, 1, 1.7])
    lattices = [(1, *rng.integers(4, 16, 2)), (1, *rng.integers(10, 90, 2)), (count, *rng.integers(60, 160, 2))]
    for strength, lattice in zip(strengths.astype(np.float32), lattices, strict=True):
        noise = functional.interpolate(torch.randn(lattice)[:, None], (height, width), mode="bilinear")[:, 0]
        image = image * (1 + torch.from_numpy(strength)[tissues] * noise).clamp(min=0)
        if lattice[0] == 1 and rng.random() < 0.15:  # vessels and islands in the marrow
            islands = (noise > rng.uniform(1.0, 1.8)) & (tissues == MARROW)
            image = torch.where(islands, image * rng.uniform(0.3, 1.4), image)
    return image


def _contrast(knee: bool, rng: np.random.Generator) -> np.ndarray:
    """Mean grey value of each tissue: any, that of DESS, or one with bright marrow and dark cortex."""
    grey = rng.uniform(0.03, 1, len(TISSUES))
    if not knee:
        return grey.astype(np.float32)
    kind = rng.random()
    if kind < 0.15:
        grey = np.array([values[0] for values in DESS.values()]) / 900 * rng.uniform(0.8, 1.2, len(TISSUES))
    elif kind < 0.5:
        grey[DARK] = rng.uniform(0, 0.18, 3)
        grey[MARROW] = rng.uniform(0.4, 0.95)
        grey[FAT] = grey[MARROW] * rng.uniform(0.75, 1.35)
        grey[MUSCLE] = rng.uniform(0.05, 0.5)
        grey[CARTILAGE] = rng.uniform(0.05, 0.7)
    else:
        # A bone must be seen somehow: by its rind or by what is around it.
        while abs(grey[CORTEX] - grey[MARROW]) < 0.25 and min(abs(grey[[FAT, MUSCLE]] - grey[MARROW])) < 0.15:
            grey = rng.uniform(0.03, 1, len(TISSUES))
    grey[0] = rng.uniform(0, 0.03)
    return grey.astype(np.float32)


def _view(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Sampling grid (slice, y, x, 2): one placement, scale, rotation and mirroring, with a little drift."""
    angle = np.deg2rad(rng.uniform(-25, 25) if rng.random() < 0.8 else rng.uniform(-180, 180))
    zoom = np.exp(rng.uniform(np.log(0.5), np.log(1.25)))
    scale = zoom * np.exp(rng.uniform(-0.15, 0.15, 2)) * np.where(rng.random(2) < (0.5, 0.25), -1, 1)
    shift = rng.uniform(-0.35, 0.35, 2) * (0.4 + 1.2 * abs(1 - zoom))
    turning, moving = rng.normal(0, 0.006), rng.normal(0, 0.006, 2)
    thetas = []
    for step in range(count):
        cos, sin = np.cos(angle + step * turning), np.sin(angle + step * turning)
        x, y = shift + step * moving
        thetas.append([[cos * scale[0], -sin * scale[1], x], [sin * scale[0], cos * scale[1], y]])
    return functional.affine_grid(torch.tensor(thetas).float(), [count, 1, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)


def _blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    reach = int(2.5 * sigma + 1)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights = weights / weights.sum()
    image = functional.conv2d(image, weights.reshape(1, 1, -1, 1), padding=(reach, 0))
    return functional.conv2d(image, weights.reshape(1, 1, 1, -1), padding=(0, reach))


def _acquire(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Bias field and Rician noise."""
    field = torch.randn(1, 1, 3, 3) * rng.uniform(0, 0.35)
    image = image * functional.interpolate(field, image.shape[1:], mode="bicubic").exp()[0]
    real, imaginary = torch.randn(2, *image.shape) * rng.uniform(0.002, 0.06)
    return torch.hypot(image + real, imaginary)


def _cut_field_of_view(image: torch.Tensor, masks: Sequence[torch.Tensor], rng: np.random.Generator) -> None:
    """Black margins, as where an image was padded; nothing is segmented on them."""
    size = image.shape[-1]
    for axis in rng.permutation([1, 2])[: rng.integers(1, 3)]:
        first, last = (int(size * share) for share in (rng.uniform(0, 0.25), rng.uniform(0.75, 1)))
        outside = torch.ones(size, dtype=torch.bool)
        outside[first:last] = False
        image.transpose(1, int(axis))[:, outside] = 0
        for each in masks:
            each.transpose(2, int(axis) + 1)[:, :, outside] = False


def _window(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Grey values 0 to 255 between two percentiles of the clip."""
    values = image.flatten()[:: max(1, image.numel() // 8192)].sort().values
    low, high = (values[int(share * (len(values) - 1))] for share in (rng.uniform(0, 0.02), rng.uniform(0.97, 1)))
    scaled = ((image - low) / (high - low).clamp(min=1e-3)).clamp(0, 1) ** float(np.exp(rng.uniform(-0.3, 0.3)))
    return (255 * scaled).round()


def draw_point(mask: torch.Tensor, rng: np.random.Generator) -> tuple[float, float]:
    """A click (x, y) on a mask, bool (y, x): its centroid, or any of its pixels."""
    y, x = np.nonzero(mask.numpy())
    if rng.random() < 0.6:
        return float(x.mean()), float(y.mean())
    pick = rng.integers(len(x))
    return float(x[pick]), float(y[pick])


def draw_box(mask: torch.Tensor, rng: np.random.Generator) -> list[tuple[float, float]]:
    """The mask's tight box as two corners, maxima inclusive, sometimes a little off."""
    y, x = np.nonzero(mask.numpy())
    corners = np.array([[x.min(), y.min()], [x.max(), y.max()]], dtype=float)
    if rng.random() < 0.3:
        corners += rng.normal(0, 0.02, (2, 2)) * (corners[1] - corners[0] + 1)
    return [tuple(corner) for corner in corners]


def draw_negatives(masks: torch.Tensor, own: int, count: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Points (x, y) on other objects of a slice, masks bool (object, y, x), or else off the own object."""
    others = [number for number in rng.permutation(len(masks)) if number != own and masks[number].any()]
    points = [draw_point(masks[number], rng) for number in others[:count]]
    off_y, off_x = np.nonzero(~masks[own].numpy())
    picks = rng.integers(len(off_x), size=count - len(points))
    return points + [(float(off_x[pick]), float(off_y[pick])) for pick in picks]


# Labels of the points of each kind of prompt: 1 positive, 0 negative, 2 and 3 a box's corners.
FORMS = {"point": [1], "box": [2, 3], "one_negative": [1, 0], "two_negatives": [1, 0, 0]}


def draw_prompt(form: str, masks: torch.Tensor, own: int, rng: np.random.Generator) -> np.ndarray:
    """Coordinates float32 (points, 2) of a prompt in pixels of the model's image; masks bool (object, y, x)."""
    if form == "box":
        points = draw_box(masks[own], rng)
    else:
        points = [draw_point(masks[own], rng), *draw_negatives(masks, own, len(FORMS[form]) - 1, rng)]
    return np.array(points, dtype=np.float32) * IMAGE_SIZE / masks.shape[-1]


def model_images(clips: Sequence[Clip]) -> torch.Tensor:
    """Frames of all clips as the models take them before normalisation: (frame, 3, 256, 256), 0 to 255."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    resized = [
        functional.interpolate(clip.frames[:, None], size, mode="bilinear", antialias=True, align_corners=False)
        for clip in clips
    ]
    return torch.cat(resized).expand(-1, 3, -1, -1)


def mask_targets(masks: torch.Tensor, size: int) -> torch.Tensor:
    """Masks bool (..., y, x) as shares of covered area at the decoder's resolution, float32 (..., size, size)."""
    flat = masks.reshape(-1, 1, *masks.shape[-2:]).float()
    return functional.interpolate(flat, (size, size), mode="area").reshape(*masks.shape[:-2], size, size)

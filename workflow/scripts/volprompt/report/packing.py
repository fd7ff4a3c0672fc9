"""Frames, masks and surfaces as short texts that a page's script takes apart again (templates/viewer.js)."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from volprompt.report.meshes import Mesh, signed_distances, simplify

# Vertices are rounded to this many millimetres, distances between surfaces too, up to 12.7 mm.
STEP_MM = 0.1


@dataclass(frozen=True)
class Sheet:
    """Frames as one picture: each has `size` pixels (y, x), `columns` lie side by side; data: WebP in base64."""

    size: tuple[int, int]
    columns: int
    data: str


def frames_sheet(frames: np.ndarray, size: tuple[int, int], quality: int) -> Sheet:
    """Put frames, uint8 (slice, y, x), into one about square picture, each in `size` pixels (y, x)."""
    from PIL import Image

    height, width = size
    columns = int(np.ceil(np.sqrt(len(frames) * height / width)))
    rows = -(-len(frames) // columns)
    whole = Image.new("L", (columns * width, rows * height))
    for place, frame in enumerate(frames):
        small = Image.fromarray(np.ascontiguousarray(frame))
        if small.size != (width, height):
            small = small.resize((width, height), Image.Resampling.BOX)
        whole.paste(small, (place % columns * width, place // columns * height))
    stream = io.BytesIO()
    whole.convert("RGB").save(stream, format="WEBP", quality=quality, method=2)
    return Sheet(size, columns, base64.b64encode(stream.getvalue()).decode())


def shrunk(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask, bool (slice, y, x), in fewer pixels: set where at least half of a pixel's area is set."""
    from PIL import Image

    if mask.shape[1:] == tuple(size):
        return mask
    small = np.empty((len(mask), *size), dtype=bool)
    for place, own in enumerate(mask):
        picture = Image.fromarray(own.astype(np.uint8) * 255)
        small[place] = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BOX)) >= 128
    return small


def coded_mask(mask: np.ndarray) -> str:
    """A mask, bool of any shape, as run lengths: zeros, ones, zeros and so on in reading order.

    uint32, the lowest bytes of all first, then the next; deflated (zlib), in base64.
    """
    flat = mask.ravel().view(np.int8)
    changes = np.flatnonzero(np.diff(flat, prepend=np.int8(0)))
    runs = np.diff(np.append(changes, flat.size), prepend=0).astype(np.uint32)
    return _deflated(_planes(runs))


def coded_surface(whole: Mesh, reference: Mesh | None, origin: Sequence[float], cell: float) -> dict[str, Any] | None:
    """A surface for the page: the number of vertices and triangles, and one deflated block of data in base64.

    The block holds three planes of uint16 vertex coordinates in steps of STEP_MM from `origin` (slice, y, x; mm), each
    as differences from the vertex before; the triangles' first corners as differences, then their second and third
    less the first; and, with a reference, each vertex' signed distance to it as int8 in steps of STEP_MM.
    """
    small = simplify(whole, cell)
    if not len(small.triangles) or len(small.vertices) > 1 << 16:
        return None
    steps = np.clip(np.rint((small.vertices - np.array(origin)) / STEP_MM), 0, (1 << 16) - 1).astype(np.int64)
    first = small.triangles[:, 0]
    numbers = [
        *np.diff(steps, axis=0, prepend=0).T,
        np.diff(first, prepend=0),
        small.triangles[:, 1] - first,
        small.triangles[:, 2] - first,
    ]
    content = b"".join(_planes(values.astype(np.uint16)) for values in numbers)
    if reference is not None:
        apart = signed_distances(small.vertices, reference, near_mm=1.5 * cell)
        content += np.clip(np.rint(apart / STEP_MM), -127, 127).astype(np.int8).tobytes()
    return {
        "vertices": len(small.vertices),
        "triangles": len(small.triangles),
        "distances": reference is not None,
        "data": _deflated(content),
    }


def _planes(values: np.ndarray) -> bytes:
    """The lowest bytes of all values, then the next ones: alike bytes side by side deflate best."""
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(values.size, -1).T.tobytes()


def _deflated(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()

"""Frames, masks and surfaces as short texts, which the script of the viewer decodes (templates/viewer/unpacking.js)."""

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
    """Frames side by side as one picture.

    size: pixels of a frame (y, x).
    columns: number of frames side by side.
    data: WebP in base64.
    """

    size: tuple[int, int]
    columns: int
    data: str


def frames_sheet(frames: np.ndarray, size: tuple[int, int], quality: int) -> Sheet:
    """Put frames into one picture that is about square.

    frames: uint8 (slice, y, x); size: pixels of a frame in the picture (y, x); quality: of WebP.
    """
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


def shrink(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reduce a mask, bool (slice, y, x), to `size` pixels (y, x): set if at least half of a pixel's area is set."""
    from PIL import Image

    if mask.shape[1:] == tuple(size):
        return mask
    small = np.empty((len(mask), *size), dtype=bool)
    for place, on_slice in enumerate(mask):
        picture = Image.fromarray(on_slice.astype(np.uint8) * 255)
        small[place] = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BOX)) >= 128
    return small


def encode_mask(mask: np.ndarray) -> str:
    """Encode a mask, bool of any shape, as run lengths of zeros, ones, zeros and so on in reading order.

    The lengths are uint32: the lowest bytes of all, then the next ones, and so on; deflated (zlib), in base64.
    """
    flat = mask.ravel().view(np.int8)
    changes = np.flatnonzero(np.diff(flat, prepend=np.int8(0)))
    runs = np.diff(np.append(changes, flat.size), prepend=0).astype(np.uint32)
    return _deflate(_byte_planes(runs))


def encode_surface(whole: Mesh, reference: Mesh | None, origin: Sequence[float], cell: float) -> dict[str, Any] | None:
    """Encode a surface for the page: the numbers of vertices and triangles, and a deflated block in base64.

    whole: the surface.
    reference: the surface to which distances are measured, or None.
    origin: of the coordinates, (slice, y, x) in millimetres.
    cell: millimetres within which vertices are merged.

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
    content = b"".join(_byte_planes(values.astype(np.uint16)) for values in numbers)
    if reference is not None:
        apart = signed_distances(small.vertices, reference, near_mm=1.5 * cell)
        content += np.clip(np.rint(apart / STEP_MM), -127, 127).astype(np.int8).tobytes()
    return {
        "vertices": len(small.vertices),
        "triangles": len(small.triangles),
        "distances": reference is not None,
        "data": _deflate(content),
    }


def _byte_planes(values: np.ndarray) -> bytes:
    """Return the lowest bytes of all values, then the next ones, since similar bytes side by side deflate best."""
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(values.size, -1).T.tobytes()


def _deflate(content: bytes) -> str:
    # Level 9 takes five times as long, for two thousandths of the size.
    return base64.b64encode(zlib.compress(content, 7)).decode()

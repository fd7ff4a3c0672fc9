"""The border of a mask as its pixels have it: straight lines along their sides, at whatever size they are drawn."""

from __future__ import annotations

import numpy as np
from matplotlib.path import Path


def border_path(mask: np.ndarray) -> Path:
    """Return the border of a mask as straight lines in (x, y), pixel centres at whole numbers.

    mask: bool (y, x). What lies beyond is not set, so that a mask that ends at the frame's edge is closed there.
    """
    around = np.pad(mask, 1)
    level = _lines(around[1:] != around[:-1])
    upright = _lines((around[:, 1:] != around[:, :-1]).T)
    ends = np.concatenate([level, upright[..., ::-1]]) - np.array([1.0, 1.0])
    ends = ends.reshape(-1, 2)
    codes = np.tile([Path.MOVETO, Path.LINETO], len(ends) // 2).astype(Path.code_type)
    return Path(ends, codes)


def _lines(edges: np.ndarray) -> np.ndarray:
    """Return runs of edges as lines (n, 2, 2): start and end, each (along, across), on the padded grid.

    edges: bool (across, along); edge k lies between the pixels k and k + 1 across, so at k + 1/2.
    """
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (across, start), (_, stop) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    first, last = (np.stack([along - 0.5, across + 0.5], axis=1) for along in (start, stop))
    return np.stack([first, last], axis=1)

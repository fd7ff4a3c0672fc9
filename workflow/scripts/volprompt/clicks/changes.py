"""What a page in the browser sends, checked, and brought together with what others wrote into the table meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volprompt.clicks.pages import CollectError, Page
from volprompt.clicks.table import ClickKey, Point

# Far beyond any frame, and far below what a number of JSON can be.
LARGEST = 1e9


def checked_request(page: Page, sent: object) -> tuple[dict[ClickKey, Point], dict[ClickKey, Point]]:
    """Return the clicks that a page knew, and those that it has now, with coordinates rounded to a thousandth.

    Raises CollectError for anything else than the two lists, and for a click that does not belong to the page.
    """
    if not isinstance(sent, dict) or not {"known", "clicks"} <= sent.keys():
        raise CollectError("the page sent something else than its `clicks` and the `known` ones; load it again")
    known = dict(_parse(click) for click in _as_clicks(sent["known"]))
    return page.select(known), checked_clicks(page, sent["clicks"])


def checked_clicks(page: Page, clicks: object) -> dict[ClickKey, Point]:
    """Check clicks that the browser sent. Raises CollectError for one that does not belong to the page."""
    depth, height, width = page.source.shape
    checked: dict[ClickKey, Point] = {}
    for click in _as_clicks(clicks):
        (name, index), (x, y) = _parse(click)
        if not 0 <= index < depth or not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise CollectError(f"a click at slice {index}, x {x}, y {y} lies outside the frames of {page.volume}")
        if name not in page.structures:
            raise CollectError(f"'{name}' is not asked for here; expected one of {', '.join(page.structures)}")
        if not page.free and index != page.slice:
            raise CollectError(f"a click on slice {index}: the schemes prompt slice {page.slice}")
        checked[name, index] = x, y
    return checked


def merge(
    known: Mapping[ClickKey, Point], new: Mapping[ClickKey, Point], held: Mapping[ClickKey, Point]
) -> tuple[dict[ClickKey, Point | None], list[ClickKey]]:
    """Find out what a page changed, and where somebody else was faster.

    known: what the page was shown; new: what it has now; held: what the table holds. What the page left as it was stays
    as the table holds it.

    Returns the rows to write, None for one to remove, and the keys that the page and somebody else changed differently.
    """
    changes: dict[ClickKey, Point | None] = {}
    conflicts: list[ClickKey] = []
    rounded = {key: _round(*point) for key, point in held.items()}
    for key in [*new, *(key for key in known if key not in new)]:
        before, after, now = known.get(key), new.get(key), rounded.get(key)
        if after in (before, now):
            continue
        if now == before:
            changes[key] = after
        else:
            conflicts.append(key)
    return changes, conflicts


def as_list(clicks: Mapping[ClickKey, Point]) -> list[dict[str, Any]]:
    """Return clicks as the page takes them."""
    return [{**key_as_json(key), "x": x, "y": y} for key, (x, y) in clicks.items()]


def key_as_json(key: ClickKey) -> dict[str, Any]:
    """Return structure and slice of a click as the page takes them."""
    return {"structure": key[0], "slice": key[1]}


def _as_clicks(clicks: object) -> list[dict[str, Any]]:
    if not isinstance(clicks, list) or not all(isinstance(click, dict) for click in clicks):
        raise CollectError("expected a list of clicks")
    return clicks


def _parse(click: Mapping[str, Any]) -> tuple[ClickKey, Point]:
    values: list[Any] = [click.get(key) for key in ("structure", "slice", "x", "y")]
    name, index, x, y = values
    if type(index) is not int or not all(
        type(value) in (int, float) and abs(value) < LARGEST for value in (index, x, y)
    ):
        shown = f"slice {index!r:.20}, x {x!r:.20}, y {y!r:.20}"
        raise CollectError(f"a click at {shown} lies outside every frame; expected whole slices and pixels")
    if not isinstance(name, str):
        raise CollectError(f"{name!r:.40} is not asked for here; expected the name of a structure")
    return (name, index), _round(x, y)


def _round(x: float, y: float) -> Point:
    return round(float(x), 3), round(float(y), 3)

"""The viewer's three planes in a browser: what they show is compared with the voxels that the page was given."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page
from tests.browser.conftest import Visit
from tests.browser.test_viewer import CHOICE, blue, drawn, pixels, ready, state, write_page
from tests.viewed_study import FEMUR, SHAPE, SPACING, Study

from volprompt.report import views
from volprompt.report.shown import Level
from volprompt.report.views import volume_views

# Of planes cut at a y (1) and at an x (2), by the directions in which (slice, y, x) grow: the axes that go down and to
# the right, negative ones backwards. Head or front is up, the front left, the right left as radiologists see it.
SLICE, Y, X = 1, 2, 3
SIDES = {
    "RIP": {1: (X, -SLICE), 2: (Y, -SLICE)},  # axial, coronal
    "AIL": {1: (-SLICE, X), 2: (Y, -SLICE)},  # axial, sagittal
    "SPL": {1: (-SLICE, X), 2: (-SLICE, Y)},  # coronal, sagittal
}
# Letters at the upper, lower, left and right edge, of the slices and of these planes.
SAGITTAL, CORONAL, AXIAL = "SIAP", "SIRL", "APRL"
LETTERS = {
    "RIP": [SAGITTAL, AXIAL, CORONAL],
    "AIL": [CORONAL, AXIAL, SAGITTAL],
    "SPL": [AXIAL, CORONAL, SAGITTAL],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("planes"), volumes=["a"], corrected=True)


@pytest.fixture(scope="module")
def made(study: Study) -> dict[str, Any]:
    found = volume_views(study.scores, study.shards, study.design)
    assert found is not None
    return found


def with_values(made: dict[str, Any], axes: str = "RIP") -> tuple[dict[str, Any], np.ndarray]:
    """The same with noise of one's own without loss, and its values by slice, y and x."""
    (volume,) = made["volumes"]
    rows, columns = volume["size"]
    values = np.random.default_rng(3).integers(0, 256, (len(volume["slices"]), rows, columns), dtype=np.uint8)
    beside = volume["columns"]
    sheet = np.zeros((-(-len(values) // beside) * rows, beside * columns), np.uint8)
    for place, frame in enumerate(values):
        top, left = place // beside * rows, place % beside * columns
        sheet[top : top + rows, left : left + columns] = frame
    stream = io.BytesIO()
    Image.fromarray(sheet).convert("RGB").save(stream, format="WEBP", lossless=True)
    frames = base64.b64encode(stream.getvalue()).decode()
    return made | {"volumes": [volume | {"frames": frames, "axes": axes}]}, values


def three_planes(page: Page) -> None:
    ready(page)
    page.get_by_role("button", name="Three planes").click()
    page.wait_for_selector(".viewer-root[data-planes=true]")
    drawn(page)


def pane(through: int, beside: int = 0) -> str:
    """The canvas of the plane that is cut at an axis."""
    return f".viewer-panel:nth-child({1 + beside}) .viewer-stage:nth-child({(1, 3, 2)[through]}) canvas"


def picture_of(found: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that the picture takes of a canvas."""
    opaque = found[..., 3] == 255
    rows, columns = (np.flatnonzero(opaque.mean(axis=axis) > 0.5) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def at_centres(found: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The pixels of a canvas at the centres of a plane's voxels."""
    inside = found[picture_of(found)]
    rows, columns = (
        ((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(shape, inside.shape, strict=False)
    )
    return inside[rows][:, columns]


def agreement(page: Page, through: int, expected: np.ndarray) -> float:
    """The share of a plane's voxels that are shown as expected, grey values or a mask, beside the crosshair."""
    shown = at_centres(pixels(page, pane(through)), expected.shape)
    agree = blue(shown) == expected if expected.dtype == bool else abs(shown[..., 0] - expected) <= 1
    for axis in (0, 1):
        agree = np.delete(agree, agree.mean(axis=1 - axis).argmin(), axis=axis)
    return float(agree.mean())


def click(page: Page, through: int, right: float, down: float) -> None:
    """Click at shares of the picture's width and height."""
    found = pixels(page, pane(through))
    rows, columns = picture_of(found)
    box = page.locator(pane(through)).bounding_box()
    assert box is not None
    ratio = found.shape[1] / box["width"]
    x = columns.start + right * (columns.stop - columns.start)
    y = rows.start + down * (rows.stop - rows.start)
    page.locator(pane(through)).click(position={"x": x / ratio, "y": y / ratio})
    drawn(page)


def without_marks(page: Page) -> None:
    for label in ("Reference", "Prediction", "Prompts"):
        page.get_by_label(label, exact=True).uncheck()


def across(values: np.ndarray, axes: str, through: int, index: int) -> np.ndarray:
    """What a plane across shows of an array (slice, y, x)."""
    down, right = SIDES[axes][through]
    cut = values.take(index, axis=through)
    if abs(down) > abs(right):
        cut = cut.T
    return cut[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


@pytest.mark.parametrize(("axes", "width"), [("RIP", 1280), ("RIP", 390), ("AIL", 1280), ("SPL", 390)])
def test_planes_across_show_the_voxels(
    visit: Callable[..., Visit], made: dict[str, Any], tmp_path: Path, axes: str, width: int
) -> None:
    given, values = with_values(made, axes)
    page = visit(write_page(tmp_path / "page.html", given), width).page
    three_planes(page)
    without_marks(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    size_mm = np.array(values.shape) * SPACING
    click(page, 0, 11.5 / values.shape[2], 20.5 / values.shape[1])
    for through, index in ((1, 20), (2, 11)):
        # Letters and bar hide some voxels; noise would agree with other noise in one of 85.
        assert agreement(page, through, across(values, axes, through, index)) > 0.95
        rows, columns = picture_of(pixels(page, pane(through)))
        down, right = (size_mm[abs(axis) - 1] for axis in SIDES[axes][through])
        assert (columns.stop - columns.start) / (rows.stop - rows.start) == pytest.approx(right / down, rel=0.02)
    assert letters(page) == LETTERS[axes]
    # A click in a plane across leaves that plane and moves the two others: to 30 along y or x, and to the tenth slice.
    shares = {0: 9.5 / values.shape[0], 1: 30.5 / values.shape[1]}
    down, right = (shares[abs(a) - 1] if a > 0 else 1 - shares[abs(a) - 1] for a in SIDES[axes][2])
    click(page, 2, right, down)
    assert (page.locator(".viewer-range").input_value(), state(page, "across")) == ("9", "30 11")
    assert agreement(page, 1, across(values, axes, 1, 30)) > 0.95


def letters(page: Page) -> list[str]:
    """The letters that are written at the upper, lower, left and right edge of each plane, by the axis it is cut at."""
    page.evaluate(
        """() => {
          window.written = new Map();
          const write = CanvasRenderingContext2D.prototype.fillText;
          CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
            if (/^[RLAPSI]$/.test(text)) {
              const { clientWidth: wide, clientHeight: high } = this.canvas;
              const edge = y < 20 ? 0 : y > high - 20 ? 1 : x < 20 ? 2 : x > wide - 20 ? 3 : null;
              if (!written.has(this.canvas)) written.set(this.canvas, []);
              written.get(this.canvas)[edge] = text;
            }
            write.apply(this, arguments);
          };
        }"""
    )
    page.locator(pane(0)).press("r")
    page.locator(pane(0)).press("r")
    drawn(page)
    return [
        str(page.evaluate("which => written.get(document.querySelector(which)).join('')", pane(through)))
        for through in (0, 1, 2)
    ]


def test_masks_across_are_those_of_the_volume(
    visit: Callable[..., Visit], made: dict[str, Any], tmp_path: Path
) -> None:
    page = visit(write_page(tmp_path / "page.html", made)).page
    three_planes(page)
    without_marks(page)
    page.get_by_label("Prediction", exact=True).check()
    femur = np.zeros(SHAPE, bool)
    femur[FEMUR] = True
    femur = femur[3:17, 4:56, 6:46]  # what is shown; the femur has rows 6 to 21 and columns 6 to 29 of it
    for row, column in ((12, 20), (21, 6), (22, 5)):
        for name, value in (("Axial plane", row), ("Coronal plane", column)):
            page.get_by_role("slider", name=name).fill(str(value))
        for through, index in ((1, row), (2, column)):
            assert agreement(page, through, across(femur, "RIP", through, index)) > 0.98


def outlined_corners(page: Page, through: int, right: tuple[float, float], down: tuple[float, float]) -> bool:
    """Whether the reference's outline has the four corners of the femur's box, given as shares of the picture."""
    without_marks(page)
    before = pixels(page, pane(through))
    page.get_by_label("Reference", exact=True).check()
    page.get_by_label("tibia").uncheck()
    changed = (pixels(page, pane(through)) != before).any(axis=2)
    rows, columns = picture_of(before)
    places = [
        (
            round(columns.start + x * (columns.stop - columns.start)),
            round(rows.start + y * (rows.stop - rows.start)),
        )
        for x in right
        for y in down
    ]
    # Some of the voxels are as white as the outline.
    return all(changed[y - 1 : y + 2, x - 1 : x + 2].mean() > 0.7 for x, y in places)


def test_outlines_across_run_around_whole_voxels(
    visit: Callable[..., Visit], made: dict[str, Any], tmp_path: Path
) -> None:
    """Voxels are three times as thick as high there: an outline that cuts their corners would miss those of a box."""
    page = visit(write_page(tmp_path / "page.html", made)).page
    three_planes(page)
    # The femur has the slices 2 to 11 of the shown 14, from the patient's left, and the rows 6 to 21 of 52.
    assert outlined_corners(page, 2, (2 / 14, 12 / 14), (6 / 52, 22 / 52))


@pytest.mark.parametrize("elongated", [True, False])
def test_frames_of_long_pixels_have_such_outlines_too(
    visit: Callable[..., Visit], made: dict[str, Any], tmp_path: Path, elongated: bool
) -> None:
    """Frames that are cut across the slices of the scanner; where pixels are nearly square, outlines are smooth."""
    (volume,) = made["volumes"]
    deep, _, wide = volume["extent_mm"]
    high = 52 * (wide / 40) / (1.8 if elongated else 1)
    page = visit(
        write_page(tmp_path / "page.html", made | {"volumes": [volume | {"extent_mm": [deep, high, wide]}]})
    ).page
    ready(page)
    # The columns 6 to 29 of 40.
    assert outlined_corners(page, 0, (6 / 40, 30 / 40), (6 / 52, 22 / 52)) == elongated


def test_the_planes_begin_where_most_of_the_reference_is(
    visit: Callable[..., Visit], made: dict[str, Any], tmp_path: Path
) -> None:
    page = visit(write_page(tmp_path / "page.html", made)).page
    three_planes(page)
    # The femur's middle row and column; the middle of what is shown is row 26, between femur and tibia.
    assert state(page, "across") == "14 18"


def test_a_slice_is_as_thick_as_the_gap_that_it_stands_for(
    visit: Callable[..., Visit], study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "LEVELS", (Level(60, 5, 60, 0),))
    few = volume_views(study.scores, study.shards, study.design)
    assert few is not None
    given, values = with_values(few)
    assert given["volumes"][0]["slices"] == [3, 7, 10, 12, 16]
    page = visit(write_page(tmp_path / "page.html", given)).page
    three_planes(page)
    without_marks(page)
    page.get_by_role("slider", name="Coronal plane").fill("11")
    # Of two that are equally near the first: 3 stands for 3 to 5, 7 for 6 to 8, 10 for 9 to 11, and so on.
    standing = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]
    assert agreement(page, 2, across(values[standing], "RIP", 2, 11)) > 0.95
    text = "about every third slice of the shown part, each drawn as thick as the gap that it stands for."
    assert page.get_by_text(text).is_visible()
    # One slice of 14 is prompted, slice 10: a line there, where the crosshair is not.
    page.locator(CHOICE).select_option(label="m, clicks")
    page.wait_for_function("document.querySelector('.viewer-root').dataset.configuration === '1'")
    ready(page)
    page.locator(".viewer-range").fill("0")
    before = pixels(page, pane(2))
    page.get_by_label("Prompts", exact=True).check()
    changed = (pixels(page, pane(2)) != before).any(axis=2)
    inside = changed[picture_of(before)]
    marked = np.flatnonzero(inside.mean(axis=0) > 0.4) / inside.shape[1]
    assert marked.mean() == pytest.approx(1 - (10 - 3 + 0.5) / 14, abs=0.01)


def test_keys_wheel_zoom_and_the_address(visit: Callable[..., Visit], made: dict[str, Any], tmp_path: Path) -> None:
    page = visit(write_page(tmp_path / "page.html", made)).page
    ready(page)
    assert page.locator("canvas:visible").count() == 3  # slice, strip and surfaces
    page.locator(pane(0)).press("t")
    page.wait_for_selector(".viewer-root[data-planes=true]")
    row, column = map(int, state(page, "across").split())
    coronal = page.locator(pane(2))
    coronal.press("ArrowDown")
    coronal.press("PageUp")
    page.locator(pane(1)).hover()
    page.mouse.wheel(0, 100)
    page.wait_for_function(f"document.querySelector('.viewer-root').dataset.across === '{row + 1} {column - 4}'")
    # Zoomed in one, all are; moved along y, both planes that have y move.
    before = [pixels(page, pane(k)) for k in (0, 1, 2)]
    coronal.press("+")
    coronal.press("Shift+ArrowDown")
    assert all((pixels(page, pane(k)) != before[k]).any() for k in (0, 1, 2))
    page.get_by_role("button", name="Whole slice").click()
    assert all((pixels(page, pane(k)) == before[k]).all() for k in (0, 1, 2))
    page.wait_for_function("location.hash.includes('planes=')")
    page.wait_for_timeout(400)
    slice_, cut = state(page, "slice"), state(page, "across")
    page.reload()
    page.wait_for_selector(".viewer-root[data-planes=true]")
    assert (state(page, "slice"), state(page, "across")) == (slice_, cut)
    page.locator(pane(0)).press("T")
    page.wait_for_function("!location.hash.includes('planes=') && location.hash.includes('slice=')")


def test_a_second_configuration_has_the_same_planes(
    visit: Callable[..., Visit], made: dict[str, Any], tmp_path: Path
) -> None:
    page = visit(write_page(tmp_path / "page.html", made)).page
    three_planes(page)
    page.get_by_label("Prompts", exact=True).uncheck()
    page.locator(".viewer-beside").select_option(label="m, corrected")
    page.wait_for_function("document.querySelector('.viewer-root').dataset.beside !== ''")
    assert page.locator(".viewer-stage canvas[aria-label]:visible").count() == 6
    for through in (0, 1, 2):  # the masks of the last round are those of the other
        before = pixels(page, pane(through))
        assert (before == pixels(page, pane(through, 1))).all()
        page.locator(pane(through, 1)).press("PageDown")
        assert (before != pixels(page, pane(through))).any()


def test_a_finger_moves_the_crosshair(browser: Browser, made: dict[str, Any], tmp_path: Path) -> None:
    path = write_page(tmp_path / "page.html", made)
    page = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.goto(path.as_uri())
    three_planes(page)
    before = state(page, "across")
    page.locator(pane(2)).tap(position={"x": 30, "y": 60})
    assert state(page, "across") != before
    page.close()

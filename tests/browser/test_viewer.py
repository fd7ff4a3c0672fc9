"""The report's viewer in a browser: it shows what was chosen, reacts to wheel, keys, touch and mouse, and fits."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jinja2 import Environment
from PIL import Image
from playwright.sync_api import Browser, Page
from tests.browser.conftest import Visit, barriers
from tests.viewed_study import Study

from volprompt.files import write_table
from volprompt.palette import style_sheet
from volprompt.report import views
from volprompt.report.rendering import viewer_script
from volprompt.report.views import volume_views
from volprompt.report.volume_pages import write_volume_pages

TEMPLATES = Path(views.__file__).parent / "templates"
CHOICE = ".viewer-select:not(.viewer-beside)"
HOSTILE = "<img src=x onerror=alert(1)>&'\""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Viewer</title><style>body { margin: 1rem; font: 16px/1.5 sans-serif; } {{ css }}</style></head>
<body><div id="viewer"></div>
<script type="application/json" id="views-data">{{ views | tojson }}</script><script>{{ js }}</script>
<div style="height: 2000px"></div></body></html>"""


def write_page(path: Path, made: object) -> Path:
    css = style_sheet() + TEMPLATES.joinpath("viewer.css").read_text(encoding="utf-8")
    path.write_text(Environment().from_string(PAGE).render(css=css, js=viewer_script(), views=made), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewed")
    study = Study(folder, volumes=["a", "b", HOSTILE])
    return write_page(folder / "page.html", volume_views(study.scores, study.shards, study.design))


@pytest.fixture
def page(visit: Callable[..., Visit], page_file: Path) -> Page:
    opened = visit(page_file).page
    ready(opened)
    return opened


def ready(page: Page) -> None:
    """Wait until the chosen volume is unpacked and drawn."""
    page.wait_for_selector(".viewer-root[data-ready=true][data-drawn]")
    drawn(page)


def drawn(page: Page) -> None:
    """Wait for the next frame, in which what was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def at_rest(page: Page) -> None:
    """Wait until the page scrolls no more: a finger that is lifted while it moves leaves the page moving."""
    page.evaluate(
        """() => new Promise((done) => {
          let before, frames = 0;
          const look = () => {
            frames = scrollY === before ? frames + 1 : 0;
            before = scrollY;
            frames > 5 ? done() : requestAnimationFrame(look);
          };
          look();
        })"""
    )


def state(page: Page, name: str) -> str:
    return str(page.evaluate(f"document.querySelector('.viewer-root').dataset.{name}"))


def picture(page: Page, which: str = ".viewer-canvas") -> str:
    """The pixels of a canvas, once drawn."""
    drawn(page)
    return str(page.evaluate(f"document.querySelector('{which}').toDataURL()"))


def pixels(page: Page, which: str = ".viewer-canvas") -> np.ndarray:
    """The pixels of a canvas, once drawn: int (y, x, 4), red, green, blue and opacity."""
    text = picture(page, which)
    picture_file = io.BytesIO(base64.b64decode(text.split(",")[1]))
    return np.asarray(Image.open(picture_file).convert("RGBA")).astype(int)


def blue(found: np.ndarray) -> np.ndarray:
    """Where pixels are about the femur's colour."""
    return (found[..., 2] - found[..., 0] > 40) & (found[..., 2] > found[..., 1] + 15) & (found[..., 3] > 250)


def orange(found: np.ndarray) -> np.ndarray:
    """Where pixels are about the tibia's colour."""
    return (found[..., 0] - found[..., 2] > 40) & (found[..., 3] > 250)


def test_the_first_configurations_worst_volume_is_shown(page: Page) -> None:
    assert state(page, "volume") == HOSTILE
    assert page.locator(".viewer-title strong").inner_text() == HOSTILE
    assert page.locator(".viewer-root img").count() == 0
    assert state(page, "role") == "worst"
    names = [text.strip() for text in page.locator("[data-role]:is(button)").all_inner_texts()]
    assert names == ["Worst 0.900", "Median 0.950", "Best 1.000"]
    assert blue(pixels(page)).sum() > 1000
    assert orange(pixels(page)).sum() > 1000


def test_an_address_names_the_volume(page: Page, page_file: Path) -> None:
    page.evaluate("location.hash = '#volume=a'")
    page.wait_for_function("document.querySelector('.viewer-root').dataset.volume === 'a'")
    ready(page)
    page.evaluate("location.hash = '#volume=nowhere'")
    drawn(page)
    assert state(page, "volume") == "a"
    page.goto(f"{page_file.resolve().as_uri()}#volume=b")
    page.reload()
    page.wait_for_function("document.querySelector('.viewer-root')?.dataset.volume === 'b'")


def test_volumes_and_configurations_are_chosen(page: Page) -> None:
    page.get_by_role("button", name="Best").click()
    page.wait_for_function("document.querySelector('.viewer-root').dataset.volume === 'a'")
    ready(page)
    assert page.get_by_role("button", name="Best").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")  # the focus stays where it was, though the buttons were made anew
    page.keyboard.press("Tab")  # over the choice of what stands beside
    page.keyboard.press("Tab")  # and over the three planes
    assert page.evaluate("document.activeElement.className").startswith("viewer-canvas")
    first = picture(page)
    page.locator(".viewer-range").fill("3")
    page.locator(CHOICE).select_option(label="m, clicks")
    page.wait_for_function("document.querySelector('.viewer-root').dataset.configuration === '1'")
    ready(page)
    assert state(page, "volume") == "a"
    assert state(page, "role") == "best"
    assert state(page, "slice") == "6"  # the same volume keeps its slice: the fourth from 3
    assert picture(page) != first


def test_the_wheel_moves_through_slices_and_lets_the_page_scroll_on_at_the_end(page: Page) -> None:
    before, shown = int(state(page, "slice")), picture(page)
    page.locator(".viewer-canvas").first.hover()
    page.mouse.wheel(0, 100)
    page.wait_for_function(f"document.querySelector('.viewer-root').dataset.slice === '{before + 1}'")
    assert picture(page) != shown
    page.mouse.wheel(0, -100)
    page.wait_for_function(f"document.querySelector('.viewer-root').dataset.slice === '{before}'")
    assert page.evaluate("scrollY") == 0
    page.locator(".viewer-range").fill("1000")
    page.locator(".viewer-canvas").first.hover()
    page.mouse.wheel(0, 300)
    page.wait_for_function("scrollY > 0")


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("ArrowDown", 8),
        ("ArrowRight", 8),
        ("ArrowUp", 6),
        ("ArrowLeft", 6),
        ("PageDown", 12),
        ("PageUp", 2),
        ("Home", 0),
        ("End", 13),
    ],
)
def test_keys_move_through_slices(page: Page, key: str, place: int) -> None:
    page.locator(".viewer-range").fill("7")
    page.locator(".viewer-canvas").first.focus()
    page.keyboard.press(key)
    assert page.locator(".viewer-range").input_value() == str(place)
    assert page.evaluate("scrollY") == 0


def test_slider_strip_and_buttons_move_through_slices(page: Page) -> None:
    page.locator(".viewer-range").focus()
    page.keyboard.press("Home")
    assert state(page, "slice") == "3"
    assert "Slice 3 (0 to 19)" in str(page.locator(".viewer-range").get_attribute("aria-valuetext"))
    page.get_by_role("button", name="Next slice").click()
    assert state(page, "slice") == "4"
    box = page.locator(".viewer-strip").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] - 8, box["y"] + 10)
    assert state(page, "slice") == "16"


def test_the_prompted_slice_is_marked_and_found(page: Page) -> None:
    assert page.get_by_role("button", name="Prompted slice").is_hidden()  # boxes are given on every slice
    page.locator(CHOICE).select_option(label="m, clicks")
    page.wait_for_function("document.querySelector('.viewer-root').dataset.configuration === '1'")
    ready(page)
    page.locator(".viewer-range").fill("2")
    page.get_by_role("button", name="Prompted slice").click()
    assert state(page, "slice") == "10"
    assert "prompted" in page.locator(".viewer-of-slice").inner_text()
    page.keyboard.press("Tab")
    page.locator(".viewer-range").fill("2")
    page.locator(".viewer-canvas").first.focus()
    page.keyboard.press("j")
    assert state(page, "slice") == "10"


def test_scores_of_volume_and_slice(page: Page) -> None:
    # Volume number 2 is predicted 2 of 24 (femur) and 20 (tibia) pixels off: on each slice with both,
    # femur 22 / 24, tibia 18 / 20, together (16 * 22 + 20 * 18) / (16 * 24 + 20 * 20).
    page.locator(".viewer-range").fill("7")
    cells = page.locator(".viewer-table tbody tr")
    rows = [row.split() for row in cells.all_inner_texts()]
    assert rows == [["Combined", "0.900", "0.908"], ["femur", "0.900", "0.917"], ["tibia", "0.900", "0.900"]]
    page.locator(".viewer-range").fill("0")  # nothing there
    assert [row.split()[-1] for row in cells.all_inner_texts()] == ["\N{EN DASH}"] * 3


@pytest.mark.parametrize(("label", "key"), [("Reference", "r"), ("Prediction", "p"), ("Prompts", "c")])
def test_switches(page: Page, label: str, key: str) -> None:
    whole = picture(page)
    box = page.get_by_label(label, exact=True)
    box.uncheck()
    without = picture(page)
    assert without != whole
    page.locator(".viewer-canvas").first.focus()
    page.keyboard.press(key)
    assert box.is_checked()
    assert picture(page) == whole


def test_structures_are_switched_in_both_views(page: Page) -> None:
    page.get_by_label("Prompts", exact=True).uncheck()
    for which in (".viewer-canvas", ".viewer-solid"):
        assert orange(pixels(page, which)).sum() > 500
    page.get_by_label("tibia").uncheck()
    for which in (".viewer-canvas", ".viewer-solid"):
        assert orange(pixels(page, which)).sum() == 0
        assert blue(pixels(page, which)).sum() > 500
    page.locator(".viewer-canvas").first.focus()
    page.keyboard.press("2")
    assert page.get_by_label("tibia").is_checked()


def test_surfaces_turn_and_grow(page: Page) -> None:
    first, turn = picture(page, ".viewer-solid"), state(page, "turn")
    solid = page.locator(".viewer-solid")
    box = solid.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 130, steps=3)
    page.mouse.up()
    assert state(page, "turn") != turn
    assert picture(page, ".viewer-solid") != first
    solid.focus()
    page.keyboard.press("0")
    assert state(page, "turn") == turn
    assert picture(page, ".viewer-solid") == first
    page.keyboard.press("ArrowRight")
    assert state(page, "turn") != turn
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    assert float(state(page, "zoom")) == 1.25
    page.keyboard.press("-")
    solid.hover()
    page.mouse.wheel(0, -100)
    page.wait_for_function("Number(document.querySelector('.viewer-root').dataset.zoom) > 1.1")
    page.get_by_role("button", name="Start again").click()
    assert state(page, "zoom") == "1.000"


def test_surfaces_are_in_millimetres(page: Page) -> None:
    page.get_by_label("Reference", exact=True).uncheck()
    page.get_by_label("tibia").uncheck()
    found = pixels(page, ".viewer-solid")
    height, width, _ = found.shape
    # The shown region: 38 x 1.5 mm along x, 52 x 1 along y, 14 x 3 along the slices. Its diagonal is 1.35 times the
    # shorter side of the canvas. The femur measures 24 x 1.5, 16 x 1 and 10 x 3 mm; its corners are cut a little.
    unit = 1.35 * min(width, height) / np.linalg.norm([57, 52, 42])
    turn = np.reshape([float(value) for value in state(page, "turn").split()], (3, 3))
    expected = unit * np.abs(turn) @ [36, 16, 30]
    rows, columns = np.nonzero(blue(found))
    assert 0.92 * expected[0] < np.ptp(columns) < expected[0]
    assert 0.92 * expected[1] < np.ptp(rows) < expected[1]


def test_colours_by_distance(page: Page) -> None:
    assert page.locator(".viewer-scale").is_hidden()
    page.get_by_label("Reference", exact=True).uncheck()
    page.get_by_label("tibia").uncheck()
    assert orange(pixels(page, ".viewer-solid")).sum() == 0
    page.get_by_label("Colour by distance").check()
    drawn(page)
    assert page.locator(".viewer-scale").is_visible()
    # Shifted by 2 pixels of 1.5 mm: one side lies 3 mm outside and is red, the others agree and are grey.
    found = pixels(page, ".viewer-solid")
    red = orange(found)
    grey = (np.ptp(found[..., :3], axis=2) < 12) & (found[..., :3].min(axis=2) > 40) & (found[..., 3] > 250)
    assert red.sum() > 500
    assert grey.sum() > 500
    assert np.nonzero(red)[1].mean() > np.nonzero(grey)[1].mean()  # towards x, to the right


@pytest.fixture(scope="module")
def corrected_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrected")
    study = Study(folder, volumes=["a"], corrected=True)
    return write_page(folder / "page.html", volume_views(study.scores, study.shards, study.design))


def choose(page: Page, scheme: str, number: int) -> None:
    page.locator(CHOICE).select_option(label=f"m, {scheme}")
    page.wait_for_function(f"document.querySelector('.viewer-root').dataset.configuration === '{number}'")
    ready(page)


def test_the_slider_moves_through_rounds_of_corrections(visit: Callable[..., Visit], corrected_file: Path) -> None:
    page = visit(corrected_file).page
    ready(page)
    assert page.locator(".viewer-round").is_hidden()  # the first configuration has no corrections
    choose(page, "corrected", 2)
    assert state(page, "slice") == "10"
    slider = page.get_by_role("slider", name="Round 2 of 2", exact=True)
    page.get_by_label("Reference", exact=True).uncheck()
    shown = [picture(page)]
    cells = page.locator(".viewer-table tbody tr")
    rows = [[row.split() for row in cells.all_inner_texts()]]
    slider.focus()
    for number in (1, 0):
        page.keyboard.press("ArrowLeft")
        assert page.get_by_label(f"Round {number} of 2", exact=True).input_value() == str(number)
        assert page.evaluate("document.activeElement.className") == "viewer-round"
        shown.append(picture(page))
        rows.append([row.split() for row in cells.all_inner_texts()])
    assert len(set(shown)) == 3
    assert rows == [
        [["Combined", "1.000", "1.000"], ["femur", "1.000", "1.000"], ["tibia", "1.000", "1.000"]],
        [["Combined", "0.900", "0.959"], ["femur", "0.900", "0.917"], ["tibia", "0.900", "1.000"]],
        [["Combined", "0.800", "0.816"], ["femur", "0.800", "0.833"], ["tibia", "0.800", "0.800"]],
    ]
    assert page.locator(".viewer-round").get_attribute("aria-valuetext") == "Round 0 of 2, Dice 0.800"
    assert "Predicted surfaces are those of round 2." in page.locator(".viewer-caption").last.inner_text()
    page.keyboard.press("End")
    assert picture(page) == shown[0]
    assert "Predicted surfaces" not in page.locator(".viewer-caption").last.inner_text()
    page.keyboard.press("Home")
    choose(page, "box", 0)
    assert page.locator(".viewer-round").is_hidden()
    choose(page, "corrected", 2)  # the round is kept
    assert page.get_by_label("Round 0 of 2", exact=True).is_visible()


def test_masks_of_a_round(visit: Callable[..., Visit], corrected_file: Path) -> None:
    page = visit(corrected_file).page
    choose(page, "corrected", 2)
    for label in ("Reference", "Prompts", "tibia"):
        page.get_by_label(label, exact=True).uncheck()
    middles = []
    for number in (2, 1, 0):
        page.locator(".viewer-round").fill(str(number))
        found = pixels(page)
        middles.append(np.nonzero(blue(found))[1].mean())
    # 40 pixels of 1.5 mm by 52 pixels of 1 mm are shown, as large as they fit into the canvas.
    height, width, _ = found.shape
    pixel = 1.5 * min(width / 60, height / 52)
    np.testing.assert_allclose(np.diff(middles) / pixel, [2, 2], atol=0.1)


def test_clicks_up_to_a_round(visit: Callable[..., Visit], corrected_file: Path) -> None:
    page = visit(corrected_file).page
    choose(page, "corrected", 2)
    for label in ("Reference", "Prediction"):
        page.get_by_label(label, exact=True).uncheck()
    clicked: dict[tuple[int, int], np.ndarray] = {}
    for slice_ in (7, 10, 12):
        page.locator(".viewer-range").fill(str(slice_ - 3))
        for number in (0, 1, 2):
            page.locator(".viewer-round").fill(str(number))
            clicked[slice_, number] = pixels(page)
    changes = {k: bool((clicked[k] != clicked[k[0], k[1] - 1]).any()) for k in clicked if k[1]}
    assert changes == {(7, 1): True, (7, 2): False, (10, 1): True, (10, 2): False, (12, 1): False, (12, 2): True}
    # A positive click lies on a white disc, a negative one on a dark disc.
    changed = {n: clicked[k][(clicked[k] != clicked[k[0], 0]).any(axis=2)] for n, k in ((1, (10, 1)), (0, (7, 1)))}
    white, dark = ((changed[n][:, :3].min(axis=1) > 240).sum() for n in (1, 0))
    assert white > 1.3 * dark
    white, dark = ((changed[n][:, :3].max(axis=1) < 30).sum() for n in (1, 0))
    assert dark > 1.3 * white
    assert orange(changed[0]).sum() > 10  # the tibia's
    assert blue(changed[1]).sum() > 10  # the femur's
    # Where they lie: the femur's positive click at x 14, y 18 of a crop of 40 x 52 pixels from 6 and 4 on.
    rows, columns = np.nonzero((clicked[10, 1] != clicked[10, 0]).any(axis=2))
    height, width, _ = clicked[10, 1].shape
    scale = min(width / 60, height / 52)
    place = [(width - 60 * scale) / 2 + scale * 1.5 * 8.5, (height - 52 * scale) / 2 + scale * 14.5]
    np.testing.assert_allclose([columns.mean(), rows.mean()], place, atol=1.5)
    page.get_by_label("femur").uncheck()
    page.locator(".viewer-round").fill("2")
    without = pixels(page)
    page.locator(".viewer-round").fill("0")
    assert (pixels(page) == without).all()


def test_a_slice_says_in_which_rounds_it_was_corrected(visit: Callable[..., Visit], corrected_file: Path) -> None:
    page = visit(corrected_file).page
    choose(page, "corrected", 2)
    caption = page.locator(".viewer-of-slice")
    assert caption.inner_text().endswith("prompted, corrected in round 1")
    page.locator(".viewer-range").fill("0")
    page.get_by_role("button", name="Prompted slice").click()
    assert caption.inner_text() == "Slice 7 (0 to 19): corrected in round 1"
    page.locator(".viewer-round").fill("0")
    assert caption.inner_text() == "Slice 7 (0 to 19)"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["box", "corrected"])
def test_it_fits_the_window(visit: Callable[..., Visit], corrected_file: Path, scheme: str, width: int) -> None:
    page = visit(corrected_file, width).page
    choose(page, scheme, {"box": 0, "corrected": 2}[scheme])
    slider = page.locator(".viewer-round").bounding_box()
    assert (slider is None) == (scheme == "box")
    assert slider is None or slider["x"] + slider["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for canvas in page.locator("canvas:visible").all():
        box = canvas.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] > 30


def test_pixels_that_are_not_square(page: Page) -> None:
    # The shown region is 38 pixels of 1.5 mm wide (24 and the shift of 2, a margin of 6 to each side), 52 of 1 mm high.
    opaque = pixels(page)[..., 3] == 255
    # Letters at the edges are opaque too, but fill no row or column.
    width = (opaque.mean(axis=0) > 0.5).sum()
    height = (opaque.mean(axis=1) > 0.5).sum()
    assert width / height == pytest.approx(57 / 52, rel=0.01)


def test_touch(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    ready(page)
    before = state(page, "slice")
    page.get_by_role("button", name="Next slice").tap()
    assert int(state(page, "slice")) == int(before) + 1
    session = context.new_cdp_session(page)
    for which, name in ((".viewer-canvas", "slice"), (".viewer-solid", "turn")):
        canvas = page.locator(which).first
        was = state(page, name)
        # Down the page, which scrolls; then sideways.
        for right, down in ((5, -60), (90, 5)):
            canvas.scroll_into_view_if_needed()
            box = canvas.bounding_box()
            assert box is not None
            x, y = box["x"] + 150, box["y"] + box["height"] / 2
            for kind, share in (("touchStart", 0), ("touchMove", 0.4), ("touchMove", 1), ("touchEnd", None)):
                points = [] if share is None else [{"x": x + share * right, "y": y + share * down}]
                session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            at_rest(page)  # the browser hands movements over frame by frame
            assert (state(page, name) != was) == (right > 5)
    context.close()


def test_nothing_to_show(visit: Callable[..., Visit], tmp_path: Path) -> None:
    page = visit(write_page(tmp_path / "none.html", None)).page
    assert page.locator("#viewer").inner_text() == "No volume has masks that could be shown."


def test_a_hidden_viewer_is_drawn_when_it_is_shown(page: Page) -> None:
    shown = picture(page)
    page.evaluate("document.getElementById('viewer').style.display = 'none'")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    drawn(page)
    page.evaluate("document.getElementById('viewer').style.display = ''")
    drawn(page)
    assert picture(page) == shown


def test_a_prediction_that_runs_on_is_pointed_out(visit: Callable[..., Visit], tmp_path: Path) -> None:
    study = Study(tmp_path, volumes=["a"], overrun=2)
    page = visit(write_page(tmp_path / "page.html", volume_views(study.scores, study.shards, study.design))).page
    ready(page)
    # The tibia's last slice is 13; two more are predicted. The femur's last is 14; 15 and 16 are predicted too.
    texts = {}
    for place in range(int(page.locator(".viewer-range").get_attribute("max") or 0) + 1):
        page.locator(".viewer-range").fill(str(place))
        texts[int(state(page, "slice"))] = page.locator(".viewer-of-slice").inner_text().partition(": ")[2]
    assert texts[13] == "prompted"
    assert texts[14] == "prompted, tibia predicted, not in the reference"
    assert texts[15] == "femur, tibia predicted, not in the reference"
    assert texts[16] == "femur predicted, not in the reference"
    assert texts[17] == ""


def test_print(page: Page) -> None:
    page.emulate_media(media="print")
    assert page.locator(".viewer-canvas").first.is_visible()
    assert page.locator(CHOICE).is_hidden()
    # The choice is hidden, so the title names the configuration.
    assert (
        page.locator(".viewer-title")
        .inner_text()
        .endswith("of 3 scored volumes by combined Dice; experiment e, m, box")
    )


# Zoom, differences, light and the scale bar


def zoom(page: Page) -> float:
    drawn(page)
    return float(page.evaluate("document.querySelector('.viewer-root').dataset.zoom ?? 1"))


def spread(found: np.ndarray) -> float:
    """How many columns the femur's colour takes."""
    return float(np.count_nonzero(blue(found).any(axis=0)))


@pytest.mark.parametrize("way", ["keys", "wheel", "buttons"])
def test_a_slice_is_zoomed_and_moved(page: Page, way: str) -> None:
    before = spread(pixels(page))
    canvas = page.locator(".viewer-canvas").first
    canvas.focus()
    if way == "keys":
        page.keyboard.press("+")
    elif way == "wheel":
        canvas.hover()
        page.keyboard.down("Control")
        page.mouse.wheel(0, -22)
        page.keyboard.up("Control")
    else:
        page.get_by_role("button", name="Larger slice").click()
    drawn(page)
    assert zoom(page) == pytest.approx(1.25, abs=0.01)
    assert spread(pixels(page)) == pytest.approx(1.25 * before, rel=0.05)
    canvas.focus()
    first = int(np.flatnonzero(blue(pixels(page)).any(axis=0))[0])
    page.keyboard.press("Shift+ArrowRight")
    assert np.flatnonzero(blue(pixels(page)).any(axis=0))[0] < first
    page.keyboard.press("0")
    assert zoom(page) == 1
    assert spread(pixels(page)) == before


def test_the_point_under_the_pointer_stays(page: Page) -> None:
    """Zoomed at the femur's left border, that border stays where it is, also after a second step."""
    canvas = page.locator(".viewer-canvas").first
    box = canvas.bounding_box()
    assert box is not None
    found = blue(pixels(page))
    ratio = found.shape[1] / box["width"]
    column = int(np.flatnonzero(found.any(axis=0))[0])
    row = int(np.median(np.flatnonzero(found[:, column + 6])))
    page.mouse.move(box["x"] + column / ratio, box["y"] + row / ratio)
    page.keyboard.down("Control")
    for _ in range(2):
        page.mouse.wheel(0, -30)
        drawn(page)
        there = np.flatnonzero(blue(pixels(page)).any(axis=0))[0]
        assert abs(int(there) - column) <= 3
    page.keyboard.up("Control")


def test_a_zoomed_slice_is_dragged(page: Page) -> None:
    canvas = page.locator(".viewer-canvas").first
    canvas.focus()
    for _ in range(3):
        page.keyboard.press("+")
    slice_before = state(page, "slice")
    box = canvas.bounding_box()
    assert box is not None
    before = picture(page)
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 20)
    page.mouse.up()
    assert state(page, "slice") == slice_before  # no swipe to another slice
    assert picture(page) != before
    page.keyboard.press("0")


def test_differences_are_shown(page: Page) -> None:
    """The worst volume's femur is two pixels off: a strip too much on one side, a strip too little on the other."""
    assert surplus(page) > 200
    page.keyboard.press("f")
    assert not page.get_by_label("Differences", exact=True).is_checked()


def test_where_no_score_counts_there_is_no_difference(visit: Callable[..., Visit], tmp_path: Path) -> None:
    study = Study(tmp_path, volumes=["a", "b"])
    # Everything around the two structures is ignored.
    made = volume_views(study.scores, study.shards, replace(study.design, ignored=[0]))
    page = visit(write_page(tmp_path / "page.html", made)).page
    ready(page)
    assert surplus(page) == 0


def surplus(page: Page) -> int:
    """The number of pixels marked as predicted and not in the reference, of the femur, with no other mark over them."""
    page.locator(".viewer-canvas").first.focus()
    for key in ("r", "c", "f", "2"):
        page.keyboard.press(key)
    assert page.get_by_label("Differences", exact=True).is_checked()
    shown = pixels(page)
    return int(((abs(shown[..., :3] - [213, 94, 0]).max(axis=-1) < 60) & (shown[..., 0] > 150)).sum())


def test_light_changes_the_picture_alone(page: Page) -> None:
    for key in ("r", "p", "c"):
        page.locator(".viewer-canvas").first.focus()
        page.keyboard.press(key)
    before = pixels(page)[..., :3].mean()
    page.get_by_label("Brightness").fill("200")
    assert pixels(page)[..., :3].mean() > before + 5
    page.get_by_label("Brightness").dblclick()
    assert pixels(page)[..., :3].mean() == pytest.approx(before, abs=0.5)


def test_a_bar_shows_the_scale(page: Page) -> None:
    """20 mm at first; zoomed enough, the bar of 10 mm. Its length is that of its millimetres."""
    canvas = page.locator(".viewer-canvas").first
    canvas.focus()
    for key in ("r", "p", "c"):
        page.keyboard.press(key)

    def bar(found: np.ndarray, ratio: float) -> int:
        row = found[-round(14 * ratio), : found.shape[1] // 2]
        return int(np.count_nonzero(abs(row[:, :3] - [232, 237, 242]).max(axis=-1) < 8))

    box = canvas.bounding_box()
    assert box is not None
    found = pixels(page)
    ratio = found.shape[1] / box["width"]
    first = bar(found, ratio)
    assert first > 20
    page.keyboard.press("+")
    assert bar(pixels(page), ratio) == pytest.approx(1.25 * first, abs=2)


# Two configurations side by side


def beside(page: Page, scheme: str) -> None:
    page.locator(".viewer-beside").select_option(label=f"m, {scheme}")
    page.wait_for_function("document.querySelector('.viewer-root').dataset.beside !== ''")
    drawn(page)


def canvases(page: Page) -> list[str]:
    """Pixels of the slices that are shown, the chosen configuration's first."""
    drawn(page)
    return list(
        page.evaluate(
            "[...document.querySelectorAll('.viewer-canvas')].filter(each => each.clientWidth && "
            "!each.classList.contains('viewer-solid')).map(each => each.toDataURL())"
        )
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_two_configurations_side_by_side(visit: Callable[..., Visit], corrected_file: Path, width: int) -> None:
    page = visit(corrected_file, width).page
    choose(page, "box", 0)
    for label in ("Reference", "Prompts"):
        page.get_by_label(label, exact=True).uncheck()
    alone = canvases(page)
    assert len(alone) == 1
    beside(page, "corrected")
    assert page.locator(".viewer-solid").is_hidden()
    # The masks of the last round are those of `box`; those of the round before are others.
    first, second = canvases(page)
    assert first == second == alone[0]
    assert "corrected, round 2 of 2" in page.locator(".viewer-of-beside").inner_text()
    # What is done to one is done to both.
    for canvas, key in ((0, "ArrowUp"), (1, "ArrowUp"), (1, "+"), (0, "Shift+ArrowLeft"), (1, "p")):
        before = canvases(page)[0]
        page.locator(".viewer-canvas:visible").nth(canvas).press(key)
        first, second = canvases(page)
        assert first == second != before
    page.locator(".viewer-canvas:visible").nth(1).press("p")
    page.locator(".viewer-beside").select_option(label="Surfaces in 3D")
    assert page.locator(".viewer-solid").is_visible()
    assert len(canvases(page)) == 1
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_what_stands_beside_has_a_round_of_its_own(visit: Callable[..., Visit], tmp_path: Path) -> None:
    study = Study(tmp_path, volumes=["a", "b"], corrected=True)
    page = visit(write_page(tmp_path / "page.html", volume_views(study.scores, study.shards, study.design))).page
    choose(page, "corrected", 2)
    beside(page, "box")
    page.locator(".viewer-round").fill("0")
    first, second = canvases(page)
    assert first != second
    caption = page.locator(".viewer-of-beside").inner_text()
    assert "round" not in caption
    assert caption.startswith("m, box: Dice ")
    # Another volume, and another configuration: what stands beside stays if it has the volume.
    volume = state(page, "volume")
    page.get_by_role("group", name="Volume of this configuration").get_by_role("button").last.click()
    ready(page)
    page.wait_for_function("document.querySelector('.viewer-root').dataset.beside !== ''")
    assert state(page, "volume") != volume
    assert caption != page.locator(".viewer-of-beside").inner_text()
    page.locator(CHOICE).select_option(label="m, box")
    ready(page)
    assert state(page, "beside") == ""
    assert page.locator(".viewer-beside").locator("option").all_inner_texts()[0] == "Surfaces in 3D"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_a_volume(visit: Callable[..., Visit], tmp_path: Path, width: int) -> None:
    study = Study(tmp_path, volumes=["a", HOSTILE])
    write_table(study.scores, tmp_path / "scores.parquet")
    folder = tmp_path / "report" / "volumes" / "000"
    scores = [tmp_path / "scores.parquet"]
    write_volume_pages(shard=study.shards[0], scores=scores, design=study.design, folder=folder)
    page = visit(folder / f"{HOSTILE}.html", width).page
    ready(page)
    assert state(page, "volume") == page.get_by_role("heading", level=1).inner_text() == HOSTILE
    assert page.locator(f"{CHOICE} option").count() == 2
    assert page.get_by_role("button", name="This volume").count() == 0  # there is no other to choose
    assert page.locator(".viewer-table tbody tr").first.inner_text().split()[:2] == ["Combined", "0.950"]
    assert page.locator("pre").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    # A structure's numbers stand beside its name, in a row as high as any other.
    rows = page.locator(".viewer-table tbody tr")
    assert max(rows.evaluate_all("all => all.map(row => row.offsetHeight)")) < 34
    middles = rows.last.evaluate(
        """row => [row.querySelector(".viewer-swatch"), ...row.querySelectorAll("td")].map((part) => {
          const range = document.createRange();
          range.selectNodeContents(part);
          const box = (part.matches("td") ? range : part).getBoundingClientRect();
          return (box.top + box.bottom) / 2;
        })"""
    )
    assert max(middles) - min(middles) < 3
    assert (
        page.get_by_role("link", name="To the report")
        .evaluate("link => decodeURIComponent(link.href)")
        .endswith(f"/report/index.html#volume={HOSTILE}")
    )
    page.get_by_role("button", name="Three planes").click()
    # Row 18 of 1 mm and column 24 of 1.5 mm, where most of the reference is, from the edges of the frame.
    places = {text.partition("\n")[2] for text in page.locator(".viewer-across").all_inner_texts()}
    assert places == {"18.5 mm from S", "36.8 mm from A"}
    assert barriers(page, "dark") == []

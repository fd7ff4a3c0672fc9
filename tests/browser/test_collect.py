"""The clicks page as a person uses it: mouse, touch and keyboard, three volumes, a reload, and the table in the end."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from volprompt.clicks.collection import collect
from volprompt.clicks.server import CollectServer, FrameStore
from volprompt.palette import structure_colours

# (slice, y, x) of the frames, and millimetres along these axes: pixels are not square.
SHAPE, SPACING = (9, 40, 60), (3.0, 1.5, 0.9)
NAMES = ("knee_a", "knee_b", "knee_c")
# Centres (x, y) of the bright squares, 3 x 3 pixels, on the middle slice of each volume.
SPOTS = {
    "knee_a": {"femur": (12, 8), "tibia": (44, 30)},
    "knee_b": {"femur": (20, 10), "tibia": (31, 33)},
    "knee_c": {"femur": (50, 20), "tibia": (7, 20)},
}
CONFIG: dict[str, Any] = {
    "results": "results",
    "volumes": "volumes.tsv",
    "clicks": "clicks.csv",
    "frames": {"intensity_percentiles": [0, 100]},
    "structures": {"femur": {"labels": [1]}, "tibia": {"labels": [2]}},
    "schemes": {"video": {"predictor": "video", "slice": "middle", "point": "click", "negatives": "others"}},
    "models": {"m": {"family": "sam2", "architecture": "configs/sam2/sam2_hiera_t.yaml", "checkpoint": "none.pt"}},
    "experiments": {"one": {"models": ["m"], "schemes": ["video"]}},
}


def write_volume(name: str) -> None:
    """A dark image with the bright squares on slice 4 alone, stored with axes R, A, S."""
    frames = np.zeros(SHAPE, np.int16)
    frames[:, :, :] = np.linspace(0, 40, SHAPE[2]).astype(np.int16)
    for x, y in SPOTS[name].values():
        frames[4, y - 1 : y + 2, x - 1 : x + 2] = 1000
    stored = frames[:, ::-1, ::-1].transpose(0, 2, 1)  # frame[y, x] = volume[slice, ::-1, ::-1].T
    affine = np.diag([SPACING[0], SPACING[2], SPACING[1], 1.0])
    nib.save(nib.Nifti1Image(stored, affine), f"{name}.nii.gz")


@dataclass
class Session:
    """A running collector in a folder of its own."""

    server: CollectServer
    folder: Path

    def table(self) -> dict[tuple[str, str, int], tuple[float, float]]:
        text = (self.folder / "clicks.csv").read_text()
        rows = list(csv.DictReader(io.StringIO(text)))
        found = {(r["volume"], r["structure"], int(r["slice"])): (float(r["x"]), float(r["y"])) for r in rows}
        assert len(found) == len(rows)
        return found


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Session]]:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        write_volume(name)
    Path("volumes.tsv").write_text("volume\timage\n" + "".join(f"{name}\t{name}.nii.gz\n" for name in NAMES))
    running: list[CollectServer] = []

    def started(config: dict[str, Any] = CONFIG, **options: Any) -> Session:
        collection, settings = collect(config, **options)
        server = CollectServer(collection, FrameStore(settings))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        return Session(server, tmp_path)

    yield started
    for server in running:
        server.shutdown()
        server.server_close()
        server.frames.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a session's page; no warning on the console, and no request to anywhere else, the token in each."""
    opened: list[tuple[Page, Session, list[str], list[str]]] = []

    def at(session: Session, width: int = 1280, height: int = 900, touch: bool = False) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, has_touch=touch)
        page = context.new_page()
        faults: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: faults.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(session.server.address)
        opened.append((page, session, faults, requests))
        return page

    yield at
    for page, session, faults, requests in opened:
        page.context.close()
        assert not faults
        away = [url for url in requests if not url.startswith((session.server.address, "data:", "blob:"))]
        assert not away


def ready(page: Page, place: int, slice_: int = 4) -> None:
    """Wait until a page's slice is drawn."""
    expect(page.locator("#frame")).to_have_attribute("data-slice", f"{place}/{slice_}")


def spots_on_screen(page: Page) -> list[tuple[float, float]]:
    """Where the bright squares appear in the window, left to right, found on a picture of it."""
    box = page.locator("#frame").bounding_box()
    assert box is not None
    picture = np.asarray(Image.open(io.BytesIO(page.locator("#frame").screenshot())).convert("L")).astype(float)
    bright = picture > 200
    columns = np.flatnonzero(bright.any(axis=0))
    parts = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    found = []
    for part in parts:
        rows = np.flatnonzero(bright[:, part].any(axis=1))
        # a screen pixel's middle lies half a pixel behind its index
        found.append((box["x"] + part.mean() + 0.5, box["y"] + rows.mean() + 0.5))
    return found


def click_on(page: Page, volume: str, structure: str) -> None:
    """Click in the middle of a structure's bright square, as seen on the screen."""
    order = sorted(SPOTS[volume], key=lambda name: SPOTS[volume][name])
    x, y = spots_on_screen(page)[order.index(structure)]
    page.mouse.click(x, y)


def assert_close(session: Session, expected: dict[tuple[str, str, int], tuple[float, float]]) -> None:
    found = session.table()
    assert set(found) == set(expected)
    for key, point in expected.items():
        assert found[key] == pytest.approx(point, abs=0.1), key


def test_three_volumes_with_mouse_and_keyboard(start: Callable[..., Session], visit: Callable[..., Page]) -> None:
    session = start()
    page = visit(session)
    # knee_a by mouse; the first structure is chosen, then the one that is still open
    ready(page, 0)
    places = spots_on_screen(page)
    page.mouse.click(*places[0])
    page.mouse.click(*places[1])
    expect(page.locator("#progress")).to_contain_text("0 of 3")
    page.keyboard.press("Enter")
    ready(page, 1)
    expect(page.locator("#progress")).to_contain_text("1 of 3, about")
    assert_close(session, {("knee_a", name, 4): SPOTS["knee_a"][name] for name in ("femur", "tibia")})
    # knee_b: tibia first by its key, a wrong click taken back, a neighbour looked at, then the buttons
    places = spots_on_screen(page)
    page.keyboard.press("2")
    page.mouse.click(places[1][0], places[1][1])
    page.mouse.click(places[0][0] + 60, places[0][1])
    page.keyboard.press("Backspace")
    page.keyboard.press("ArrowRight")
    ready(page, 1, 5)
    page.mouse.click(places[0][0], places[0][1])
    expect(page.locator("#message")).to_contain_text("Only slice 4 is prompted")
    page.keyboard.press("Home")
    ready(page, 1)
    page.mouse.click(places[0][0], places[0][1])
    page.get_by_role("button", name="Next").click()
    ready(page, 2)
    # knee_c by keyboard alone: the crosshair starts in the middle, at (30, 20)
    page.keyboard.press("Shift+ArrowLeft")
    expect(page.locator("#message")).to_contain_text("Crosshair at 30.0, 20.0")
    for key in ["Shift+ArrowRight", "Shift+ArrowRight"]:
        page.keyboard.press(key)
    page.keyboard.press(" ")
    for key in ["Shift+ArrowLeft"] * 4 + ["ArrowLeft"] * 3:
        page.keyboard.press(key)
    expect(page.locator("#message")).to_contain_text("Crosshair at 7.0, 20.0")
    page.keyboard.press(" ")
    page.keyboard.press("Enter")
    expect(page.locator("#end")).to_contain_text("All 3 pages are done")
    assert_close(session, {(name, part, 4): spot for name in NAMES for part, spot in SPOTS[name].items()})


def test_reload_and_a_new_session_go_on_where_it_stopped(
    start: Callable[..., Session], visit: Callable[..., Page]
) -> None:
    session = start()
    page = visit(session)
    ready(page, 0)
    page.keyboard.press("s")
    ready(page, 1)
    expect(page.locator("#progress")).to_contain_text("0 of 3, 1 skipped")
    for place in spots_on_screen(page):
        page.mouse.click(*place)
    page.keyboard.press("Enter")
    ready(page, 2)
    page.reload()
    ready(page, 2)  # behind the last page that has clicks; the skipped one comes at the end
    expect(page.locator("#volume")).to_have_text("knee_c")
    again = visit(start())
    ready(again, 2)
    for place in reversed(spots_on_screen(again)):
        again.mouse.click(*place)
    again.keyboard.press("Enter")
    ready(again, 0)
    again.keyboard.press("PageDown")
    ready(again, 1)
    expect(again.locator("#structures button").first).to_contain_text("20.0, 10.0")
    again.keyboard.press("PageUp")
    ready(again, 0)
    for place in spots_on_screen(again):
        again.mouse.click(*place)
    again.keyboard.press("Enter")
    expect(again.locator("#end")).to_contain_text("All 3 pages are done")
    assert_close(session, {(name, part, 4): spot for name in NAMES for part, spot in SPOTS[name].items()})


def test_zoomed_and_moved_a_click_means_the_same_pixel(
    start: Callable[..., Session], visit: Callable[..., Page]
) -> None:
    session = start()
    page = visit(session)
    ready(page, 0)
    x, y = spots_on_screen(page)[0]
    page.mouse.move(x, y)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    page.wait_for_timeout(200)
    page.mouse.move(x + 100, y + 100)
    page.mouse.down()
    page.mouse.move(x + 190, y + 140, steps=4)
    page.mouse.up()
    page.wait_for_timeout(200)
    moved = spots_on_screen(page)[0]
    assert moved == pytest.approx((x + 90, y + 40), abs=2)  # the wheel zooms around the pointer; a drag sets no click
    page.mouse.click(*moved)
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_contain_text("Without a click: tibia")
    page.keyboard.press("Enter")
    ready(page, 1)
    assert_close(session, {("knee_a", "femur", 4): SPOTS["knee_a"]["femur"]})


def test_a_free_page_takes_the_slice_of_the_click(start: Callable[..., Session], visit: Callable[..., Page]) -> None:
    free = {"video": {"predictor": "video", "slice": "nearest", "point": "click"}}
    session = start({**CONFIG, "schemes": free})
    page = visit(session)
    ready(page, 0)
    x, y = spots_on_screen(page)[0]
    page.mouse.click(x, y)
    page.mouse.wheel(0, 100)
    ready(page, 0, 5)
    page.keyboard.press("2")
    page.mouse.click(x, y)
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_contain_text("Without a click on one slice")
    page.keyboard.press("1")
    page.mouse.click(x, y)
    expect(page.locator("#message")).to_contain_text("femur has a point on slice 4. Move it here, or add one?")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#structures small").first).to_contain_text("; also slice 4")
    page.keyboard.press("Enter")
    ready(page, 1)
    assert set(session.table()) == {("knee_a", "femur", 4), ("knee_a", "femur", 5), ("knee_a", "tibia", 5)}


def test_a_second_point_is_moved_added_or_left(start: Callable[..., Session], visit: Callable[..., Page]) -> None:
    free = {"video": {"predictor": "video", "slice": "nearest", "point": "click"}}
    page = visit(start({**CONFIG, "schemes": free}))
    ready(page, 0)
    x, y = spots_on_screen(page)[0]
    said = page.locator("#structures small").first
    page.mouse.click(x, y)
    page.keyboard.press(".")
    ready(page, 0, 5)
    for key, expected in (("Escape", "slice 4"), ("a", "; also slice 4"), ("Backspace", "slice 4"), ("m", "12.0, 8.0")):
        if key != "Backspace":
            page.keyboard.press("1")
            page.mouse.click(x, y)
            expect(page.locator("#question")).to_be_visible()
        page.keyboard.press(key)
        expect(page.locator("#question")).to_be_hidden()
        expect(said).to_contain_text(expected)
    assert "also" not in said.inner_text()
    # On the same slice a second click is a correction, which Backspace takes back.
    page.keyboard.press("1")
    page.mouse.click(x + 40, y)
    expect(page.locator("#question")).to_be_hidden()
    # Another slice, or another structure, withdraws the question.
    for key in (",", "2"):
        page.keyboard.press("1")
        page.keyboard.press(",")
        page.mouse.click(x, y)
        expect(page.locator("#question")).to_be_visible()
        page.keyboard.press(key)
        expect(page.locator("#question")).to_be_hidden()


def test_no_point_is_lost_while_a_question_waits(start: Callable[..., Session], visit: Callable[..., Page]) -> None:
    free = {"video": {"predictor": "video", "slice": "nearest", "point": "click"}}
    session = start({**CONFIG, "schemes": free})
    page = visit(session)
    ready(page, 0)
    spots = spots_on_screen(page)
    for spot in spots:
        page.mouse.click(*spot)
    question, message = page.locator("#question"), page.locator("#message")

    def ask() -> None:
        page.keyboard.press("1")
        page.mouse.click(*spots[0])
        expect(question).to_be_visible()

    page.keyboard.press(".")
    ready(page, 0, 5)
    for key in ("Enter", "PageDown"):
        ask()
        page.keyboard.press(key)
        expect(message).to_contain_text("femur waits")
        page.keyboard.press("Escape")
        expect(question).to_be_hidden()
    ask()
    page.get_by_role("button", name="Finish").click()
    expect(message).to_contain_text("femur waits")
    assert page.locator("#end").is_hidden()
    # The crosshair, and taking back, withdraw the question.
    for key in ("Backspace", "Shift+ArrowLeft"):
        ask()
        page.keyboard.press(key)
        expect(question).to_be_hidden()
        assert page.locator("#structures small").first.inner_text() == "slice 4"
    page.keyboard.press("Escape")
    ask()
    page.keyboard.press("A")
    page.keyboard.press("2")
    page.mouse.click(*spots[1])
    page.keyboard.press("A")
    page.keyboard.press("Enter")
    ready(page, 1)
    assert {(part, slice_) for _, part, slice_ in session.table()} == {
        (part, slice_) for part in ("femur", "tibia") for slice_ in (4, 5)
    }


def test_keys_work_after_a_slider(start: Callable[..., Session], visit: Callable[..., Page]) -> None:
    page = visit(start())
    ready(page, 0)
    page.get_by_label("Contrast").click()
    page.keyboard.press("2")
    assert page.locator("#structures button").nth(1).get_attribute("aria-pressed") == "true"
    assert page.locator("#frame").evaluate("frame => document.activeElement === frame")


def test_pages_are_listed_and_can_be_left(start: Callable[..., Session], visit: Callable[..., Page]) -> None:
    session = start()
    page = visit(session)
    ready(page, 0)
    page.get_by_text("All pages").click()
    entries = page.locator("#pages button")
    assert entries.all_inner_texts() == list(NAMES)
    assert entries.nth(0).get_attribute("aria-current") == "page"
    for place in spots_on_screen(page):
        page.mouse.click(*place)
    entries.nth(2).click()
    ready(page, 2)
    assert [text.split() for text in entries.all_inner_texts()] == [["knee_a", "done"], ["knee_b"], ["knee_c"]]
    assert entries.nth(2).get_attribute("aria-current") == "page"
    assert_close(session, {("knee_a", name, 4): SPOTS["knee_a"][name] for name in ("femur", "tibia")})
    page.mouse.click(*spots_on_screen(page)[0])
    page.get_by_role("button", name="Finish").click()
    expect(page.locator("#end")).to_contain_text("The end; 2 of 3 pages are not complete")
    assert len(session.table()) == 3


def test_brightness_contrast_and_directions(start: Callable[..., Session], visit: Callable[..., Page]) -> None:
    page = visit(start())
    ready(page, 0)
    # Images are stored with axes R, A, S; sagittal frames have superior at the top and anterior at the left.
    assert page.locator("#frame").get_attribute("data-directions") == "SIAP"

    def brightness() -> float:
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        picture = Image.open(io.BytesIO(page.locator("#frame").screenshot())).convert("L")
        return float(np.asarray(picture).mean())

    before = brightness()
    page.get_by_label("Brightness").fill("2")
    brighter = brightness()
    assert brighter > 1.3 * before
    page.get_by_label("Contrast").fill("0.5")
    assert brightness() != brighter
    # The keys of a slider are its own.
    page.get_by_label("Brightness").press("ArrowRight")
    assert page.locator("#frame").get_attribute("data-slice") == "0/4"


def test_touch_on_a_phone(start: Callable[..., Session], visit: Callable[..., Page]) -> None:
    session = start()
    page = visit(session, width=390, height=844, touch=True)
    ready(page, 0)
    for place in spots_on_screen(page):
        page.touchscreen.tap(*place)
    page.get_by_role("button", name="Next").tap()
    ready(page, 1)
    found = session.table()
    for name, spot in SPOTS["knee_a"].items():
        assert found["knee_a", name, 4] == pytest.approx(spot, abs=0.15)  # a screen pixel is 0.15 pixels of the frame
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    for button in page.locator("aside button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44


def test_two_fingers_zoom_and_set_no_click(start: Callable[..., Session], visit: Callable[..., Page]) -> None:
    page = visit(start(), width=390, height=844, touch=True)
    ready(page, 0)
    (left, top), (right, _) = spots_on_screen(page)
    fingers = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        given = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

    touch("touchStart", (left, top))
    touch("touchStart", (left, top), (left + 50, top))
    for reach in (60, 70, 80, 90, 100):
        touch("touchMove", (left, top), (left + reach, top))
    touch("touchEnd")
    page.wait_for_timeout(200)
    zoomed = spots_on_screen(page)
    assert zoomed[0] == pytest.approx((left, top), abs=4)  # around the finger that rests
    assert len(zoomed) == 1 or zoomed[1][0] - zoomed[0][0] == pytest.approx(2 * (right - left), abs=4)
    expect(page.locator("#structures button").first).to_contain_text("\u2013")


def test_a_structure_has_the_reports_colour_whatever_else_is_asked_for(
    start: Callable[..., Session], visit: Callable[..., Page]
) -> None:
    page = visit(start(structures=["tibia"]))
    ready(page, 0)
    button = page.locator("#structures button")
    expect(button).to_contain_text("tibia")
    colour = button.evaluate("button => button.style.getPropertyValue('--own')")
    assert colour == structure_colours(["femur", "tibia"])["tibia"]


def test_two_pages_on_one_volume_lose_nothing(start: Callable[..., Session], visit: Callable[..., Page]) -> None:
    session = start()
    first, second = visit(session), visit(start())  # two servers on one table
    for page in (first, second):
        ready(page, 0)
    click_on(first, "knee_a", "femur")
    first.keyboard.press("Enter")
    first.keyboard.press("Enter")
    ready(first, 1)
    # the second page has not seen that: it adds the tibia and leaves the femur alone
    second.keyboard.press("2")
    click_on(second, "knee_a", "tibia")
    second.keyboard.press("Enter")
    second.keyboard.press("Enter")
    ready(second, 1)
    both = {("knee_a", name, 4): SPOTS["knee_a"][name] for name in ("femur", "tibia")}
    assert_close(session, both)
    # both click on the same structure of the next volume; the later one is asked
    click_on(first, "knee_b", "femur")
    first.keyboard.press("Enter")
    first.keyboard.press("Enter")
    ready(first, 2)
    x, y = spots_on_screen(second)[0]
    second.mouse.click(x + 60, y)
    second.keyboard.press("Enter")
    second.keyboard.press("Enter")
    expect(second.locator("#message")).to_contain_text("femur on slice 4 is at 20.0, 10.0")
    assert_close(session, both | {("knee_b", "femur", 4): SPOTS["knee_b"]["femur"]})
    second.keyboard.press("Enter")
    ready(second, 2)
    x, y = session.table()["knee_b", "femur", 4]
    assert abs(x - SPOTS["knee_b"]["femur"][0]) > 1

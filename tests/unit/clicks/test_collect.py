"""The clicks page's server: who gets an answer, what is asked for, what is saved, where a session goes on."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tests.unit.command_line import volprompt

from volprompt.clicks import handler
from volprompt.clicks.changes import checked_clicks, merge
from volprompt.clicks.collection import Collection, collect, first_page
from volprompt.clicks.pages import CollectError, Page, Source, frames_of, pages_of, source_of
from volprompt.clicks.server import CollectServer, FrameStore
from volprompt.clicks.table import ClickTable
from volprompt.palette import structure_colours
from volprompt.settings.reading import ConfigurationError, read_settings
from volprompt.study.sheets import Click, SheetRow
from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import read_frames

VIDEO = {"predictor": "video", "point": ["click", "centroid"]}
CONFIG: dict[str, Any] = {
    "results": "results",
    "volumes": "volumes.tsv",
    "clicks": "clicks.csv",
    "shards": 1,
    "structures": {"femur": {"labels": [1]}, "tibia": {"labels": [3]}, "patella": {"labels": [], "scored": False}},
    "schemes": {"video": VIDEO, "three": {**VIDEO, "negatives": "others"}},
    "models": {"m": {"family": "sam2", "architecture": "configs/sam2/sam2_hiera_t.yaml", "checkpoint": "none.pt"}},
    "experiments": {"one": {"models": ["m"], "schemes": ["video"]}},
}
HEAD = "volume,structure,slice,x,y\n"


def with_schemes(**schemes: Any) -> dict[str, Any]:
    return {**CONFIG, "schemes": schemes, "experiments": {"one": {"models": ["m"], "schemes": list(schemes)}}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of three volumes with frames (slice, y, x) of 5 x 4 x 6 pixels, in a working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for name in "abc":
        voxels = rng.integers(0, 1000, (5, 6, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([3.0, 1.0, 2.0, 1.0])), f"{name}.nii")
    Path("volumes.tsv").write_text("volume\timage\na\ta.nii\nb\tb.nii\nc\tc.nii\n")
    return tmp_path


# ---- what is asked for


def source(depth: int = 10, row: SheetRow | None = None) -> Source:
    return Source(row or SheetRow("a", "a.nii"), (depth, 4, 6), (1.0, 1.0), "IP")


def asked(config: dict[str, Any], depth: int = 10, **options: Any) -> list[tuple[int, tuple[str, ...], bool]]:
    pages = pages_of(source(depth), read_settings(config), **options)
    return [(page.slice, page.structures, page.free) for page in pages]


def test_objects_are_asked_for_and_with_negatives_all_structures() -> None:
    assert asked(CONFIG) == [(5, ("femur", "tibia"), False)]  # the scheme `three` is in no experiment
    assert asked(with_schemes(three={**VIDEO, "negatives": "others"})) == [(5, ("femur", "tibia", "patella"), False)]
    assert asked(with_schemes(own={**VIDEO, "structures": ["patella", "femur", "tibia"]}))[0][1] == (
        "femur",
        "tibia",
        "patella",
    )


def test_a_page_for_each_prompted_slice_and_schemes_without_clicks_ask_for_nothing() -> None:
    schemes = with_schemes(
        first={**VIDEO, "slice": {"index": 2}},
        second={**VIDEO, "slice": {"fraction": 1.0}, "negatives": "others"},
        third={**VIDEO, "slice": {"index": 9}},
        centroid={"predictor": "video", "point": "centroid", "negatives": "others"},
    )
    assert asked(schemes) == [(2, ("femur", "tibia"), False), (9, ("femur", "tibia", "patella"), False)]


def test_schemes_that_take_any_slice_give_a_free_page_or_join_a_prompted_one() -> None:
    near = {**VIDEO, "slice": "nearest", "negatives": "others"}
    assert asked(with_schemes(near=near)) == [(5, ("femur", "tibia", "patella"), True)]
    assert asked(with_schemes(image={"predictor": "image", "point": "click"})) == [(5, ("femur", "tibia"), True)]
    both = with_schemes(near=near, video={**VIDEO, "slice": {"index": 3}})
    assert asked(both) == [(3, ("femur", "tibia", "patella"), False)]


def test_structures_and_slice_can_be_chosen() -> None:
    assert asked(CONFIG, structures=["patella"]) == [(5, ("patella",), False)]
    assert asked(CONFIG, slice_="7") == [(7, ("femur", "tibia"), False)]
    assert asked(CONFIG, slice_="any", structures=["tibia"]) == [(5, ("tibia",), True)]
    no_clicks = with_schemes(box={"predictor": "video", "box": True})
    assert asked(no_clicks, structures=["tibia"]) == [(5, ("tibia",), True)]
    with pytest.raises(CollectError, match=r"slice 10 is asked for; it has 10 \(0 to 9\)"):
        asked(CONFIG, slice_="10")


def test_clicks_of_a_volumes_own_table_are_not_asked_for_again() -> None:
    given = [Click("a", "femur", 5, 1, 1), Click("a", "tibia", 4, 1, 1)]
    assert asked(CONFIG, volume_clicks=given) == [(5, ("tibia",), False)]


def test_faults_are_listed_together() -> None:
    Path("volumes.tsv").write_text("volume\timage\na\tgone.nii\n")
    with pytest.raises(ConfigurationError) as error:
        collect({**CONFIG, "shard": 2}, structures=["femr"], slice_="first")
    for part in ("shard: unknown key", "gone.nii", "did you mean 'femur'", "--slice: is 'first'"):
        assert part in str(error.value)
    assert "none.pt" not in str(error.value)  # clicks need no checkpoint


def test_a_volume_that_cannot_be_read_is_left_out_with_its_reason() -> None:
    Path("b.nii").write_bytes(b"nothing")
    found, _ = collect(CONFIG)
    assert [page.volume for page in found.pages] == ["a", "c"]
    assert "b.nii" in found.unusable["b"]


def test_where_no_scheme_takes_clicks_or_no_volume_is_left() -> None:
    with pytest.raises(CollectError, match="name structures with --structures"):
        collect(with_schemes(box={"predictor": "video", "box": True}))
    for name in "abc":
        Path(f"{name}.nii").write_bytes(b"nothing")
    with pytest.raises(CollectError, match="nothing to click on"):
        collect(CONFIG)


def test_without_a_key_the_table_lies_beside_the_sheet_and_the_user_is_told() -> None:
    found, _ = collect({key: value for key, value in CONFIG.items() if key != "clicks"})
    assert str(found.path) == "volumes.clicks.csv"
    assert "add `clicks: volumes.clicks.csv`" in found.note
    assert collect(CONFIG)[0].note == ""


# ---- frames


def convert() -> Path:
    folder = Path("results/volumes/000")
    rows = [{"volume": n, "image": f"{n}.nii", "reference": ""} for n in "ab"]
    convert_shard(rows, {"axis": "sagittal", "intensity_percentiles": (0.5, 99.5), "coding": "lossless"}, {}, folder)
    return folder


def test_frames_are_the_converted_ones_or_made_the_same_way() -> None:
    settings = read_settings(CONFIG)
    plain = source_of(SheetRow("a", "a.nii"), settings)
    assert (plain.shape, plain.pixel, plain.converted) == ((5, 4, 6), (2.0, 1.0), None)
    direct = frames_of(plain, settings)
    folder = convert()
    ready = source_of(SheetRow("a", "a.nii"), settings)
    assert (ready.shape, ready.pixel, ready.converted) == ((5, 4, 6), (2.0, 1.0), folder)
    np.testing.assert_array_equal(frames_of(ready, settings), direct)
    np.testing.assert_array_equal(read_frames(folder, "a"), direct)


def test_converted_frames_of_an_older_image_or_another_axis_are_not_taken() -> None:
    folder = convert()
    axial = read_settings({**CONFIG, "frames": {"axis": "axial"}})
    assert source_of(SheetRow("a", "a.nii"), axial).converted is None
    later = (folder / "b_frames.nii").stat().st_mtime + 5
    os.utime("b.nii", (later, later))
    assert source_of(SheetRow("b", "b.nii"), read_settings(CONFIG)).converted is None


# ---- clicks


def page(free: bool = False) -> Page:
    return Page(source(5), 2, ("femur", "tibia"), free)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"slice": 5}, "outside"),
        ({"slice": 2.0}, "outside"),
        ({"slice": True}, "outside"),
        ({"x": 5.6}, "outside"),
        ({"y": -0.6}, "outside"),
        ({"x": float("nan")}, "outside"),
        ({"x": None}, "outside"),
        ({"x": 10**400}, "outside"),
        ({"slice": 10**400}, "outside"),
        ({"structure": "patella"}, "not asked for"),
        ({"structure": ["femur"]}, "not asked for"),
        ({"slice": 3}, "schemes prompt slice 2"),
    ],
)
def test_clicks_that_are_not_the_pages_are_refused(wrong: dict[str, Any], message: str) -> None:
    good = {"structure": "femur", "slice": 2, "x": 5.5, "y": -0.5}  # on the edge of the outermost pixels
    assert checked_clicks(page(), [good]) == {("femur", 2): (5.5, -0.5)}
    with pytest.raises(CollectError, match=message):
        checked_clicks(page(), [good, {**good, **wrong}])
    with pytest.raises(CollectError, match="expected a list"):
        checked_clicks(page(), "femur")


def test_a_page_is_done_with_all_structures_on_one_slice() -> None:
    assert page().done([("femur", 2), ("tibia", 2)])
    assert not page().done([("femur", 2), ("tibia", 3)])
    assert not page().done([("femur", 3), ("tibia", 3)])
    assert page(free=True).done([("femur", 3), ("tibia", 3)])
    assert not page(free=True).done([("femur", 2), ("tibia", 3)])


@pytest.mark.parametrize(
    ("done", "start"),
    [([], 0), ([0, 0], 0), ([1, 0, 0], 1), ([0, 1, 0], 2), ([0, 1, 1], 0), ([0, 1, 0, 1], 0), ([1, 1], 2)],
)
def test_a_session_goes_on_behind_the_last_page_that_is_done(done: list[int], start: int) -> None:
    assert first_page([bool(one) for one in done]) == start


def click(structure: str, x: float, y: float, slice_: int = 2) -> dict[str, Any]:
    return {"structure": structure, "slice": slice_, "x": x, "y": y}


def sent(clicks: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What a page sends that knew these clicks."""
    return {"clicks": list(clicks), "known": list(known)}


def save(found: Collection, place: int, clicks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Save a page that knew what the table holds."""
    return found.save(found.pages[place], sent(clicks, found.clicks(found.pages[place])))


def test_saving_changes_a_pages_own_rows_and_no_others() -> None:
    Path("clicks.csv").write_text(HEAD + "a,femur,2,1,1\na,femur,3,1.0,1\nz,what,9,8,7\nb,femur,2,1,1\n")
    found, _ = collect(CONFIG)
    assert save(found, 0, [click("tibia", 2.5, 3.0004)])["done"] is False
    assert Path("clicks.csv").read_text() == HEAD + "a,femur,3,1.0,1\nz,what,9,8,7\nb,femur,2,1,1\na,tibia,2,2.5,3\n"
    with Path("clicks.csv").open("a") as file:
        file.write("c,patella,2,1,1\n")  # somebody else's, meanwhile
    assert save(found, 1, [click("femur", 1, 1), click("tibia", 0, 0)])["done"] is True
    rows = Path("clicks.csv").read_text().splitlines()
    assert rows[-2:] == ["c,patella,2,1,1", "b,tibia,2,0,0"]
    assert found.clicks(found.pages[1]) == [click("femur", 1.0, 1.0), click("tibia", 0.0, 0.0)]


def test_a_write_that_fails_leaves_the_table_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("clicks.csv").write_text(HEAD + "a,femur,2,1,1\n")
    found, _ = collect(CONFIG)

    def full(self: Path, text: str, **_: object) -> int:
        with open(self, "w") as file:
            file.write(text[:10])
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            save(found, 0, [click("tibia", 1, 1)])
    assert Path("clicks.csv").read_text() == HEAD + "a,femur,2,1,1\n"
    assert not list(Path().glob(".part-*"))


FEMUR = ("femur", 2)
A, B, C = (1.0, 1.0), (2.0, 2.0), (3.0, 3.0)


@pytest.mark.parametrize(
    ("known", "new", "held", "outcome"),
    [
        (A, A, A, "nothing"),
        (A, B, A, B),
        (A, None, A, None),
        (None, A, None, A),
        (A, A, B, "nothing"),  # moved by somebody else, and left alone here
        (None, None, A, "nothing"),  # added by somebody else: deleted only by a page that knew it
        (A, A, None, "nothing"),
        (A, B, B, "nothing"),  # both alike, or saved before and sent again
        (A, None, None, "nothing"),
        (A, B, C, "conflict"),
        (A, None, B, "conflict"),
        (A, B, None, "conflict"),
        (None, A, B, "conflict"),
    ],
)
def test_a_page_changes_only_what_it_knew(known: Any, new: Any, held: Any, outcome: Any) -> None:
    maps = ({} if point is None else {FEMUR: point} for point in (known, new, held))
    changes, conflicts = merge(*maps)
    assert conflicts == ([FEMUR] if outcome == "conflict" else [])
    assert changes == ({} if outcome in ("nothing", "conflict") else {FEMUR: outcome})


def test_two_pages_on_one_volume_lose_nothing() -> None:
    found, _ = collect(CONFIG)
    one = found.pages[0]
    assert found.save(one, sent([click("femur", 1, 1)]))["conflicts"] == []
    answer = found.save(one, sent([click("tibia", 2, 2)]))  # a second page, opened before the first one had saved
    assert answer["clicks"] == [click("femur", 1, 1), click("tibia", 2, 2)]
    before = Path("clicks.csv").read_text()
    answer = found.save(one, sent([click("femur", 3, 3), click("tibia", 1, 1)], [click("tibia", 2, 2)]))
    assert answer["conflicts"] == [{"structure": "femur", "slice": 2}]
    assert Path("clicks.csv").read_text() == before  # all or nothing
    again = found.save(one, sent([click("femur", 3, 3), click("tibia", 1, 1)], answer["clicks"]))
    assert again["clicks"] == [click("femur", 3, 3), click("tibia", 1, 1)]


def test_rows_are_found_by_their_numbers_and_keep_their_text() -> None:
    Path("clicks.csv").write_text(HEAD + "a,femur,02,1.50,1.00\na,tibia,2.0,2.00049,2\n")
    found, _ = collect(CONFIG)
    known = found.clicks(found.pages[0])
    assert known == [click("femur", 1.5, 1), click("tibia", 2.00049, 2)]
    save(found, 0, [click("femur", 3, 1), click("tibia", 2.0, 2)])  # 2.00049 to a thousandth
    assert Path("clicks.csv").read_text() == HEAD + "a,femur,2,3,1\na,tibia,2.0,2.00049,2\n"
    save(found, 0, [])
    assert Path("clicks.csv").read_text() == HEAD


CLICK_AWAY = """
import sys
from volprompt.clicks.table import changing
for index in range(20):
    with changing("clicks.csv") as table:
        table.put(sys.argv[1], "femur", index, 1, 1)
        table.write()
"""


def test_processes_that_write_one_table_at_once_lose_no_row() -> None:
    Path("link.csv").symlink_to("clicks.csv")
    through_link = CLICK_AWAY.replace("clicks.csv", "link.csv")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen([sys.executable, "-c", code, name], env=environment)
        for code, name in ((CLICK_AWAY, "a"), (CLICK_AWAY, "b"), (through_link, "c"))
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(ClickTable("clicks.csv").rows) == 60


# ---- the server

Send = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def server() -> Iterator[CollectServer]:
    found, settings = collect(CONFIG)
    running = CollectServer(found, FrameStore(settings))
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()
    running.frames.close()


@pytest.fixture
def send(server: CollectServer) -> Send:
    """Sends a request; `path` stands behind the token unless it starts with a slash."""

    def sent(
        path: str = "", method: str = "GET", body: bytes | None = None, host: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        address = path if path.startswith("/") else f"/{server.token}/{path}"
        connection.putrequest(method, address, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
        given = {} if body is None else {"Content-Type": "application/json", "Content-Length": str(len(body))}
        given.update({name.replace("_", "-"): value for name, value in headers.items()})
        for name, value in given.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    return sent


def test_only_the_right_token_gets_an_answer(server: CollectServer, send: Send) -> None:
    assert send()[0] == 200
    token = server.token
    wrong = "x" * len(token)
    for path in (
        "/",
        "/study",
        "/collect.js",
        f"/{token}",
        f"/{token[:-1]}/",
        f"/{wrong}/study",
        f"/?{token}/",
        "/%c3%a4/",
    ):
        status, _, text = send(path)
        assert status == 403, path
        assert token.encode() not in text
    assert send(f"/{wrong}/page/0/clicks", "POST", b"[]")[0] == 403
    assert not Path("clicks.csv").exists()
    assert len(token) >= 32
    assert server.server_address[0] == "127.0.0.1"


def test_another_host_or_origin_is_refused(server: CollectServer, send: Send) -> None:
    port = server.server_port
    assert send(host=f"localhost:{port}")[0] == 200
    for host in (f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", f"127.0.0.1:{port}.evil.example"):
        assert send(host=host)[0] == 403
    body = json.dumps(sent([click("femur", 1, 1)])).encode()
    assert send("page/0/clicks", "POST", body, Origin="http://evil.example")[0] == 403
    assert send("page/0/clicks", "POST", body, Origin="null")[0] == 403
    assert not Path("clicks.csv").exists()
    assert send("page/0/clicks", "POST", body, Origin=f"http://127.0.0.1:{port}")[0] == 200


def test_only_json_of_a_bearable_size_is_taken(send: Send) -> None:
    assert send("page/0/clicks", "POST", b"[]", Content_Type="text/plain")[0] == 415
    assert send("page/0/clicks", "POST", b"", Content_Length="99999999")[0] == 413
    assert send("page/0/clicks", "POST", b"", Content_Length="9" * 5000)[0] == 413
    assert send("page/0/clicks", "POST", b"[")[0] == 400
    assert json.loads(send("page/0/clicks", "POST", b'[{"structure": "femur"}]')[2])["error"]
    assert not Path("clicks.csv").exists()


def test_what_is_not_there(send: Send) -> None:
    for path in ("nothing", "page/3/2", "page/-1/2", "page/0/5", "page/0/x", "page/0", "../volumes.tsv", "study/x"):
        assert send(path)[0] == 404, path
    assert send("page/3/clicks", "POST", b"[]")[0] == 404


def test_nothing_is_kept_by_the_browser_and_nothing_else_is_loaded(send: Send) -> None:
    for path in ("", "collect.js", "collect.css", "study", "page/0/2"):
        status, headers, _ = send(path)
        assert status == 200
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "Python" not in headers["Server"]


def test_a_frame_as_the_models_see_it(server: CollectServer, send: Send) -> None:
    status, headers, body = send("page/1/3")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    settings = read_settings(CONFIG)
    expected = frames_of(source_of(SheetRow("b", "b.nii"), settings), settings)[3]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(body))), expected)


def test_a_session_goes_on_where_the_last_one_ended(server: CollectServer, send: Send) -> None:
    study = json.loads(send("study")[2])
    assert (study["start"], [one["done"] for one in study["pages"]]) == (0, [False] * 3)
    assert study["pages"][0] == {
        "volume": "a",
        "slice": 2,
        "free": False,
        "structures": ["femur", "tibia"],
        "shape": [5, 4, 6],
        "pixel": [2.0, 1.0],
        "axes": "IP",
        "done": False,
    }
    assert study["colours"] == structure_colours(["femur", "tibia", "patella"])
    both = [click("femur", 1.25, 2), click("tibia", 3, 0)]
    saved = send("page/0/clicks", "POST", json.dumps(sent(both)).encode())
    assert json.loads(saved[2]) == {"done": True, "clicks": both, "conflicts": []}
    assert Path("clicks.csv").read_text() == HEAD + "a,femur,2,1.25,2\na,tibia,2,3,0\n"
    study = json.loads(send("study")[2])
    assert (study["start"], [one["done"] for one in study["pages"]]) == (1, [True, False, False])
    assert json.loads(send("page/0/clicks")[2])["clicks"][0] == click("femur", 1.25, 2.0)
    # taken back
    body = json.dumps(sent([], both)).encode()
    assert json.loads(send("page/0/clicks", "POST", body)[2]) == {"done": False, "clicks": [], "conflicts": []}
    assert Path("clicks.csv").read_text() == HEAD


def test_a_volume_whose_voxels_are_broken_says_so(server: CollectServer, send: Send) -> None:
    voxels = Path("c.nii").read_bytes()
    Path("c.nii").write_bytes(voxels[:-40])
    status, headers, body = send("page/2/0")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert "damaged or cut off" in json.loads(body)["error"]


def test_a_table_that_cannot_be_written_says_so(send: Send, here: Path) -> None:
    (here / "clicks.csv").mkdir()
    status, _, body = send("page/0/clicks", "POST", json.dumps(sent([click("femur", 1, 1)])).encode())
    assert status == 200
    assert "clicks.csv" in json.loads(body)["error"]


def test_a_taken_port_is_one_clear_error(server: CollectServer) -> None:
    with pytest.raises(CollectError, match="give another one with --port"):
        CollectServer(server.collection, server.frames, server.server_port)


def test_the_command_line_reports_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert volprompt("clicks", "collect", "--configfile", "gone.yaml") == 1
    assert "gone.yaml" in capsys.readouterr().err


# ---- requests that are none


def answers(server: CollectServer, request: bytes, close: bool = True) -> tuple[int, float]:
    """Send bytes as they are. Returns the status of the answer, 0 for none, and the seconds until the end."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(request)
        if close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    status = re.match(rb"HTTP/1\.[01] (\d{3}) ", received)
    return int(status[1]) if status else 0, time.monotonic() - began


def request_of(server: CollectServer, body: bytes, *lines: str, path: str = "page/0/clicks") -> bytes:
    head = [f"POST /{server.token}/{path} HTTP/1.1", f"Host: 127.0.0.1:{server.server_port}", *lines]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


@pytest.fixture
def quiet(server: CollectServer, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Afterwards nothing may have been said on the console, and no thread may be left with a connection."""
    yield
    deadline = time.monotonic() + 10
    while [one for one in threading.enumerate() if "process_request" in one.name] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [one for one in threading.enumerate() if "process_request" in one.name]
    assert capfd.readouterr() == ("", "")


JSON_TYPE = "Content-Type: application/json"
BODIES = (
    b"",
    b"[]",
    b"{}",
    b"null",
    b"NaN",
    b"\xff\xfe",
    b"[" * 200_000,
    b'{"clicks": 1, "known": 2}',
    b'{"clicks": [[]], "known": []}',
    b'{"clicks": [], "known": [{"structure": ["femur"], "slice": {}, "x": null, "y": []}]}',
    b'{"clicks": [{"structure": "femur", "slice": 2, "x": NaN, "y": 1}], "known": []}',
    b'{"clicks": [{"structure": "femur", "slice": 2, "x": 1e999, "y": -Infinity}], "known": []}',
    b'{"clicks": [{"structure": "femur", "slice": 2, "x": 1' + b"0" * 400 + b', "y": 1}], "known": []}',
    b'{"clicks": [{"structure": "femur", "slice": 1' + b"0" * 5000 + b', "x": 1, "y": 1}], "known": []}',
    b'{"clicks": [{"structure": "\\ud800", "slice": 2, "x": 1, "y": 1}], "known": []}',
)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:40].decode("latin-1"))
def test_a_body_that_is_no_click_gets_a_status(server: CollectServer, body: bytes) -> None:
    status, _ = answers(server, request_of(server, body, JSON_TYPE, f"Content-Length: {len(body)}"))
    assert status in (200, 400)
    assert not Path("clicks.csv").exists()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((), 411),
        (("Transfer-Encoding: chunked",), 411),
        (("Content-Length: -1",), 400),
        (("Content-Length: 1e3",), 400),
        (("Content-Length: \xb2",), 400),
        (("Content-Length: 1000001",), 413),
        (("Content-Length: " + "9" * 5000,), 413),
        (("Content-Length: 50",), 400),  # more than is sent
        (("Content-Length: 2", "Expect: 100-continue"), 100),
        (("Content-Length: 2", *(f"X-{number}: x" for number in range(200))), 431),
        (("Content-Length: 2", "X: " + "x" * 70_000), 431),
    ],
)
def test_lengths_and_heads_that_are_none(server: CollectServer, lines: tuple[str, ...], status: int) -> None:
    assert answers(server, request_of(server, b"[]", JSON_TYPE, *lines))[0] == status


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\r\n\r\n", 0),  # no request yet
        (b"hello\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 403),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\n\r\n", 501),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),  # https
        (b"GET /TOKEN/page/" + b"9" * 5000 + b"/2 HTTP/1.1\r\nHost: HOST\r\n\r\n", 404),
        (b"GET /TOKEN/page/0/" + b"9" * 5000 + b" HTTP/1.1\r\nHost: HOST\r\n\r\n", 404),
        (b"GET /TOKEN/study HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nGET /", 400),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_lines_that_are_no_request(server: CollectServer, request_: bytes, status: int) -> None:
    host = f"127.0.0.1:{server.server_port}".encode()
    assert answers(server, request_.replace(b"TOKEN", server.token.encode()).replace(b"HOST", host))[0] == status


@pytest.mark.usefixtures("quiet")
def test_a_request_without_token_is_answered_before_its_body_and_let_go_of(
    server: CollectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(handler, "DRAIN_SECONDS", 0.1)
    host = f"Host: 127.0.0.1:{server.server_port}\r\n".encode()
    head = b"POST /x/page/0/clicks HTTP/1.1\r\n" + host + b"Content-Length: 500000\r\n\r\n"
    status, seconds = answers(server, head + b"[", close=False)
    assert (status, seconds < 5) == (403, True)
    status, seconds = answers(server, b"GET / HTT", close=False)
    assert (status, seconds < 5) == (0, True)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as slow:
        began = time.monotonic()
        with contextlib.suppress(OSError):  # the other side has hung up
            while time.monotonic() - began < 10:
                slow.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - began < 5


@pytest.mark.usefixtures("quiet")
def test_a_body_that_never_ends_is_given_up(server: CollectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(handler, "DRAIN_SECONDS", 0.1)
    status, seconds = answers(server, request_of(server, b"[", JSON_TYPE, "Content-Length: 50"), close=False)
    assert (status, seconds < 5) == (408, True)


def test_a_fault_of_our_own_is_a_status_and_a_line(
    server: CollectServer, send: Send, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken() -> dict[str, Any]:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(server.collection, "describe", broken)
    status, _, text = send("study")
    assert status == 500
    assert b"ZeroDivisionError: by zero" in text
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.usefixtures("quiet")
def test_a_browser_that_hangs_up_is_no_fault(server: CollectServer) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
            connection.sendall(request_of(server, b"", path="page/0/2").replace(b"POST", b"GET"))


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
def test_any_request_gets_a_status(
    server: CollectServer, monkeypatch: pytest.MonkeyPatch, rounds: Callable[[int], int]
) -> None:
    monkeypatch.setattr(handler, "DRAIN_SECONDS", 0.1)
    rng = np.random.default_rng(7)
    body = json.dumps(sent([click("femur", 1, 1)], [click("tibia", 2, 2)])).encode()
    whole = request_of(server, body, JSON_TYPE, f"Content-Length: {len(body)}")
    for _ in range(rounds(1000)):
        request = bytearray(whole)
        for place in rng.integers(0, len(request), rng.integers(1, 6)):
            kind = rng.integers(4)
            if kind == 0:
                request[place : place + 1] = bytes([rng.integers(256)])
            elif kind == 1:
                del request[place : place + rng.integers(1, 30)]
            elif kind == 2:
                request[place:place] = request[: rng.integers(len(request))]
            else:
                request[place:place] = bytes([request[place % len(request)]]) * rng.integers(1, 2000)
        if request.partition(b"\n")[0].decode("latin-1").split():  # a first line that is blank is no request yet
            assert answers(server, bytes(request))[0], bytes(request)

"""A page in the browser that takes clicks on the volumes of a study, served on this machine alone.

The address holds a random token, which every request has to carry, and the server answers only to its own host names,
so that no other user's browser and no other page in the same browser gets at the frames or writes clicks. The clicks
table is written after every page; what it holds already is kept, and where it ends the next session goes on.
"""

from __future__ import annotations

import hmac
import io
import json
import secrets
import sys
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from volprompt.clicks.pages import CollectError, Collection, Page, Source, frames_of
from volprompt.clicks.table import ClickTable
from volprompt.errors import VolpromptError
from volprompt.settings.config import Settings

TEMPLATES = Path(__file__).parent / "templates"
STATIC = {
    "": ("collect.html", "text/html; charset=utf-8"),
    "collect.css": ("collect.css", "text/css; charset=utf-8"),
    "collect.js": ("collect.js", "text/javascript; charset=utf-8"),
}
# Volumes whose frames are kept: the shown one, the next one and the two that are read behind it, and two to go back to.
VOLUMES_KEPT = 6
VOLUMES_AHEAD = 2
LARGEST_REQUEST = 1_000_000
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class FrameStore:
    """Frames of the volumes around the shown one, read in the background and then forgotten."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(2, "frames")
        self._kept: OrderedDict[str, Future[np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def ask(self, source: Source) -> Future[np.ndarray]:
        """Start to read the frames of a volume, unless they are there, and return them as a future."""
        with self._lock:
            name = source.row.volume
            if name not in self._kept:
                self._kept[name] = self._pool.submit(frames_of, source, self._settings)
            self._kept.move_to_end(name)
            while len(self._kept) > VOLUMES_KEPT:
                self._kept.popitem(last=False)
            return self._kept[name]

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class CollectServer(ThreadingHTTPServer):
    """Serves a collection on 127.0.0.1; `address` is what to open."""

    daemon_threads = True

    def __init__(self, collection: Collection, frames: FrameStore, port: int = 0) -> None:
        """port: 0 takes a free one. Raises CollectError where it is taken."""
        self.collection = collection
        self.frames = frames
        self.token = secrets.token_urlsafe(24)
        self.static = {name: ((TEMPLATES / file).read_bytes(), kind) for name, (file, kind) in STATIC.items()}
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            raise CollectError(f"port {port} cannot be used ({error}); give another one with --port") from None
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    @property
    def address(self) -> str:
        """Address of the page, with the token."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


def serve(collection: Collection, settings: Settings, port: int = 0) -> None:
    """Serve the page until Ctrl+C, and print its address, what is left out, and what was collected in the end."""
    frames = FrameStore(settings)
    server = CollectServer(collection, frames, port)
    for reason in collection.unusable.values():
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{len(collection.pages)} pages; clicks go to {collection.path}")
    print(f"Open {server.address}\nCtrl+C ends; what is saved stays.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
        frames.close()
    collected = len(ClickTable(collection.path).rows)
    print(f"{collected} clicks in {collection.path}")
    if collection.note and collected:
        print(f"To use them, {collection.note}.")


class Refused(Exception):
    """A request that gets no answer but a status and a line of text."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: CollectServer
    protocol_version = "HTTP/1.1"
    server_version = "volprompt"
    sys_version = ""
    timeout = 300

    def do_GET(self) -> None:
        """Answer with the page and its parts, a frame, or clicks."""
        self._answer(self._answer_get)

    def do_POST(self) -> None:
        """Save clicks."""
        self._answer(self._answer_post)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the address holds the token."""

    def _answer(self, make: Any) -> None:
        try:
            body, kind = make(self._read_path())
            self._send(HTTPStatus.OK, body, kind)
        except Refused as refused:
            self.close_connection = True  # a body may be left unread
            self._send(refused.status, str(refused).encode(), "text/plain; charset=utf-8")
        except ConnectionError:
            self.close_connection = True  # the browser has turned the page meanwhile
        except (VolpromptError, OSError) as error:  # a volume that cannot be read, a table that cannot be written
            self._send(HTTPStatus.OK, json.dumps({"error": str(error)}).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _read_path(self) -> list[str]:
        """Return the parts of the path after the token. Raises Refused for a request that may not be answered."""
        forbidden = Refused(HTTPStatus.FORBIDDEN, "Open the address that the command has printed.")
        if self.headers.get("Host", "") not in self.server.hosts:
            raise forbidden
        origin = self.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://") not in self.server.hosts:
            raise forbidden
        token, slash, rest = self.path.removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise forbidden
        return rest.split("/")

    def _answer_get(self, parts: list[str]) -> tuple[bytes, str]:
        if len(parts) == 1 and parts[0] in self.server.static:
            return self.server.static[parts[0]]
        if parts == ["study"]:
            return self._as_json(self.server.collection.describe())
        if len(parts) == 3 and parts[0] == "page" and parts[2] == "clicks":
            return self._as_json({"clicks": self.server.collection.clicks(self._page_of_number(parts[1]))})
        if len(parts) == 3 and parts[0] == "page":
            return self._frame_as_png(self._page_of_number(parts[1]), int(parts[1]), parts[2])
        raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _answer_post(self, parts: list[str]) -> tuple[bytes, str]:
        if len(parts) != 3 or parts[0] != "page" or parts[2] != "clicks":
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_REQUEST:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Too large.")
        if self.headers.get("Content-Type") != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Expected JSON.")
        body = self.rfile.read(int(length))
        try:
            clicks = json.loads(body)
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "Expected JSON.") from None
        return self._as_json({"done": self.server.collection.save(self._page_of_number(parts[1]), clicks)})

    def _page_of_number(self, number: str) -> Page:
        pages = self.server.collection.pages
        if not number.isdecimal() or int(number) >= len(pages):
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such page.")
        return pages[int(number)]

    def _frame_as_png(self, page: Page, place: int, index: str) -> tuple[bytes, str]:
        """Return a frame as PNG; the volumes of the next pages are read ahead."""
        if not index.isdecimal() or int(index) >= page.source.shape[0]:
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such slice.")
        asked = self.server.frames.ask(page.source)
        for later in self.server.collection.pages[place + 1 : place + 1 + VOLUMES_AHEAD]:
            self.server.frames.ask(later.source)
        stream = io.BytesIO()
        Image.fromarray(asked.result()[int(index)]).save(stream, "PNG", compress_level=1)
        return stream.getvalue(), "image/png"

    @staticmethod
    def _as_json(value: object) -> tuple[bytes, str]:
        return json.dumps(value).encode(), "application/json"

"""Answers the requests of one connection to the clicks page's server, whatever they hold."""

from __future__ import annotations

import hmac
import io
import json
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from PIL import Image

from volprompt.clicks.pages import Page
from volprompt.errors import VolpromptError

if TYPE_CHECKING:
    from volprompt.clicks.server import CollectServer

VOLUMES_AHEAD = 2  # whose frames are read while a page is shown
LARGEST_REQUEST = 1_000_000
# What a connection may take in all, however slowly its bytes come: until a request has shown the token, from then on
# between two requests, for the body of one, and to take an answer.
HEAD_SECONDS = 10.0
IDLE_SECONDS = 300.0
BODY_SECONDS = 30.0
SEND_SECONDS = 60.0
DRAIN_SECONDS = 1.0
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Refused(Exception):
    """A request that gets no answer but a status and a line of text."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class TimedReader(io.RawIOBase):
    """Reads from a connection until a moment, which single bytes that trickle in do not put off."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        super().__init__()
        self._connection = connection
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """Read for that long from now on."""
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        """Return that it can be read from."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come. Raises TimeoutError when the time is over."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: CollectServer
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # so that even a line that is no request gets a status
    server_version = "volprompt"
    sys_version = ""

    def setup(self) -> None:
        """Read the connection against the clock."""
        super().setup()
        self.rfile.close()
        self._reader = TimedReader(self.connection, HEAD_SECONDS)
        self.rfile = io.BufferedReader(self._reader)

    def do_GET(self) -> None:
        """Answer with the page and its parts, a frame, or clicks."""
        self._answer(self._answer_get)

    def do_POST(self) -> None:
        """Save clicks."""
        self._answer(self._answer_post)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the address holds the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request, in one line."""
        self._refuse(HTTPStatus(code), f"{message or HTTPStatus(code).phrase}.")

    def _answer(self, make: Callable[[list[str]], tuple[bytes, str]]) -> None:
        try:
            body, kind = make(self._read_path())
            status = HTTPStatus.OK
        except Refused as refused:
            self._refuse(refused.status, str(refused))
            return
        except (VolpromptError, OSError) as error:  # a volume that cannot be read, a table that cannot be written
            body, kind = self._as_json({"error": str(error)})
            status = HTTPStatus.OK
        except Exception as error:  # a fault of ours; what the page has is still there, and can be sent again
            text = f"an unforeseen error ({type(error).__name__}: {error}); the terminal of the command shows it too."
            print(text, file=sys.stderr)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, text)
            return
        self._send(status, body, kind)
        self._reader.allow(IDLE_SECONDS)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """Answer with a line of text and end the connection, since a body may be left unread."""
        self.close_connection = True
        self._send(status, text.encode("utf-8", "replace"), "text/plain; charset=utf-8")
        # Closed with bytes unread, the connection would be reset, and the answer with it.
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self._reader.allow(DRAIN_SECONDS)
            while self.rfile.read1(LARGEST_REQUEST):
                pass

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        """Send an answer; a browser that has turned the page meanwhile takes none, which is no fault."""
        self.connection.settimeout(SEND_SECONDS)
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        try:
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except OSError:
            self.close_connection = True

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
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.BAD_REQUEST, "Expected no body.")  # it would be taken for the next request
        if len(parts) == 1 and parts[0] in self.server.static:
            return self.server.static[parts[0]]
        if parts == ["study"]:
            return self._as_json(self.server.collection.describe())
        if len(parts) == 3 and parts[0] == "page" and parts[2] == "clicks":
            return self._as_json({"clicks": self.server.collection.clicks(self._page(parts[1])[1])})
        if len(parts) == 3 and parts[0] == "page":
            return self._frame_as_png(*self._page(parts[1]), parts[2])
        raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _answer_post(self, parts: list[str]) -> tuple[bytes, str]:
        if len(parts) != 3 or parts[0] != "page" or parts[2] != "clicks":
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
        _, page = self._page(parts[1])
        try:
            sent = json.loads(self._read_body())
        except (ValueError, RecursionError):
            raise Refused(HTTPStatus.BAD_REQUEST, "Expected JSON.") from None
        return self._as_json(self.server.collection.save(page, sent))

    def _read_body(self) -> bytes:
        """Read the body of a request. Raises Refused if its length, its kind or its pace is not the page's."""
        length = self.headers.get("Content-Length")
        if length is None or "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Expected a Content-Length.")
        size = _number(length, len(str(LARGEST_REQUEST)))
        if size is None and not length.isdecimal():
            raise Refused(HTTPStatus.BAD_REQUEST, "Expected a whole number as Content-Length.")
        if size is None or size > LARGEST_REQUEST:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Too large.")
        if self.headers.get("Content-Type") != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Expected JSON.")
        self._reader.allow(BODY_SECONDS)
        try:
            body = self.rfile.read(size)
        except OSError:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "The request took too long.") from None
        if len(body) < size:
            raise Refused(HTTPStatus.BAD_REQUEST, "The request broke off.")
        return body

    def _page(self, text: str) -> tuple[int, Page]:
        """Return a page's number and the page."""
        pages = self.server.collection.pages
        number = _number(text)
        if number is None or number >= len(pages):
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such page.")
        return number, pages[number]

    def _frame_as_png(self, place: int, page: Page, text: str) -> tuple[bytes, str]:
        """Return a frame as PNG; the volumes of the next pages are read ahead."""
        index = _number(text)
        if index is None or index >= page.source.shape[0]:
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such slice.")
        asked = self.server.frames.ask(page.source)
        for later in self.server.collection.pages[place + 1 : place + 1 + VOLUMES_AHEAD]:
            self.server.frames.ask(later.source)
        stream = io.BytesIO()
        Image.fromarray(asked.result()[index]).save(stream, "PNG", compress_level=1)
        return stream.getvalue(), "image/png"

    @staticmethod
    def _as_json(value: object) -> tuple[bytes, str]:
        return json.dumps(value).encode(), "application/json"


def _number(text: str, digits: int = 9) -> int | None:
    """Return a whole number that is written with these digits at most; None for anything else."""
    return int(text) if text.isdecimal() and len(text) <= digits else None

"""A page in the browser that takes clicks on the volumes of a study, served on this machine alone.

The address holds a random token, which every request has to carry, and the server answers only to its own host names,
so that no other user's browser and no other page in the same browser gets at the frames or writes clicks. The clicks
table is written after every page; what it holds already is kept, and where it ends the next session goes on.
"""

from __future__ import annotations

import secrets
import sys
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from volprompt.clicks.collection import Collection
from volprompt.clicks.handler import Handler
from volprompt.clicks.pages import CollectError, Source, frames_of
from volprompt.clicks.table import ClickTable
from volprompt.settings.config import Settings

TEMPLATES = Path(__file__).parent / "templates"
STATIC = {
    "": ("collect.html", "text/html; charset=utf-8"),
    "collect.css": ("collect.css", "text/css; charset=utf-8"),
    "collect.js": ("collect.js", "text/javascript; charset=utf-8"),
}
# Volumes whose frames are kept: the shown one, the next one and the two that are read behind it, and two to go back to.
VOLUMES_KEPT = 6


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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line what no answer could be given to; a connection that broke off is none of it."""
        error = sys.exception()
        if not isinstance(error, OSError):
            print(f"a request got no answer ({type(error).__name__}: {error})", file=sys.stderr)

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

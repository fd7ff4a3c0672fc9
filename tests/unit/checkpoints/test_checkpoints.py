"""Checkpoints: downloads against a real local server, digests, safe loading, and the shipped catalogue."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.resources
import json
import logging
import os
import pickle
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from volprompt.checkpoints import digests, download, load
from volprompt.checkpoints.catalogue import CatalogueEntry, CheckpointError, read_catalogue
from volprompt.checkpoints.digests import content_digest
from volprompt.checkpoints.download import fetch
from volprompt.checkpoints.load import load_into, load_state_dict
from volprompt.families import family_of
from volprompt.files import sha256_of
from volprompt.remembered import DigestMemory

REPOSITORY = Path(__file__).resolve().parents[3]
CATALOGUE = REPOSITORY / "config" / "checkpoints.yaml"
MIB = 1 << 20
CONTENT = bytes(os.urandom(64)) * (MIB // 16) + b"the end"  # 4 MiB and 7 bytes


@dataclass
class Site:
    """What the local server does, and what it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    status: list[int] = field(default_factory=list)  # answered to the next requests, before any content
    drop_after: list[int] = field(default_factory=list)  # bytes of the next bodies before a break
    length: bool = True
    kind: str = "application/octet-stream"
    more: bytes = b""  # sent behind the content
    pause: float = 0.0  # seconds between pieces of 1000 bytes
    extent: str | None = None  # a Content-Range to answer instead of the true one
    asked: list[str | None] = field(default_factory=list)  # the Range header of each request
    sent: list[int] = field(default_factory=list)  # body bytes of each answer


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.asked.append(asked)
            if site.status:
                self.send_error(site.status.pop(0))
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and site.ranges else 0
            total = len(site.content)
            if start and start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", site.extent or f"bytes {start}-{total - 1}/{total}")
            self.send_header("Content-Type", site.kind)
            if site.length:
                self.send_header("Content-Length", str(total - start))
            self.end_headers()
            body = site.content[start:] + site.more
            body = body[: site.drop_after.pop(0)] if site.drop_after else body
            site.sent.append(len(body))  # first: the client may go on before this thread does
            with contextlib.suppress(ConnectionError):  # the client may hang up
                for place in range(0, len(body), 1000 if site.pause else len(body)):
                    self.wfile.write(body[place : place + 1000] if site.pause else body)
                    time.sleep(site.pause)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    site.url = f"http://127.0.0.1:{server.server_address[1]}/weights.pt"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


def _entry(url: str, content: bytes = CONTENT, size: int | None = None) -> CatalogueEntry:
    return CatalogueEntry(
        url=url,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=size,
        licence="Apache-2.0",
        family="sam2",
        architecture="configs/sam2/sam2_hiera_t.yaml",
    )


def _failure(call: Callable[..., object], *arguments: Any, **named: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, **named)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "weights.pt"


def _part(file: Path, content: bytes | None = None) -> Path:
    part = file.with_name(f"{file.name}.part")
    if content is not None:
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(content)
    return part


def _left(file: Path) -> list[str]:
    """Names in the folder of checkpoints, without those of locks."""
    return [path.name for path in file.parent.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_fetch_downloads_and_leaves_no_partial_file(site: Site, file: Path, size: int | None) -> None:
    fetch(_entry(site.url, size=size), file)
    assert file.read_bytes() == CONTENT
    assert _left(file) == ["weights.pt"]
    assert site.asked == [None]


def test_fetch_resumes_within_one_call(site: Site, file: Path) -> None:
    site.drop_after = [3 * MIB - 5]
    fetch(_entry(site.url, size=len(CONTENT)), file)
    assert file.read_bytes() == CONTENT
    assert site.asked == [None, f"bytes={3 * MIB - 5}-"]  # every byte that came was kept
    assert site.sent == [3 * MIB - 5, len(CONTENT) - 3 * MIB + 5]


def test_fetch_resumes_what_an_earlier_run_left(site: Site, file: Path) -> None:
    _part(file, CONTENT[:1_000_000])
    fetch(_entry(site.url), file)
    assert file.read_bytes() == CONTENT
    assert site.asked == ["bytes=1000000-"]
    assert site.sent == [len(CONTENT) - 1_000_000]


def test_fetch_goes_on_as_long_as_bytes_arrive(site: Site, file: Path) -> None:
    site.drop_after = [MIB + 1, MIB + 1, MIB + 1, MIB + 1]
    fetch(_entry(site.url, size=len(CONTENT)), file, attempts=1)
    assert file.read_bytes() == CONTENT
    assert len(site.asked) == 5


def test_fetch_keeps_the_bytes_when_it_gives_up(site: Site, file: Path) -> None:
    site.drop_after = [2 * MIB, 0, 0]
    message = _failure(fetch, _entry(site.url, size=len(CONTENT)), file, attempts=2)
    assert f"{2 * MIB} bytes are kept" in message
    assert not file.exists()
    assert _part(file).read_bytes() == CONTENT[: 2 * MIB]


def test_fetch_notices_a_short_answer_without_length(site: Site, file: Path) -> None:
    site.length, site.drop_after = False, [MIB]
    fetch(_entry(site.url, size=len(CONTENT)), file)
    assert file.read_bytes() == CONTENT
    assert site.asked == [None, f"bytes={MIB}-"]


def test_fetch_from_a_server_that_ignores_ranges(site: Site, file: Path) -> None:
    site.ranges = False
    _part(file, b"x" * 1000)
    fetch(_entry(site.url, size=len(CONTENT)), file)
    assert file.read_bytes() == CONTENT
    assert site.sent == [len(CONTENT)]


def test_fetch_gives_up_on_a_server_that_ignores_ranges_and_always_breaks(site: Site, file: Path) -> None:
    site.ranges, site.drop_after = False, [2 * MIB] * 20
    _failure(fetch, _entry(site.url, size=len(CONTENT)), file, attempts=2)
    assert len(site.asked) == 3


def test_fetch_restarts_after_a_wrong_content_range(site: Site, file: Path) -> None:
    site.extent = f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"
    _part(file, CONTENT[:1000])
    fetch(_entry(site.url), file)
    assert file.read_bytes() == CONTENT
    assert site.asked == ["bytes=1000-", None]


@pytest.mark.parametrize(("size", "asked"), [(len(CONTENT), []), (None, [f"bytes={len(CONTENT)}-"])])
def test_fetch_only_verifies_a_complete_part(site: Site, file: Path, size: int | None, asked: list[str]) -> None:
    _part(file, CONTENT)
    fetch(_entry(site.url, size=size), file)
    assert file.read_bytes() == CONTENT
    assert site.asked == asked
    assert site.sent == []


@pytest.mark.parametrize(("size", "asked"), [(len(CONTENT), 1), (None, 2)])
def test_fetch_restarts_where_the_part_is_too_long(site: Site, file: Path, size: int | None, asked: int) -> None:
    _part(file, CONTENT + b"more")
    fetch(_entry(site.url, size=size), file)
    assert file.read_bytes() == CONTENT
    assert len(site.asked) == asked


def test_fetch_removes_a_download_with_the_wrong_sum(site: Site, file: Path) -> None:
    site.content = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    message = _failure(fetch, _entry(site.url, size=len(CONTENT)), file)
    found = hashlib.sha256(site.content).hexdigest()
    for part in (site.url, found, hashlib.sha256(CONTENT).hexdigest(), str(file), "catalogue"):
        assert part in message
    assert _left(file) == []


def test_fetch_tells_a_web_page_from_a_checkpoint(site: Site, file: Path) -> None:
    site.content = b"<!DOCTYPE html><html>log in</html>"
    assert "web page" in _failure(fetch, _entry(site.url), file)
    assert "web page" in _failure(fetch, _entry(site.url, size=len(CONTENT)), file)
    site.content = b"another file"
    message = _failure(fetch, _entry(site.url, size=len(CONTENT)), file)
    assert f"offers 12 bytes, the catalogue expects {len(CONTENT)}" in message
    assert _left(file) == []


@pytest.mark.parametrize("part", [None, CONTENT[:MIB]])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text/html; charset=utf-8", b"\x80 looks like a pickle"),
        ("application/octet-stream", b"\xef\xbb\xbf\n<!DOCTYPE html>" + b" " * MIB),
        ("application/octet-stream", b"<!-- a proxy's --><html></html>"),
        ("text/plain", b"version https://git-lfs.github.com/spec/v1"),
    ],
)
def test_nothing_of_a_web_page_is_kept(site: Site, file: Path, kind: str, content: bytes, part: bytes | None) -> None:
    site.kind, site.content, site.length, site.ranges = kind, content, False, False
    site.drop_after = [len(content) - 5]
    _part(file, part)
    message = _failure(fetch, _entry(site.url, size=len(CONTENT)), file)
    assert "the server answered with a" in message
    assert len(site.asked) == 1
    assert _left(file) == (["weights.pt.part"] if part else [])  # what came of the file itself is kept
    site.kind, site.content = "application/octet-stream", CONTENT
    fetch(_entry(site.url, size=len(CONTENT)), file)
    assert file.read_bytes() == CONTENT


def test_a_web_page_of_an_earlier_version_is_not_gone_on_from(site: Site, file: Path) -> None:
    _part(file, b"<html>" + b" " * 1000)
    fetch(_entry(site.url, size=len(CONTENT)), file)
    assert file.read_bytes() == CONTENT
    assert site.asked == [None]


@pytest.mark.parametrize("part", [None, CONTENT[:MIB]])
def test_fetch_takes_no_more_bytes_than_the_catalogue_says(site: Site, file: Path, part: bytes | None) -> None:
    site.length, site.more = False, b"x" * 50 * MIB
    _part(file, part)
    message = _failure(fetch, _entry(site.url, size=len(CONTENT)), file)
    assert f"the server sends more than the {len(CONTENT)} bytes of the file" in message
    assert _left(file) == []


def test_an_answer_that_is_packed_is_not_unpacked(site: Site, file: Path) -> None:
    site.kind, site.content = "application/octet-stream\r\nContent-Encoding: gzip", gzip.compress(bytes(500 * MIB), 1)
    message = _failure(fetch, _entry(site.url), file)
    assert f"({len(site.content)} bytes) is another file" in message


def test_space_is_looked_at_on_the_way(site: Site, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SPACE_BYTES", MIB)
    free = iter([5 * MIB, 5 * MIB, 1000])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free)))
    message = _failure(fetch, _entry(site.url, size=len(CONTENT)), file)
    assert "MB more and 0 MB are free" in message
    kept = _part(file).read_bytes()
    assert 2 * MIB <= len(kept) <= 4 * MIB
    assert CONTENT.startswith(kept)


def test_a_line_that_is_too_slow_is_ended_with_what_came(
    site: Site, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "FLOOR_SECONDS", 0.3)
    monkeypatch.setattr(download, "FLOOR_BYTES_PER_SECOND", 100_000)
    site.pause = 0.1
    message = _failure(fetch, _entry(site.url, size=len(CONTENT)), file)
    kept = _part(file).read_bytes()
    assert "comes too slowly" in message
    assert "expected at least 100 kB/s" in message
    assert f"{len(kept)} of {len(CONTENT)} bytes are kept" in message
    assert 2000 <= len(kept) <= 10_000
    assert CONTENT.startswith(kept)
    site.pause = 0.0
    fetch(_entry(site.url, size=len(CONTENT)), file)
    assert site.asked[-1] == f"bytes={len(kept)}-"
    assert file.read_bytes() == CONTENT


def test_a_line_that_breaks_after_every_few_bytes_is_given_up(site: Site, file: Path) -> None:
    site.drop_after = [700] * 100
    message = _failure(fetch, _entry(site.url, size=len(CONTENT)), file, attempts=3)
    assert "3 tries in a row brought next to nothing" in message
    assert f"{3 * 700} bytes are kept" in message


FETCH = """
import sys
from volprompt.checkpoints.catalogue import CatalogueEntry
from volprompt.checkpoints.download import fetch
fetch(CatalogueEntry.model_validate_json(sys.argv[1]), sys.argv[2])
"""


def test_two_processes_fetch_one_file_once(site: Site, file: Path) -> None:
    site.pause, site.content = 0.01, CONTENT[:100_000]
    entry = _entry(site.url, site.content, len(site.content))
    command = [sys.executable, "-c", FETCH, entry.model_dump_json(), str(file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert site.asked == [None]
    assert file.read_bytes() == site.content
    assert _left(file) == ["weights.pt"]


def test_a_file_in_a_folder_that_cannot_be_written_needs_no_lock(site: Site, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    fetch(_entry(site.url), file)
    assert [path.name for path in file.parent.iterdir()] == ["weights.pt"]


def test_fetch_uses_a_file_in_place_without_a_request(site: Site, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    before = file.stat().st_mtime_ns
    fetch(_entry(site.url, size=len(CONTENT)), file)
    assert site.asked == []
    assert file.stat().st_mtime_ns == before


def test_fetch_leaves_a_wrong_file_in_place(site: Site, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"mine")
    message = _failure(fetch, _entry(site.url), file)
    assert hashlib.sha256(b"mine").hexdigest() in message
    assert hashlib.sha256(CONTENT).hexdigest() in message
    assert "Move it away" in message
    assert file.read_bytes() == b"mine"
    assert site.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1:9", "no-such-host.invalid"])
def test_fetch_offline_says_where_to_put_the_file(site: Site, file: Path, host: str) -> None:
    entry = _entry(f"http://{host}/weights.pt")
    message = _failure(fetch, entry, file, attempts=2)
    assert entry.url in message
    assert f"place it at {file}" in message
    assert _left(file) == []


@pytest.mark.parametrize("status", [403, 404])
def test_fetch_does_not_repeat_a_refused_request(site: Site, file: Path, status: int) -> None:
    site.status = [status] * 5
    message = _failure(fetch, _entry(site.url), file)
    assert f"HTTP {status}" in message
    assert f"place it at {file}" in message
    assert len(site.asked) == 1
    assert _left(file) == []


def test_fetch_repeats_a_request_to_a_busy_server(site: Site, file: Path) -> None:
    site.status = [503, 429]
    fetch(_entry(site.url), file)
    assert file.read_bytes() == CONTENT
    assert len(site.asked) == 3


def test_fetch_asks_for_space_before_it_writes(site: Site, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=MIB))
    message = _failure(fetch, _entry(site.url, size=len(CONTENT)), file)
    assert "needs 4 MB more and 1 MB are free" in message
    assert _left(file) == []


def test_fetch_reports_a_folder_it_cannot_make(site: Site, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file, not a folder")
    message = _failure(fetch, _entry(site.url), tmp_path / "checkpoints" / "weights.pt")
    assert "cannot be made" in message


def test_without_a_connection_there_is_one_sentence_and_what_to_do(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    with socket.socket() as taken:  # and not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/weights.pt"
        message = _failure(fetch, _entry(url), file, attempts=2)
    first, second = message.splitlines()
    reason = "127.0.0.1: Connection refused (2 tries in a row brought next to nothing)"
    assert first == f"weights.pt cannot be downloaded from {url}: {reason}."
    assert second.startswith(f"Get it on a machine with access and place it at {file} (SHA-256 ")


def test_fetch_logs_its_progress(
    site: Site, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("volprompt.checkpoints")
    monkeypatch.setattr(download, "PROGRESS_SECONDS", 0.0)
    caplog.set_level(logging.INFO, logger.name)
    monkeypatch.setattr(logger, "handlers", [handler])
    fetch(_entry(site.url, size=len(CONTENT)), file)
    assert len(lines) >= 4
    assert re.fullmatch(r"weights\.pt: \d+ %, \d of 4 MB, [\d.]+ MB/s, \d+ s left", lines[0])
    lines.clear()
    monkeypatch.setattr(download, "PROGRESS_SECONDS", 60.0)
    file.unlink()
    fetch(_entry(site.url), file)
    assert not lines


def _weights() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def test_archive_digest_survives_touch_rename_and_saving_again(tmp_path: Path) -> None:
    first, memory = tmp_path / "first.pt", DigestMemory(tmp_path / "memory.json")
    torch.save(_weights(), first)
    digest = content_digest(first, memory)
    assert re.fullmatch("[0-9a-f]{64}", digest)
    os.utime(first, (1, 1))
    assert content_digest(first, memory) == digest
    second = first.rename(tmp_path / "second.pt")
    assert content_digest(second, memory) == digest
    torch.save(_weights(), tmp_path / "again.pt")
    assert content_digest(tmp_path / "again.pt", memory) == digest
    memory.save()
    assert not memory.path.exists()


def test_archive_digest_changes_with_one_weight(tmp_path: Path) -> None:
    weights = _weights()
    torch.save(weights, tmp_path / "weights.pt")
    digest = content_digest(tmp_path / "weights.pt", DigestMemory(tmp_path / "memory.json"))
    weights["a.bias"][1] += 1e-6
    torch.save(weights, tmp_path / "weights.pt")
    assert content_digest(tmp_path / "weights.pt", DigestMemory(tmp_path / "memory.json")) != digest


def test_archive_without_crc_is_hashed(tmp_path: Path) -> None:
    from torch.serialization import set_crc32_options

    set_crc32_options(False)
    try:
        torch.save(_weights(), tmp_path / "weights.pt")
    finally:
        set_crc32_options(True)
    digest = content_digest(tmp_path / "weights.pt", DigestMemory(tmp_path / "memory.json"))
    assert digest == sha256_of(tmp_path / "weights.pt")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed whole."""
    names: list[str] = []

    def counting(path: str | Path) -> str:
        names.append(Path(path).name)
        return sha256_of(path)

    monkeypatch.setattr(digests, "sha256_of", counting)
    return names


def test_other_formats_are_hashed_once(tmp_path: Path, hashed: list[str]) -> None:
    path, file = tmp_path / "weights.safetensors", tmp_path / "cache" / "memory.json"
    legacy = tmp_path / "legacy.pth"
    memory = DigestMemory(file)
    save_file(_weights(), path)
    torch.save(_weights(), legacy, _use_new_zipfile_serialization=False)
    digests = [content_digest(name, memory) for name in (path, legacy, path, legacy)]
    assert digests[:2] == digests[2:] == [sha256_of(path), sha256_of(legacy)]
    assert hashed == ["weights.safetensors", "legacy.pth"]
    os.utime(path, (1, 1))
    assert content_digest(path, memory) == digests[0]
    assert content_digest(path, memory) == digests[0]
    assert hashed == ["weights.safetensors", "legacy.pth", "weights.safetensors"]
    memory.save()
    assert len(json.loads(file.read_text())) == 2
    assert content_digest(path, DigestMemory(file)) == digests[0]
    assert len(hashed) == 3
    save_file({"a": torch.zeros(3)}, path)
    assert content_digest(path, memory) == sha256_of(path) != digests[0]


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"PATH": 3}', '{"PATH": {"size": 1}}', "\x00\xff", "STALE"])
def test_damaged_memory_is_ignored_and_rewritten(tmp_path: Path, hashed: list[str], damage: str) -> None:
    path, file = tmp_path / "weights.safetensors", tmp_path / "memory.json"
    save_file(_weights(), path)
    stale = json.dumps({str(path.resolve()): ["signature of another time", "not a sum"]})
    file.write_bytes((stale if damage == "STALE" else damage.replace("PATH", str(path))).encode("latin-1"))
    memory = DigestMemory(file)
    assert content_digest(path, memory) == content_digest(path, memory) == sha256_of(path)
    assert hashed == ["weights.safetensors"]
    memory.save()
    assert json.loads(file.read_text())[str(path.resolve())][1] == sha256_of(path)


def test_memory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    save_file(_weights(), tmp_path / "weights.safetensors")
    (tmp_path / "file").touch()
    memory = DigestMemory(tmp_path / "file" / "memory.json")
    digest = content_digest(tmp_path / "weights.safetensors", memory)
    memory.save()
    assert digest == sha256_of(tmp_path / "weights.safetensors")


def test_digest_of_a_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in _failure(content_digest, tmp_path / "none.pt", DigestMemory(tmp_path / "memory.json"))


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("layout", ["plain", "model", "state_dict", "module", "model and module"])
def test_layouts(tmp_path: Path, layout: str, archive: bool) -> None:
    content: dict[str, Any] = dict(_weights())
    if "module" in layout:
        content = {f"module.{name}": value for name, value in content.items()}
    if layout.startswith(("model", "state_dict")):
        content = {layout.split()[0]: content, "epoch": 3}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=archive)
    loaded = load_state_dict(tmp_path / "weights.pt")
    assert loaded.keys() == _weights().keys()
    assert all(torch.equal(loaded[name], value) for name, value in _weights().items())


def test_safetensors(tmp_path: Path) -> None:
    save_file({f"module.{name}": value for name, value in _weights().items()}, tmp_path / "weights.safetensors")
    loaded = load_state_dict(tmp_path / "weights.safetensors")
    assert all(torch.equal(loaded[name], value) for name, value in _weights().items())


def test_a_read_only_file_loads(tmp_path: Path) -> None:
    torch.save(_weights(), tmp_path / "weights.pt")
    (tmp_path / "weights.pt").chmod(0o444)
    assert load_state_dict(tmp_path / "weights.pt").keys() == _weights().keys()


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in _failure(load_state_dict, tmp_path / "none.pt")


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["archive", "legacy", "safetensors"])
def test_incomplete_files(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    weights = {"a": torch.rand(200, 200)}
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "archive")
    content = path.read_bytes()
    content = content[: int(kept if kept >= 1 else kept * len(content))]
    path.write_bytes(content)
    message = _failure(load_state_dict, path)
    assert f"is not a complete {'safetensors' if kind == 'safetensors' else 'PyTorch'} file" in message
    assert f"({len(content)} bytes)" in message
    assert "delete it and fetch it again" in message


def test_a_real_broken_download(shared_data: Path) -> None:
    path = shared_data / "checkpoints" / "truncated_sam2.1_hiera_tiny.pt"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    assert f"is not a complete PyTorch file ({path.stat().st_size} bytes)" in _failure(load_state_dict, path)


class _Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["archive", "legacy", "pickle"])
def test_a_malicious_pickle_is_refused(tmp_path: Path, kind: str) -> None:
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    content = {"a": torch.ones(1), "b": _Command(f"touch '{trace}'")}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "archive")
    message = _failure(load_state_dict, path)
    assert "contains more than tensors" in message
    assert "safetensors" in message
    assert not trace.exists()
    if kind == "pickle":
        pickle.loads(path.read_bytes())  # the trap works
        assert trace.exists()


def test_a_whole_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "weights.pt")
    assert "(torch.nn.modules.linear.Linear)" in _failure(load_state_dict, tmp_path / "weights.pt")


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch is not asked to load anything."""

    def load_it(*_: object, **__: object) -> None:
        raise AssertionError("the file was loaded")

    monkeypatch.setattr(torch, "load", load_it)


def _packed_again(path: Path, part: str = "", content: bytes = b"", method: int = zipfile.ZIP_DEFLATED) -> None:
    """Write an archive again, packed, with other content of one part."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, old in parts.items():
            archive.writestr(name, content if part and name.endswith(part) else old)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("part", ["data.pkl", "data/0", "version"])
def test_an_archive_that_unpacks_to_far_more_is_refused_by_its_directory(tmp_path: Path, part: str) -> None:
    path = tmp_path / "weights.pt"
    torch.save(_weights(), path)
    _packed_again(path, part, bytes(200 * MIB))
    assert path.stat().st_size < MIB
    tracemalloc.start()
    message = _failure(load_state_dict, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"{part} becomes {200 * MIB} bytes" in message
    assert "is a packed archive" in message
    assert peak < 10 * MIB


@pytest.mark.usefixtures("unread")
def test_a_directory_that_lies_about_a_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.ones(5000)}, path)
    path.write_bytes(path.read_bytes().replace(struct.pack("<II", 20_000, 20_000), struct.pack("<II", 20_000, 1 << 30)))
    assert f"becomes {1 << 30} bytes" in _failure(load_state_dict, path)


class _Calls:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (_Calls(bytearray, 10**12), "bytearray"),
        (
            _Calls(torch._utils._rebuild_device_tensor_from_cpu_tensor, torch.ones(1), torch.float64, "cpu", False),
            "cpu",
        ),
        (torch.sparse_coo_tensor(torch.zeros(2, 1), torch.ones(1), (10**6, 10**6), check_invariants=True), "sparse"),
        (torch.zeros(3, device="meta"), "meta"),
    ],
)
def test_a_pickle_that_makes_memory_from_numbers_is_not_loaded(
    tmp_path: Path, value: object, name: str, archive: bool
) -> None:
    torch.save({"a": torch.ones(1), "b": value}, tmp_path / "w.pt", _use_new_zipfile_serialization=archive)
    message = _failure(load_state_dict, tmp_path / "w.pt")
    assert re.search(rf"contains more than tensors \([\w.]*{name}\w*\)", message)


@pytest.mark.parametrize("archive", [True, False])
def test_what_training_keeps_beside_the_weights_is_loaded(tmp_path: Path, archive: bool) -> None:
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    content = {
        "model": {**module.state_dict(), "half": torch.ones(2, dtype=torch.bfloat16), "own": module.weight},
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "rest": [torch.float16, torch.Size([3]), torch.device("cpu"), {1, 2}, 1j, None, "text", 2.5],
    }
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=archive)
    assert load_state_dict(tmp_path / "w.pt").keys() == {"weight", "bias", "half", "own"}


def test_an_archive_without_crc_is_loaded(tmp_path: Path) -> None:
    from torch.serialization import set_crc32_options

    set_crc32_options(False)
    try:
        torch.save(_weights(), tmp_path / "weights.pt")
    finally:
        set_crc32_options(True)
    assert load_state_dict(tmp_path / "weights.pt").keys() == _weights().keys()


@pytest.mark.parametrize("archive", [True, False])
def test_views_that_stand_for_far_more_than_the_file_are_refused(tmp_path: Path, archive: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, path, _use_new_zipfile_serialization=archive)
    message = _failure(load_state_dict, path)
    assert f"{path} has {path.stat().st_size} bytes, and its tensors stand for {4 * 10**12}" in message
    many = torch.rand(1000, 1000)
    torch.save({"a": many, "tied": many}, path, _use_new_zipfile_serialization=archive)
    assert load_state_dict(path).keys() == {"a", "tied"}


@pytest.mark.parametrize("archive", [True, False])
def test_storages_that_claim_more_than_the_file_holds(tmp_path: Path, archive: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.arange(1000.0)}, path, _use_new_zipfile_serialization=archive)
    if archive:
        with zipfile.ZipFile(path) as parts:
            pickled = next(parts.read(name) for name in parts.namelist() if name.endswith("data.pkl"))
        assert b"M\xe8\x03" in pickled
        claim = pickled.replace(b"M\xe8\x03", b"\x8a\x05" + (10**11).to_bytes(5, "little"))
        _packed_again(path, "data.pkl", claim, zipfile.ZIP_STORED)
    else:
        content = path.read_bytes()
        path.write_bytes(content.replace(b"M\xe8\x03", b"\x8a\x05" + (10**10).to_bytes(5, "little")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "is not a complete PyTorch file" in _failure(load_state_dict, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_safetensors_header_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "is not a complete safetensors file" in _failure(load_state_dict, path)
    path.write_bytes(struct.pack("<Q", 1 << 60) + header + bytes(4))
    assert "is not a complete safetensors file" in _failure(load_state_dict, path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a Tensor"),
        ({}, "holds a dict without tensors"),
        ({"model": {}}, "holds a dict without tensors"),
        ({"a": torch.ones(1), "epoch": 3}, "holds a int under 'epoch'"),
        ({0: torch.ones(1)}, "holds a Tensor under 0"),
    ],
)
def test_content_other_than_named_tensors(tmp_path: Path, content: Any, found: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    message = _failure(load_state_dict, tmp_path / "weights.pt")
    assert found in message
    assert "save a state dict" in message


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("\n<!DOCTYPE html><html></html>", "web page"),
        ("<html>", "web page"),
        ("<?xml version='1.0'?><Error>AccessDenied</Error>", "web page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    ],
)
def test_something_else_saved_under_the_name(tmp_path: Path, name: str, content: str, what: str) -> None:
    (tmp_path / name).write_text(content)
    message = _failure(load_state_dict, tmp_path / name)
    assert what in message
    assert "fetch the file itself" in message


def test_an_archive_of_another_kind(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "is not a complete PyTorch file" in _failure(load_state_dict, tmp_path / "weights.pt")


def test_load_into_copies_the_weights(tmp_path: Path) -> None:
    module, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    torch.save({"model": other.state_dict()}, tmp_path / "weights.pt")
    load_into(module, tmp_path / "weights.pt", "a layer")
    assert torch.equal(module.weight, other.weight)


def test_load_into_counts_every_kind_of_difference(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = {"0.weight": torch.ones(2, 4), "0.bias": torch.ones(2), "x": torch.ones(1, 5), "y": torch.ones(1)}
    torch.save(found, tmp_path / "weights.pt")
    message = _failure(load_into, module, tmp_path / "weights.pt", "sam2 architecture small.yaml")
    assert f"{tmp_path / 'weights.pt'} does not fit sam2 architecture small.yaml" in message
    assert "2 missing, first 1.weight (2, 2)" in message
    assert "2 unexpected, first x (1, 5)" in message
    assert "1 of other shape, first 0.weight (2, 4) instead of (2, 3)" in message
    assert "neither SAM, SAM 2, SAM 3 nor EdgeTAM" in message
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def _like(kind: str, width: int, blocks: int) -> dict[str, torch.Tensor]:
    """Tensors named as those of a model's: enough to know its kind and size."""
    encoder = "image_encoder" if kind == "sam" else "image_encoder.trunk"
    tensors = {f"{encoder}.blocks.{block}.norm1.weight": torch.ones(1) for block in range(blocks)}
    tensors[f"{encoder}.patch_embed.proj.weight"] = torch.ones(width, 1)
    if kind == "sam2.1":
        tensors |= {"no_obj_embed_spatial": torch.ones(1), "obj_ptr_tpos_proj.weight": torch.ones(1)}
    return tensors


@pytest.mark.parametrize(
    ("tensors", "hint"),
    [
        (_like("sam", 768, 12), "family sam, architecture vit_b."),
        (_like("sam", 1280, 32), "family sam, architecture vit_h."),
        (_like("sam", 64, 4), "architecture vit_b, vit_l or vit_h."),
        (_like("sam2", 96, 12), "configs/sam2/sam2_hiera_t.yaml."),
        (_like("sam2", 96, 16), "configs/sam2/sam2_hiera_s.yaml."),
        (_like("sam2.1", 112, 24), "configs/sam2.1/sam2.1_hiera_b+.yaml."),
        (_like("sam2.1", 144, 48), "configs/sam2.1/sam2.1_hiera_l.yaml."),
        (_like("sam2.1", 24, 5), "none of the published ones"),
        ({"prompt_encoder.not_a_point_embed.weight": torch.ones(1)}, "MobileSAM"),
    ],
)
def test_hints_tell_what_the_checkpoint_needs(tmp_path: Path, tensors: dict[str, torch.Tensor], hint: str) -> None:
    torch.save(tensors, tmp_path / "weights.pt")
    assert hint in _failure(load_into, torch.nn.Linear(1, 1), tmp_path / "weights.pt", "a layer")


def test_hint_where_kind_and_size_are_right(tmp_path: Path) -> None:
    module = torch.nn.Module()
    module.register_parameter("no_obj_embed_spatial", torch.nn.Parameter(torch.ones(1, 64)))
    torch.save({"no_obj_embed_spatial": torch.ones(1, 32)}, tmp_path / "weights.pt")
    assert "needs the settings that it was trained with" in _failure(
        load_into, module, tmp_path / "weights.pt", "a layer"
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sam2.1_hiera_tiny", "configs/sam2.1/sam2.1_hiera_t.yaml."),
        ("sam2.1_hiera_small", "configs/sam2.1/sam2.1_hiera_s.yaml."),
        ("sam2.1_hiera_base_plus", "configs/sam2.1/sam2.1_hiera_b+.yaml."),
        ("sam2.1_hiera_large", "configs/sam2.1/sam2.1_hiera_l.yaml."),
        ("mobile_sam", "not supported"),
    ],
)
def test_hints_for_the_tensors_of_real_checkpoints(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    listing = shared_data / "checkpoints" / f"{name}.keys.json"
    if not listing.exists():
        pytest.skip(f"{listing} is absent")
    # One number stands for each tensor: the shape is real, the storage is not.
    tensors = {
        key.removeprefix("model/"): torch.tensor(0.0).expand(value["shape"])
        for key, value in json.loads(listing.read_text()).items()
    }
    monkeypatch.setattr(load, "load_state_dict", lambda _: tensors)
    message = _failure(load_into, torch.nn.Linear(1, 1), "weights.pt", "a layer")
    assert f"{len(tensors)} unexpected" in message
    assert hint in message


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys, volprompt.checkpoints.digests, volprompt.checkpoints.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_catalogue_is_complete_and_plausible() -> None:
    catalogue = read_catalogue(CATALOGUE)
    handed_out = {name: entry for name, entry in catalogue.items() if entry.page}
    assert set(handed_out) == {"sam3.safetensors", "edgetam.safetensors"}
    catalogue = {name: entry for name, entry in catalogue.items() if name not in handed_out}
    assert len({entry.sha256 for entry in catalogue.values()}) == len(catalogue)
    assert len([name for name, entry in catalogue.items() if entry.url]) == 11
    for name, entry in catalogue.items():
        if entry.url is None:
            assert sha256_of(REPOSITORY / "demo" / "checkpoints" / name) == entry.sha256
            continue
        assert entry.url.startswith("https://dl.fbaipublicfiles.com/segment_anything")
        assert entry.url.endswith(f"/{name}")
        assert entry.licence == "Apache-2.0"
        assert name.startswith("sam_" if entry.family == "sam" else "sam2")
        assert entry.bytes is None or entry.bytes > 100e6


def test_catalogue_names_architectures_that_exist() -> None:
    registry = pytest.importorskip("segment_anything").sam_model_registry
    configurations = importlib.resources.files("sam2")
    for entry in read_catalogue(CATALOGUE).values():
        if entry.page is not None:
            assert entry.architecture in family_of(entry.family).architectures
        elif entry.url is None:
            assert (REPOSITORY / entry.architecture).is_file()
        elif entry.family == "sam":
            assert entry.architecture in registry
        else:
            assert configurations.joinpath(entry.architecture).is_file()


def test_catalogue_agrees_with_the_collected_sums(shared_data: Path) -> None:
    table = shared_data / "checkpoints" / "official_sha256.tsv"
    if not table.exists():
        pytest.skip(f"{table} is absent")
    rows = [line.split("\t") for line in table.read_text().splitlines() if line.count("\t") == 2]
    known = {name: (size, digest) for name, size, digest in rows}
    published = {name: entry for name, entry in read_catalogue(CATALOGUE).items() if entry.url}
    for name, entry in published.items():
        size, digest = known[name]
        assert entry.sha256 == digest
        assert not size.isdecimal() or entry.bytes == int(size)


def test_a_checkpoint_that_the_catalogue_has_twice(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.yaml"
    entry = f"a.pt: {{sha256: '{'0' * 64}', licence: MIT, family: sam, architecture: vit_b}}\n"
    path.write_text(entry + entry)
    assert f"{path} line 2: a.pt: is there already in line 1" in _failure(read_catalogue, path)


def test_catalogue_faults_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.yaml"
    path.write_text("a.pt: {url: 'ftp://x', sha256: abc, licence: MIT, family: sam4, architecture: x, md5: 1}")
    message = _failure(read_catalogue, path)
    assert str(path) in message
    assert all(f"a.pt: {key}:" in message for key in ("url", "sha256", "family", "md5"))


@pytest.mark.parametrize("content", [None, "", "- a", "a: [", b"\xff\xfe\xff"])
def test_catalogue_that_cannot_be_read(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "checkpoints.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert str(path) in _failure(read_catalogue, path)

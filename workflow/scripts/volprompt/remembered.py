"""Digests of large files, remembered until the files are written to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from volprompt.files import write_text
from volprompt.logs import NOTICE, logger

PROGRESS_SECONDS = 5.0


class DigestMemory:
    """Digests by name and signature (see `identity.signature_of`), kept in a JSON file."""

    def __init__(self, path: str | Path) -> None:
        """path: the file; what cannot be read of it counts as forgotten."""
        self.path = Path(path)
        self._changed = False
        self._computed = 0
        self._reported = time.monotonic()
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))
            self._rows = {str(name): (str(signature), str(digest)) for name, (signature, digest) in rows.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._rows = {}

    def digest(self, name: str, signature: str, compute: Callable[[], str]) -> str:
        """The digest that was remembered for this name and signature, or else what `compute` returns."""
        known = self._rows.get(name)
        if known is None or known[0] != signature:
            self._rows[name] = known = (signature, compute())
            self._changed = True
            self._report_progress()
        return known[1]

    def _report_progress(self) -> None:
        """Say now and then what takes so long: hashing many large files for the first time."""
        self._computed += 1
        if time.monotonic() - self._reported > PROGRESS_SECONDS:
            self._reported = time.monotonic()
            text = "Computing digests of files that are new or were written to: %d so far"
            logger.log(NOTICE, text, self._computed)

    def save(self) -> None:
        """Write what was added, atomically; a file that cannot be written is a warning, since digests can be remade."""
        if not self._changed:
            return
        try:
            write_text(self.path, json.dumps(self._rows, indent=1, sort_keys=True) + "\n")
            self._changed = False
        except OSError as error:
            logger.warning("digests cannot be remembered in %s: %s", self.path, error)

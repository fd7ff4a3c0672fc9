"""Lines on the console, and on a terminal one last line that is rewritten in place."""

from __future__ import annotations

import os
import shutil
from typing import TextIO

from snakemake_logger_plugin_volprompt.words import cut

COLOURS = {"red": "\033[31m", "yellow": "\033[33m", "green": "\033[32m", "dim": "\033[2m"}
RESET = "\033[0m"
CLEAR_LINE = "\r\033[K"


class Screen:
    """Writes to a stream; colours and the line in place only where the stream is a terminal that can do it."""

    def __init__(self, stream: TextIO, nocolor: bool = False) -> None:
        self.stream = stream
        self.terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.colours = self.terminal and not nocolor and not os.environ.get("NO_COLOR")
        self._status = ""
        self._closed = False  # the reader is gone, as in `snakemake ... | head`

    def line(self, text: str, colour: str = "") -> None:
        """Write a line that stays."""
        if self.colours and colour:
            text = f"{COLOURS[colour]}{text}{RESET}"
        clear = CLEAR_LINE if self._status else ""
        self._write(f"{clear}{text}\n{self._drawn()}")

    def status(self, text: str) -> None:
        """Rewrite the last line of a terminal, or remove it where there is no text; elsewhere nothing happens."""
        if self.terminal and (text or self._status):
            self._status = text
            self._write(CLEAR_LINE + self._drawn())

    def _drawn(self) -> str:
        """The status, with the cursor back at its start, so that what a job prints there does not follow it."""
        if not self._status:
            return ""
        text = cut(self._status, shutil.get_terminal_size().columns - 1)
        return f"{COLOURS['dim']}{text}{RESET}\r" if self.colours else f"{text}\r"

    def _write(self, text: str) -> None:
        if self._closed:
            return
        try:
            self.stream.write(text)
            self.stream.flush()
        except BrokenPipeError:
            self._closed = True

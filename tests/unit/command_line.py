"""The command as a shell calls it."""

from __future__ import annotations

import pytest

from volprompt.__main__ import command


def volprompt(*arguments: object) -> int:
    """Run the command in this process and return its exit code; what it prints is the test's own output."""
    with pytest.raises(SystemExit) as end:
        command.main(list(map(str, arguments)), prog_name="volprompt")
    return int(end.value.code or 0)

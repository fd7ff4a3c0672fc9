"""The effective configuration of a study, as a file beside its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from volprompt.files import write_text

HEAD = "# The configuration that made the report, with every default; --configfile takes it.\n"


def write_configuration(settings: Mapping[str, Any], path: str | Path) -> None:
    """Write a configuration as YAML, atomically; settings: as plain values."""
    write_text(path, HEAD + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))

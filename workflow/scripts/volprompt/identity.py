"""What a result was made from: a small file beside each output, written last.

The file of a folder is `identity.json` in it; that of a file has the file's name with the ending `.json`. Planning
compares it with what the configuration asks for, since Snakemake's own records can be lost.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from volprompt.errors import VolpromptError
from volprompt.files import sha256_of, write_text

SCHEMA_VERSION = 1
# For outputs of a library call outside of a study.
NO_SETTINGS: Mapping[str, Any] = {}


class DamagedResult(VolpromptError):
    """An output that is missing, or is not what its identity says."""

    may_heal = True  # a shared file system shows new files late


@dataclass(frozen=True)
class FileMark:
    """Size in bytes, time of modification in nanoseconds, and SHA-256 of an output's file when it was made."""

    bytes: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileMark:
        """The mark of a file as it is now. Raises OSError where it cannot be read."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, sha256_of(path))

    def fits(self, status: os.stat_result, digest: Callable[[], str], trust_times: bool = True) -> bool:
        """Whether a file is as it was made: of the same size and time of modification, or of the same SHA-256.

        status: of the file; digest: computes its SHA-256, which alone decides where times are not trusted.
        """
        if trust_times and (status.st_size, status.st_mtime_ns) == (self.bytes, self.mtime_ns):
            return True
        return status.st_size == self.bytes and digest() == self.sha256


@dataclass(frozen=True)
class Identity:
    """What an output was made from.

    settings: those that reach the output and no others, as plain values; made_from: the digest of each thing that was
    read, by a name that stays when folders are moved; files: mark of each file by its path within the output's folder;
    signatures: of sources, by the same names as in `made_from`, see `signature_of`; pruned: folders in the output's
    folder whose files were removed on purpose, see `mark_pruned`.
    """

    settings: Mapping[str, Any]
    made_from: Mapping[str, str]
    files: Mapping[str, FileMark]
    signatures: Mapping[str, str] = field(default_factory=dict)
    pruned: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """SHA-256 of settings, sources and content, as 64 hexadecimal digits; times and places are no part of it.

        It is that of the output as it was made, so that what was made from it stays valid when a part is pruned.
        """
        content = {name: mark.sha256 for name, mark in self.files.items()}
        return digest_of({"settings": self.settings, "made_from": self.made_from, "files": content})


def digest_of(facts: Any) -> str:
    """SHA-256 of plain values (as JSON has them), whatever the order of their keys: 64 hexadecimal digits."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def signature_of(files: Iterable[Path], folder: Path) -> str:
    """What tells whether files were written to, without reading them: 64 hexadecimal digits.

    It covers names below `folder`, sizes, times of modification and of change, and inodes. A copying tool can set the
    time of modification, but not that of change. Raises OSError for a file that is not there.
    """
    rows = []
    for file in files:
        status = file.stat()
        row = [os.path.relpath(file, folder), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        rows.append(row)
    return digest_of(sorted(rows))


def identity_path(output: str | Path) -> Path:
    """Where the identity of an output lies: in a folder, beside a file."""
    output = Path(output)
    return output.with_suffix(".json") if output.suffix else output / "identity.json"


def write_identity(
    output: str | Path,
    settings: Mapping[str, Any],
    made_from: Mapping[str, str],
    files: Iterable[Path] | None = None,
    signatures: Mapping[str, str] | None = None,
) -> None:
    """Write the identity of an output; to be called once everything else of it is written.

    output: a folder or a file; files: those that belong to it (default: all of a folder, or the file itself); the other
    arguments as in `Identity`.
    """
    output = Path(output)
    path = identity_path(output)
    if files is None:
        files = sorted(file for file in output.rglob("*") if is_content(file)) if output.is_dir() else [output]
    marks = {str(file.relative_to(path.parent)): FileMark.of(file) for file in files}
    identity = Identity(settings, made_from, marks, signatures or {})
    content = {
        "schema_version": SCHEMA_VERSION,
        "digest": identity.digest,
        "settings": settings,
        "made_from": made_from,
        "files": {name: [mark.bytes, mark.mtime_ns, mark.sha256] for name, mark in marks.items()},
        "signatures": identity.signatures,
    }
    _write_content(path, content)


def _write_content(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def mark_pruned(output: str | Path, folders: Iterable[str]) -> None:
    """Note in the identity of an output that folders in it were removed, since nothing asks for them any more.

    Its digest stays, and the time of the output's folder. Raises DamagedResult where the output has no identity.
    """
    identity, path = require_identity(output), identity_path(output)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["pruned"] = sorted(identity.pruned.union(folders))
    status = path.parent.stat()
    _write_content(path, content)
    with suppress(OSError):  # a colleague's folder
        os.utime(path.parent, ns=(status.st_atime_ns, status.st_mtime_ns))


def is_content(file: Path) -> bool:
    """Whether a file of an output's folder is part of the result: Snakemake's and our own marks are not."""
    return file.is_file() and not file.name.startswith(".") and file.name != "identity.json"


def read_identity(output: str | Path) -> Identity | None:
    """Read the identity of an output; None where it has none, or one that cannot be understood."""
    try:
        content = json.loads(identity_path(output).read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            return None
        files = {name: FileMark(*mark) for name, mark in content["files"].items()}
        pruned = frozenset(content.get("pruned", ()))
        settings, made_from, signatures = (dict(content[key]) for key in ("settings", "made_from", "signatures"))
        identity = Identity(settings, made_from, files, signatures, pruned)
        return identity if identity.digest == content["digest"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def changed_files(
    identity: Identity, folder: Path, digest: Callable[[Path], str] = sha256_of, trust_times: bool = True
) -> list[str]:
    """One text for each file of an output that is missing, or was edited since the output was made.

    A file of the same size and time of modification counts as the same if `trust_times`; otherwise its SHA-256, asked
    of `digest`, decides. Files that were pruned are not asked for.
    """
    faults = []
    for name, mark in identity.files.items():
        if name.partition("/")[0] in identity.pruned:
            continue
        file = folder / name
        try:
            status = file.stat()
        except OSError:
            faults.append(f"{name} is missing")
            continue
        if not mark.fits(status, partial(digest, file), trust_times):
            faults.append(f"{name} was edited")
    return faults


def digest_of_intact(output: str | Path) -> str:
    """The digest of an output that is about to be read.

    Raises DamagedResult where its identity is missing, or names a file that is missing or was edited.
    """
    identity = require_identity(output)
    if faults := changed_files(identity, identity_path(output).parent):
        raise _damaged(output, faults)
    return identity.digest


def require_identity(output: str | Path) -> Identity:
    """The identity of an output. Raises DamagedResult where it is missing."""
    identity = read_identity(output)
    if identity is None:
        name = identity_path(output).name
        raise _damaged(output, [f"{name} is missing or damaged, so that nothing says what it was made from"])
    return identity


def _damaged(output: str | Path, faults: Iterable[str]) -> DamagedResult:
    return DamagedResult(
        f"{output} is not the result that was made: {'; '.join(faults)}. Run the same command again: planning sees the "
        "difference, and makes it again."
    )


def differences(stored: Any, wanted: Any, place: str = "") -> list[str]:
    """One text for each setting in which plain values differ: `schemes.point.multimask: false, now true`."""
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        return [
            text
            for key in sorted({*stored, *wanted})
            for text in differences(stored.get(key), wanted.get(key), f"{place}.{key}".lstrip("."))
        ]
    return [] if stored == wanted else [f"{place}: {_short(stored)}, now {_short(wanted)}"]


def _short(value: Any, longest: int = 60) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= longest else text[: longest - 3] + "..."

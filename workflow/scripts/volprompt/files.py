"""Files that are either whole or absent: everything the library writes goes through here."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from volprompt.cells import as_cell
from volprompt.errors import VolpromptError, first_line, is_machine_fault

if TYPE_CHECKING:
    import pandas as pd


class DamagedTable(VolpromptError):
    """A table of the results that cannot be read."""

    may_heal = True  # a shared file system shows new files late


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that becomes `path` when the block ends, and vanishes when it raises.

    The temporary name ends like `path`, since many writers choose the format by the ending.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".part-{uuid4().hex}-{path.name}"
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits.

    Raises OSError where it cannot be read, and for what is no file: a pipe, say, at which a reader would wait forever.
    """
    if not Path(path).is_file():
        raise OSError(f"{path} is no file")
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_start(path: str | Path, count: int = 512) -> bytes:
    """Read the first bytes of a file; none of one that is not there, or may not be read.

    Raises OSError for a fault of the disk. Libraries that look what kind of file they have take a file that cannot be
    read for one that they do not know, and say nothing of the disk.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read(count)
    except OSError as error:
        if is_machine_fault(error):
            raise
        return b""


def separator(path: str | Path, usual: str) -> str:
    """What stands between the columns of a table: a comma in a .csv file, a tab in a .tsv file, else the usual one."""
    return {".csv": ",", ".tsv": "\t"}.get(Path(path).suffix, usual)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` in UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def replace_text(path: str | Path, text: str) -> None:
    """Write `text` in UTF-8 into a file that people keep: atomically, and on the disk before it takes effect.

    A symbolic link stays one (its target is replaced), and a file that is there keeps its group and its mode.
    """
    target = Path(os.path.realpath(path))
    with atomic(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
        with suppress(FileNotFoundError):
            earlier = target.stat()
            with suppress(OSError):  # the group may be none of ours
                os.chown(temporary, -1, earlier.st_gid)
            temporary.chmod(stat.S_IMODE(earlier.st_mode))
        _sync(temporary)
    with suppress(OSError):  # not every file system has folders that can be synchronised
        _sync(target.parent)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_csv(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table for people as CSV, or with tabs if the name ends in .tsv, atomically; no text becomes a formula."""
    columns = {name: column.map(_as_cell) for name, column in table.items() if column.dtype.kind not in "biufc"}
    with atomic(path) as temporary:
        table.assign(**columns).to_csv(temporary, sep=separator(path, ","), index=False)


def _as_cell(value: object) -> object:
    return as_cell(value) if isinstance(value, str) else value


def write_table(
    table: pd.DataFrame,
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    fields: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Write a table as Parquet, atomically.

    metadata: the file's key-value metadata; fields: the key-value metadata of columns, by their names.
    """
    write_tables([table], path, metadata, fields)


def write_tables(
    parts: Iterable[pd.DataFrame],
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    fields: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Write tables of the same columns one after another into one Parquet file, atomically; arguments as `write_table`.

    Only one part is in memory at a time. At least one is needed, which may be empty.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic(path) as temporary:
        writer: pq.ParquetWriter | None = None
        try:
            for part in parts:
                arrow = pa.Table.from_pandas(part, preserve_index=False)
                if writer is None:
                    schema = pa.schema(
                        [field.with_metadata(dict((fields or {}).get(field.name, {}))) for field in arrow.schema],
                        {**(arrow.schema.metadata or {}), **dict(metadata or {})},
                    )
                    writer = pq.ParquetWriter(temporary, schema)
                writer.write_table(arrow.cast(writer.schema))
        finally:
            if writer is not None:
                writer.close()


def join_tables(parts: Sequence[pd.DataFrame], columns: Mapping[str, str]) -> pd.DataFrame:
    """Join tables into one with exactly these columns and types, also where there is no row. columns: types by name."""
    import pandas as pd

    empty = pd.DataFrame(columns=list(columns)).astype(dict(columns))
    return pd.concat([empty, *parts]).reindex(columns=list(columns)).astype(dict(columns))


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table from Parquet, or some of its columns. Raises DamagedTable for a file that is missing or damaged."""
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path, columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DamagedTable(
            f"{path} is missing or damaged ({first_line(error)}). Run the same command again: planning sees it, and "
            "makes it again."
        ) from error


def table_metadata(path: str | Path) -> dict[str, str]:
    """Return the key-value metadata of a Parquet file, without what pandas and Arrow keep there."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if key not in (b"pandas", b"ARROW:schema")}
